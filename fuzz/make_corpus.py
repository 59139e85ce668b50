"""Make seeds from the conformance cases: ``python -m fuzz.make_corpus DIRECTORY``.

Each case that sends no more than a few hundred bytes is a message; its content, where it comes in chunks, is a
seed of its own, and so is its trailer section. Responses come from a short list. The target's byte and the cut's
byte are put before each (see `fuzz.checks`). There are more of them than bring anything new: `fuzz/corpus` is
what a merge has left of the seeds and of what runs have found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.cases import SendBytes, load_cases

LONGEST = 700
MESSAGES, CHUNKS, TRAILERS, RESPONSES = range(4)

ANSWERS = {
    "plain": b"200 OK\x1eContent-Type\x1ftext/plain\x1eContent-Length\x1f3",
    "unknown-length": b"200 OK\x1eX-A\x1fb\x1ex-a\x1fc d",
    "no-content": b"204 No Content",
    "reset-content": b"205 Reset Content\x1eContent-Length\x1f0",
    "not-modified": b'304 Not Modified\x1eETag\x1f"a"',
    "no-reason": b"599 ",
    "cookies": b"302 Found\x1eLocation\x1f/a\x1eSet-Cookie\x1fa=b; Path=/\x1eSet-Cookie\x1fc=\xe9",
    "own-date": b"500 Error\x1eDate\x1fnow\x1eServer\x1fa",
    "split": b"200 OK\r\nX-A: b\x1eX-A\x1fb\r\nX-B: c",
    "connection": b"200 OK\x1eConnection\x1fclose",
    "transfer-encoding": b"200 OK\x1eTransfer-Encoding\x1fchunked",
    "bad-name": b"200 OK\x1eX A\x1fb\x1eX\xe9\x1fc",
    "two-lengths": b"200 OK\x1eContent-Length\x1f3\x1eContent-Length\x1f4",
}


def make_seeds() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each seed."""
    seen: set[bytes] = set()
    for number, case in enumerate(load_cases()):
        message = b"".join(step.data for step in case.send if isinstance(step, SendBytes))
        head, _, content = message.partition(b"\r\n\r\n")
        if not message or len(message) > LONGEST or message in seen:
            continue
        seen.add(message)
        how = bytes([number % 256])
        yield f"message-{case.id}", bytes([MESSAGES]) + how + message
        if b"chunked" in head.lower() and content and content not in seen:
            seen.add(content)
            yield f"chunks-{case.id}", bytes([CHUNKS]) + how + content
            last = content.find(b"0\r\n")
            if content[last + 3 :].strip(b"\r\n") and last >= 0:
                yield f"trailers-{case.id}", bytes([TRAILERS]) + how + content[last + 3 :]
    for name, answer in ANSWERS.items():
        for request in range(16):
            yield f"response-{name}-{request}", bytes([RESPONSES, request]) + answer


def write_seeds(directory: Path) -> str:
    """Write every seed into a directory, and say how many there are."""
    directory.mkdir(parents=True, exist_ok=True)
    seeds = dict(make_seeds())
    for name, data in seeds.items():
        (directory / name).write_bytes(data)
    return f"{len(seeds)} seeds, {sum(map(len, seeds.values()))} bytes"


def main() -> int:
    """Write every seed into a directory; return the exit status."""
    if len(sys.argv) != 2:
        print("usage: python -m fuzz.make_corpus DIRECTORY", file=sys.stderr)
        return 2
    print(write_seeds(Path(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
