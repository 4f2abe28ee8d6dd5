"""The one error a person acts on: what was seen, what was expected, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from .findings import Finding

_Error = TypeVar("_Error", bound="OperatorError")


class OperatorError(Exception):
    """Stops a phase. ``seen``, ``expected`` and ``next_step`` are whole English phrases, without secrets or row values.

    ``findings`` are the same, one by one: several of an error made by :meth:`of`.
    ``details`` is machine-readable and ends up in the module's result: names, counts, pids, verdicts.
    """

    def __init__(self, seen: str, *, expected: str, next_step: str, **details: Any) -> None:
        self.seen = seen
        self.expected = expected
        self.next_step = next_step
        self.details = details
        whole = Finding("", seen, expected, next_step)
        self.findings: tuple[Finding, ...] = (whole,)
        super().__init__(str(whole))

    @classmethod
    def of(cls: type[_Error], findings: Sequence[Finding], **details: Any) -> _Error:
        """Make the error of all ``findings``, at least one. Its text names a next step that they share once."""
        error = cls(
            " ".join(one.seen for one in findings),
            expected=" ".join(one.expected for one in findings),
            next_step=" ".join(dict.fromkeys(one.next_step for one in findings)),
            **details,
        )
        error.findings = tuple(findings)
        return error
