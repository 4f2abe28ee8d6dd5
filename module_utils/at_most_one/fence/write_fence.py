"""The write fence: from before the clean-up until the unique index is valid, no new duplicate can be committed.

It is a unique index of its own (:mod:`.exempting_index`). The surplus rows are exempt from it: they stay as they are
and can be updated, closed and removed. Whoever would add a duplicate gets SQLSTATE 23505 with the key in DETAIL, as
ever after, only with the fence's name for the planned index's.

Where the forecast of the build is short, it is built in one transaction, under a lock that stops writers and no reader:
list the surplus rows, build, commit. Nothing can get in between. Otherwise it is built CONCURRENTLY, and again when a
duplicate was committed meanwhile (:mod:`.building`).

An exempt row that is not removed after all (somebody closed it, or closed the one that was to be kept) would stay
exempt: opened again, it would be a new duplicate. :func:`tighten` takes such rows in, by a new index.

More surplus rows than a list can hold have to leave before the fence goes up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import OperatorError
from ..findings import whole
from ..indexes import write_pause
from ..indexes.on_partitions import drop_step
from ..plan import Plan
from ..postgres.catalog import READING, Column, Row, columns_of, transaction
from ..postgres.connection import Connection, Hold, unheld
from . import exempting_index
from .building import Build
from .dropping import clear, without_triggers
from .exempting_index import Fence

_CLEAR_MS = 2_000  # for each index that a new fence takes the place of


@dataclass(frozen=True)
class Change:
    """What raising or lowering did, or in check mode would do.

    A state is raised; lowered; or partial: an index that is not valid, or of a changed plan, or an older release's
    triggers.
    """

    before: str
    state: str
    statements: list[str]
    attempts: int  # how often the lock was asked for, or the build begun
    exempt: int = 0  # rows that it lets be
    surplus_first: bool = False  # the surplus rows do not fit into its list: nothing was changed
    concurrent: bool = False
    warnings: list[str] = field(default_factory=list)  # whole phrases for a person


@dataclass(frozen=True)
class _Seen:
    """What is there of the fence."""

    state: str
    columns: Mapping[str, Column]
    fences: list[Fence]
    triggers: list[str]  # of an older release
    current: Fence | None  # the one that counts
    stale: bool  # it exempts a row that is no surplus row any more
    surplus: list[Row]  # rows that it exempts and that are surplus rows now
    gone: list[Row]  # rows that it exempts and that have left: a rollback may bring them back under it


def query(connection: Connection, plan: Plan) -> tuple[Change, list[str]]:
    """The fence as it is, with the statements that would drop it; and its indexes' names, whatever their state."""
    seen = _look(connection, plan)
    return Change(seen.state, seen.state, _drops(connection, plan, seen), 0), [fence.name for fence in seen.fences]


def raise_fence(
    connection: Connection,
    plan: Plan,
    *,
    lock_attempts: int = 10,
    max_write_pause_ms: int = 500,
    deadline_s: float = 300,
    check: bool = False,
    hold: Hold = unheld,
) -> Change:
    """Raise the fence, or replace one that is damaged, of a changed plan, or exempts rows that are not to leave.

    Where writers would wait for more than ``max_write_pause_ms`` it is built concurrently, within ``deadline_s``.
    Otherwise they wait for at most the connection's lock_timeout per attempt, and then for the build; readers never.
    """
    if lock_attempts < 1:
        raise ValueError("lock_attempts must be at least 1")
    seen = _look(connection, plan, exempt=True)
    if seen.current and not seen.stale:
        return Change("raised", "raised", [], 0, len(seen.current.exempt))
    return _replace(connection, plan, seen, lock_attempts, max_write_pause_ms, deadline_s, check=check, hold=hold)


def tighten(
    connection: Connection, plan: Plan, *, lock_attempts: int = 10, deadline_s: float = 300, hold: Hold = unheld
) -> Change:
    """Where the fence exempts a row that is not to leave any more, replace it: for right after the removal.

    ``exempt`` are then the surplus rows that are there again: one that was closed, not deleted, can be opened once
    more until it is taken in. When the fence cannot be replaced now, it stays: a warning says so, and the planned
    index is the judge.
    """
    seen = _look(connection, plan, exempt=True)
    if not (seen.current and seen.stale):
        return Change(seen.state, seen.state, [], 0, len(seen.surplus))
    pause_ms = None if seen.current.plain else -1  # as it was built
    try:
        return _replace(connection, plan, seen, lock_attempts, pause_ms, deadline_s, check=False, hold=hold)
    except OperatorError as stop:
        if "fence" not in stop.details:
            raise
        warnings: list[str] = [whole(stop.findings)]
        return Change(seen.state, seen.state, [], lock_attempts, len(seen.surplus), warnings=warnings)


