"""Steps in the middle of a function: what another thread, a finalizer or the handler of a signal may do there."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, cast


def instructions_of(code: CodeType) -> list[int]:
    """The offsets of all instructions: another thread may run before each."""
    return [instruction.offset for instruction in dis.get_instructions(code)]


def moments_of(code: CodeType) -> Iterator[int]:
    """Yield the offsets of the instructions before which the interpreter may run something else in the same thread.

    It does so at the end of a call and at a jump backwards; until CPython 3.11 also where a list or dict is made.
    """
    before = "CALL"
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if before.startswith(("CALL", "BEFORE_WITH", "SETUP_WITH")) or name.startswith(("BUILD", "JUMP_BACK")):
            yield instruction.offset
        before = name


class Interruption:
    """Does something once, in whatever thread comes to a moment of a function.

    Args:
        code: the function's code.
        offset: that of the instruction before which it happens.
        do: what happens.

    Attributes:
        happened: whether it did.
    """

    def __init__(self, code: CodeType, offset: int, do: Callable[[], object]) -> None:
        self._code = code
        self._offset = offset
        self._do = do
        self.happened = False

    def __enter__(self) -> Interruption:
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)
        threading.settrace(cast(Any, None))

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti == self._offset and not self.happened:
            self.happened = True
            self._do()
        return self._trace
