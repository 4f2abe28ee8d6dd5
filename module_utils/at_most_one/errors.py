"""The one error a person acts on: what was seen, what was expected, what to do next."""

from __future__ import annotations

from typing import Any


class OperatorError(Exception):
    """Stops a phase. ``seen``, ``expected`` and ``next_step`` are whole English phrases, without secrets or row values.

    ``details`` is machine-readable and ends up in the module's result: names, counts, pids, verdicts.
    """

    def __init__(self, seen: str, *, expected: str, next_step: str, **details: Any) -> None:
        self.seen = seen
        self.expected = expected
        self.next_step = next_step
        self.details = details
        super().__init__(f"{seen} Expected: {expected} Next: {next_step}")
