"""Faults that a server should survive, provoked on real processes, each with its figure.

Every fault is a function of a `Case`, which starts servers of one kind, so that the same provocation is put to others
as well. `tests/server/test_fault_table.py` runs the quick form of each against wizgy; `python -m tests.server.faults`
the full counts, against any server of `matrix.toml`, and writes `docs/reliability.md`.
"""
