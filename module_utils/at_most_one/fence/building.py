"""How the write fence's index is built: under a short lock, or concurrently, as often as it takes.

Under the lock nothing can get in between the list and the build. A concurrent build fails on a duplicate that was
committed since the list was made. It then leaves an index that is not valid, but often kept up to date already: this
one refuses new duplicates while the next is built beside it, and is dropped when that one is there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..indexes import definitions, on_partitions
from ..indexes.on_partitions import Step
from ..plan import Plan
from ..postgres import locks
from ..postgres.catalog import (
    READING,
    WRITING,
    Column,
    Cursor,
    LockNotObtained,
    Row,
    explain,
    table_name,
    transaction,
)
from ..postgres.connection import Connection, Hold
from ..postgres.fence_names import name_of
from ..postgres.lock_retry import pause_s
from . import exempting_index
from .dropping import alone, drop

_HARMLESS = {"AccessShareLock", "RowShareLock"}  # held together with SHARE ROW EXCLUSIVE
_BUILDS = 20  # concurrent ones
_LEFTOVER_MS = 2_000


@dataclass
class Build:
    """One fence to be built. Each attempt reads the list anew; both ways return False when it does not fit."""

    plan: Plan
    columns: Mapping[str, Column]
    gone: Sequence[Row]  # exempt before, and not in the table any more: exempt again, so that they may return
    others: list[str]  # indexes of the fence that this one takes the place of; in the end also those of failed builds
    hold: Hold
    rows: list[Row] = field(default_factory=list)  # exempt in the end, without those that have left
    attempts: int = 0

    @property
    def name(self) -> str:
        return next(name for n in itertools.count(1) if (name := name_of(self.plan.id, n)) not in self.others)

    def statements(self, cursor: Cursor, rows: Sequence[Row], *, plain: bool) -> list[str]:
        """For a person, with the number of the rows in place of their keys."""
        steps = [step.statement for step in self._steps(cursor, rows, plain=plain, shown=True)]
        return [one.as_string(cursor) for one in ([self._lock(), *steps] if plain else steps)]

    def plainly(self, connection: Connection, lock_attempts: int) -> bool:
        while True:
            self.attempts += 1
            try:
                with transaction(connection, WRITING, self.plan) as cursor:
                    self.hold(connection)
                    cursor.execute(self._lock())
                    # A new snapshot: with everything that was committed before the lock.
                    return self._listed(cursor) and self._built(cursor, plain=True)
            except LockNotObtained as stop:
                if self.attempts == lock_attempts:
                    raise self._not_locked(stop) from stop
            time.sleep(pause_s(self.attempts, first_s=0.05, longest_s=2))

    def concurrently(self, connection: Connection, deadline_s: float) -> bool:
        deadline = time.monotonic() + deadline_s
        before = len(self.others)
        for self.attempts in range(1, _BUILDS + 1):
            with transaction(connection, READING, self.plan) as cursor:
                if not self._listed(cursor):
                    return False
            try:
                with alone(connection, 1000 * (deadline - time.monotonic())) as cursor:
                    self.hold(connection)  # the build cannot be in the transaction that holds the run
                    fits = self._built(cursor, plain=False)
                    self.hold(connection)
                    return fits
            except psycopg2.errors.UniqueViolation:
                self._keep_or_drop(connection)
            except psycopg2.Error as failure:
                raise self._not_built(connection, failure, self.others[before:], deadline_s) from failure
        drop(connection, self.plan, self.others[before:], _LEFTOVER_MS, self.hold)
        raise OperatorError(
            observed(
                "AMO-3401",
                "The write fence on {table} was not built: a new duplicate was committed during "
                "each of {builds} concurrent builds.",
                table=table_name(self.plan),
                builds=_BUILDS,
            ),
            expected=say("one build during which no duplicate is committed."),
            next_step=say(
                "run this again in a quieter hour, or raise migrate_max_write_pause_ms if writers may "
                "wait for a build; the fence is as it was before."
            ),
            fence="as before",
        )

    def _listed(self, cursor: Cursor) -> bool:
        rows = exempting_index.surplus(cursor, self.plan)
        self.rows = rows or []
        return rows is not None

    def _built(self, cursor: Cursor, *, plain: bool) -> bool:
        name = self.name
        for kept in ([*self.gone, *self.rows], self.rows) if self.gone else (self.rows,):
            if plain:
                cursor.execute("SAVEPOINT at_most_one_fence")
            try:
                for step in self._steps(cursor, kept, plain=plain):
                    step.run(cursor)
            except psycopg2.errors.ProgramLimitExceeded as failure:
                if not exempting_index.is_too_large(failure):
                    raise
                if plain:
                    cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_fence")
                continue
            cursor.execute(exempting_index.comment(cursor, self.plan, name, kept, plain=plain))
            return True
        return False

    def _keep_or_drop(self, connection: Connection) -> None:
        """What the failed build has left: of use for the next one, or nothing but work for writers."""
        name = self.name
        with transaction(connection, READING, self.plan) as cursor:
            left = {fence.name: fence.ready for fence in exempting_index.found(cursor, self.plan)}
        if left.get(name) or (name in left and drop(connection, self.plan, [name], _LEFTOVER_MS, self.hold)):
            self.others = [*self.others, name]

    def _steps(self, cursor: Cursor, rows: Sequence[Row], *, plain: bool, shown: bool = False) -> Iterable[Step]:
        index = exempting_index.index_of(cursor, self.plan, self.columns, self.name, rows, shown=shown)
        if plain:
            return [Step(definitions.create_statement(index, self.plan.schema))]
        return on_partitions.steps(cursor.connection, index, self.plan.schema)

    def _lock(self) -> sql.Composed:
        return sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(exempting_index.table_of(self.plan))

    def _not_locked(self, stop: LockNotObtained) -> OperatorError:
        blockers = [session for session in stop.details["blockers"] if set(session["modes"]) - _HARMLESS]
        return OperatorError(
            observed(
                "AMO-3402",
                "The write fence on {table} could not be raised in {attempts} attempts; {sessions}.",
                table=table_name(self.plan),
                attempts=self.attempts,
                sessions=locks.describe(blockers),
            ),
            expected=say("a moment in which no other session holds such a lock."),
            next_step=say("wait for those sessions or end them, then run this again; the fence is as it was before."),
            blockers=blockers,
            attempts=self.attempts,
            fence="as before",
        )

    def _not_built(
        self, connection: Connection, failure: psycopg2.Error, others: Sequence[str], deadline_s: float
    ) -> OperatorError:
        stalling = locks.stalling(connection, self.plan.schema, [self.plan.table])
        connection.rollback()
        left = drop(connection, self.plan, [self.name, *others], _LEFTOVER_MS, self.hold)
        if not isinstance(failure, psycopg2.errors.QueryCanceled):
            return explain(failure, self.plan)
        stays = (
            say(" Not valid, {left} stays; the next run drops it.", left=", ".join(left))
            if left
            else say(" Nothing of it is left.")
        )
        return OperatorError(
            observed(
                "AMO-3403",
                "The write fence on {table} was not built within {deadline_s} s; {sessions}.{stays}",
                table=table_name(self.plan),
                deadline_s=f"{deadline_s:g}",
                sessions=locks.describe_stalling(stalling),
                stays=stays,
            ),
            expected=say("every transaction that is older than the build to end within the deadline."),
            next_step=say("{ending}, or raise migrate_deadline_s; then run this again.", ending=locks.ending(stalling)),
            stalled_by=stalling,
            fence="as before",
        )
