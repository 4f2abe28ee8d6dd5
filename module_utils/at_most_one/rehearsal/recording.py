"""Read what a rehearsal's tables are now, compare it with an earlier state, and add both to the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..plan import Plan
from ..postgres.connection import Connection
from . import digests, turns
from .turns import Beginning


def begin(connection: Connection, plan: Plan, beginning: Beginning, leave_out: Mapping[str, str]) -> dict[str, Any]:
    """The evidence before the first turn; ``leave_out`` as in :func:`digests.take`."""
    return turns.begin(plan, beginning, _state(connection, plan, leave_out).kept(), _now())


def add_turn(
    connection: Connection,
    plan: Plan,
    so_far: Mapping[str, Any],
    run: Mapping[str, Any],
    leave_out: Mapping[str, str],
) -> dict[str, Any]:
    """The evidence with one turn more: ``run``, as the journal has it, and what it has left."""
    turn = turns.next_turn(so_far, run["run_id"], run["outcome"])
    state = _state(connection, plan, leave_out)
    differences = digests.differences(so_far["states"][turn.same_as], state) if turn.same_as else []
    return turns.with_turn(so_far, turn, run, state.kept(), differences, _now())


def _state(connection: Connection, plan: Plan, leave_out: Mapping[str, str]) -> digests.State:
    return digests.take(connection, plan, {name: str(value) for name, value in leave_out.items()})


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
