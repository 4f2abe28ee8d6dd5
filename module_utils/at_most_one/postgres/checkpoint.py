"""A place between two steps where a run may be told to wait or to end: who works in steps is handed what asks there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .connection import Connection


@dataclass(frozen=True)
class Place:
    """Where a run is: between two steps of a phase, with ``done`` of ``total`` units."""

    phase: str
    unit: str  # rows, indexes or hosts
    done: int
    total: int


# Asks on an idle connection in autocommit, waits for as long as the run is told to, and returns the seconds of that.
# Raises OperatorError where the run is to end.
Checkpoint = Callable[[Connection, Place], float]


def unasked(_connection: Connection, _place: Place) -> float:
    """The :data:`Checkpoint` of who works without a run."""
    return 0.0