def lower_fence(
    connection: Connection, plan: Plan, *, wait_ms: int = 5_000, check: bool = False, hold: Hold = unheld
) -> Change:
    """Drop the fence, ``DROP INDEX CONCURRENTLY``: it waits for who uses the table, and nobody waits for it.

    What cannot be dropped within ``wait_ms`` stays, and a warning names it and who is in the way: it is no reason to
    fail, it refuses nothing that the planned index would not refuse, and the next call drops it.
    """
    seen = _look(connection, plan)
    names = [fence.name for fence in seen.fences]
    if not names and not seen.triggers:
        return Change("lowered", "lowered", [], 0)
    statements = _drops(connection, plan, seen)
    if check:
        return Change(seen.state, "lowered", statements, 1)
    warnings = clear(connection, plan, names, seen.triggers, wait_ms, hold)
    return Change(seen.state, "partial" if warnings else "lowered", statements, 1, warnings=warnings)


def _drops(connection: Connection, plan: Plan, seen: _Seen) -> list[str]:
    drops = [drop_step(connection, fence.name, plan.table, plan.schema).statement for fence in seen.fences]
    connection.rollback()
    return [step.as_string(connection) for step in (*drops, *without_triggers(plan, seen.triggers))]


def _look(connection: Connection, plan: Plan, *, exempt: bool = False) -> _Seen:
    """``exempt``: also what has become of the rows that it exempts."""
    with transaction(connection, READING, plan) as cursor:
        columns = columns_of(cursor, plan)
        fences, triggers = exempting_index.found(cursor, plan), exempting_index.triggers(cursor, plan)
        wanted = exempting_index.definition(cursor, plan)
        current = next((one for one in reversed(fences) if one.usable and one.definition == wanted), None)
        left: list[Row] = []
        surplus: list[Row] = []
        if exempt and current:
            left, surplus = exempting_index.staying(cursor, plan, columns, current)
        gone = [row for row in current.exempt if row not in left] if current else []
    state = "raised" if current else "partial" if fences or triggers else "lowered"
    return _Seen(state, columns, fences, triggers, current, len(surplus) < len(left), surplus, gone)


def _replace(
    connection: Connection,
    plan: Plan,
    seen: _Seen,
    lock_attempts: int,
    max_write_pause_ms: int | None,
    deadline_s: float,
    *,
    check: bool,
    hold: Hold,
) -> Change:
    started = time.monotonic()
    with transaction(connection, READING, plan) as cursor:
        rows = exempting_index.surplus(cursor, plan)
    if rows is None:
        return Change(seen.state, seen.state, [], 0, surplus_first=True)
    listing_ms = 1000 * (time.monotonic() - started)
    plain = max_write_pause_ms is None or (
        max_write_pause_ms >= 0 and _build_ms(connection, plan) + listing_ms <= max_write_pause_ms
    )
    taken = [fence.name for fence in seen.fences]
    build = Build(plan, seen.columns, seen.gone, taken, hold)
    attempts, others = 1, taken
    if not check:
        if not (build.plainly(connection, lock_attempts) if plain else build.concurrently(connection, deadline_s)):
            return Change(seen.state, seen.state, [], 0, surplus_first=True)
        rows, attempts, others = build.rows, build.attempts, build.others
    with transaction(connection, READING, plan) as cursor:
        statements = build.statements(cursor, rows, plain=plain)
    drops = [drop_step(connection, name, plan.table, plan.schema).statement for name in others]
    connection.rollback()
    statements += [drop.as_string(connection) for drop in drops]
    statements += [step.as_string(connection) for step in without_triggers(plan, seen.triggers)]
    warnings = [] if check else clear(connection, plan, others, seen.triggers, _CLEAR_MS, hold)
    return Change(seen.state, "raised", statements, attempts, len(rows), concurrent=not plain, warnings=warnings)


def _build_ms(connection: Connection, plan: Plan) -> int:
    """What a plain build would take, as auto forecasts the planned indexes' builds."""
    try:
        return write_pause.write_pause(connection, plan, [replace(plan.rule_index, include=())]).write_pause_ms
    finally:
        connection.rollback()
