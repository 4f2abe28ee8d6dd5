"""Removal in batches: each one statement in one transaction, short enough that no writer notices.

A batch takes the next surplus rows of the work list. It locks their keepers first, in the order of their primary key.
Under READ COMMITTED, FOR UPDATE waits for a writer and then takes the row as that writer left it, or drops it when it
no longer fulfils the condition: https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
A keeper that is still inside the predicate, with the key and the order that it was ranked with, stays until the batch
ends, so every other such row of its group is surplus and goes; the DELETE looks at it again in the same way. What has
changed since it was ranked stays where it is and is ranked again in the next round: no group ever loses all its rows.

Every row is accounted for before its batch commits. As many rows are removed as were taken, or the batch is repeated
with its rows locked first, where others cannot have changed them; and none that the archive holds is in the table then
(or, updated, is anything else than what was recorded). Triggers of the table decide about that, not the DELETE.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import AsIs

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..plan import Plan
from ..postgres import replication
from ..postgres.catalog import NOTHING_WRITTEN, Column, Cursor, Row, table_name, undone
from ..postgres.checkpoint import Checkpoint, Place, unasked
from ..postgres.connection import Connection, Hold, unheld
from ..postgres.lock_retry import pause_s
from ..postgres.partitions import is_partitioned
from . import effects, row_size
from .batch_size import next_size
from .batch_sql import MOVING, Statements
from .ranking import listed, numbered
from .references import count_references, point_to_keepers, refuse_referenced
from .worklist import Work

EXAMPLES = 1_000


@dataclass(frozen=True)
class Pace:
    """How fast the batches go. ``target_ms`` is how long one may last, so how long a writer may wait for its rows."""

    target_ms: int = 50
    max_replica_lag_s: float = 30
    max_replica_wait_s: float = 600
    first: int = 1_000  # rows of the first batch, a tenth if triggers or foreign keys act on each; then time decides
    smallest: int = 20
    largest: int = 20_000


@dataclass
class Progress:
    """What the batches have done so far; each figure is of what is committed."""

    removed: int = 0
    batches: int = 0
    longest_ms: int = 0
    repointed: int = 0
    examples: list[Row] = field(default_factory=list)  # primary keys, the first of those removed
    warnings: list[str] = field(default_factory=list)

    def add_to(self, stop: OperatorError) -> OperatorError:
        """The same error, saying what was done until then."""
        seen, next_step = stop.seen, stop.next_step
        if self.removed:
            progress = say(
                "{removed} rows had left by then, in {batches} whole batches; they are in the archive.",
                removed=self.removed,
                batches=self.batches,
            )
            seen = joined([undone(seen), progress], " ")
            next_step = joined([next_step, say("The same command again goes on from here.")], " ")
        details = {**stop.details, "removed": self.removed, "batches": self.batches, "repointed": self.repointed}
        return type(stop)(seen, expected=stop.expected, next_step=next_step, **details)


# In milliseconds; the view of all settings would take longer than a small batch.
_PATIENCE = """
SELECT (EXTRACT(epoch FROM pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) * 1000)::pg_catalog.int4"""
_FAST, _LOCKING = "at_most_one_batch", "at_most_one_locking_batch"
_EXECUTE = f"EXECUTE {{}} ({', '.join(f'%({name})s' for name in MOVING)})"
# Deferred triggers run now, as a session of the service would run them: behind them nothing changes any more.
_PROVE = """
SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL search_path = ''; EXECUTE at_most_one_wrong (%s, %s)"""


@dataclass(frozen=True)
class _Done:
    """One batch as its statement tells it."""

    expected: int  # rows that were to go; those among them that others had changed are no obstacle unless locked
    removed: int
    unlike: int  # updated to something else than the plan's values
    first: int | None  # ids in the archive
    last: int | None
    examples: list[Row] | None
    lags: replication.Lags


class Batches:
    """One removal: its statements and the loop that runs them."""

    def __init__(
        self,
        plan: Plan,
        columns: Mapping[str, Column],
        run_id: str,
        search_path: str,
        pace: Pace,
        hold: Hold,
        *,
        known: Collection[effects.Effect],
        only_unchanged: bool = False,
        checkpoint: Checkpoint = unasked,
    ) -> None:
        self.plan, self.pace, self.hold, self.checkpoint = plan, pace, hold, checkpoint
        self.known = known  # as it was before anything was decided by it
        self.progress = Progress()
        self.statements = Statements(
            plan, columns, run_id, search_path, held=hold is not unheld, only_unchanged=only_unchanged
        )
        self.parameters = self.statements.parameters
        self.set_off: bool  # whether something may write to other tables; known once it runs

    def _prepare(self, cursor: Cursor) -> None:
        """Planning one batch would cost as much as removing a hundred rows. Names are resolved now, too: with our empty
        search_path, whatever a batch sets for the application's triggers."""
        if is_partitioned(cursor.connection, self.plan.schema, self.plan.table):
            self.statements.find_by_key()
        moving = {name: AsIs(f"${number}") for number, name in enumerate(MOVING, 1)}
        for name, lock_first in ((_FAST, False), (_LOCKING, True)):
            cursor.execute(
                sql.SQL("PREPARE {} ({}) AS {}").format(
                    sql.SQL(name), sql.SQL(", ".join(MOVING.values())), self.statements.removal(lock_first=lock_first)
                ),
                {**self.parameters, **moving},
            )
        cursor.execute(
            sql.SQL("PREPARE at_most_one_wrong (bigint, bigint) AS {}").format(self.statements.wrong()),
            {
                **self.parameters,
                **effects.known_values(cursor, self.plan),
                "first_id": AsIs("$1"),
                "last_id": AsIs("$2"),
            },
        )

    def run(self, connection: Connection, work: Work, requested: int, *, refers: bool, again: bool) -> int:
        """Work through the list once. Returns how many rows went. ``connection`` is idle and in autocommit.

        ``again``: rows are looked up by their primary key, because somebody keeps updating them.

        The lock_timeout of the connection bounds how long a batch asks for its rows. It asks in slices of the target
        time and lets go of everything in between, so that nobody waits for rows that we hold while we wait for others.
        """
        with connection.cursor() as cursor:
            cursor.execute(_PATIENCE)
            ((patience_ms,),) = cursor.fetchall()
            # A batch is a few thousand rows, found by their primary key. The planner does not know how few.
            # Compiling a batch would cost more than running it.
            cursor.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off")
            if again:
                self.statements.find_by_key()
            self._prepare(cursor)
            follows = self.plan.surplus.action == "update" and any(one.kind == "foreign key" for one in self.known)
            self.set_off = bool(
                self.plan.surplus.triggers or follows or effects.of_table(cursor, self.plan.schema, self.plan.table)
            )
            if self.set_off:
                effects.require_counts(cursor, self.plan)
            first, size, before = 1, float(self.pace.first), self.progress.removed
            if self.set_off or refers:  # a slow trigger, or a foreign key without an index, is met with few rows locked
                size = max(self.pace.smallest, size / 10)
            large = row_size.stored_apart(cursor, self.plan) > row_size.BATCH_BYTES
            while first <= work.members:
                self.checkpoint(connection, Place("cleanup", "rows", self.progress.removed, requested))
                if large:
                    size = row_size.fitting(cursor, self.plan, first, int(size))
                self.parameters.update(
                    first=first,
                    size=int(size),
                    lock_timeout=str(self.pace.target_ms),
                    application=f"at-most-one cleanup {self.progress.removed} of {requested}",
                    examples=EXAMPLES - len(self.progress.examples),
                )
                started = time.monotonic()
                done = self._patiently(connection, cursor, patience_ms, refers=refers)
                took_ms = (time.monotonic() - started) * 1000
                self.progress.removed += done.removed
                self.progress.batches += 1
                self.progress.longest_ms = max(self.progress.longest_ms, round(took_ms))
                self.progress.examples += done.examples or []
                first += int(size)
                size = next_size(
                    size, took_ms, self.pace.target_ms, smallest=self.pace.smallest, largest=self.pace.largest
                )
                self.progress.warnings += replication.wait(
                    cursor, done.lags, self.pace.max_replica_lag_s, self.pace.max_replica_wait_s, self.progress.warnings
                )
            cursor.execute("DEALLOCATE ALL")
            return self.progress.removed - before

    def _patiently(self, connection: Connection, cursor: Cursor, patience_ms: int, *, refers: bool) -> _Done:
        """One batch, asked for again and again until the connection's lock_timeout is used up."""
        deadline = time.monotonic() + patience_ms / 1000
        while True:
            try:
                return self._one(connection, cursor, refers=refers)
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
                left_ms = 1000 * (deadline - time.monotonic()) if patience_ms else self.pace.target_ms
                if left_ms <= 0:
                    raise
            self.parameters["lock_timeout"] = str(max(1, min(self.pace.target_ms, round(left_ms))))
            time.sleep(pause_s(0, first_s=0.006, longest_s=0.006))

    def _one(self, connection: Connection, cursor: Cursor, *, refers: bool) -> _Done:
        """One batch, one transaction, committed once every row of it is accounted for.

        Fewer rows gone than taken are rows that others have changed, or that a trigger has kept. Locked first, nobody
        else can have changed them: only then the difference is a fault.
        """
        connection.autocommit = False
        try:
            for statement in (_FAST, _LOCKING):
                before = effects.written(cursor) if self.set_off else {}
                repointed = self._references(cursor) if refers else 0
                done = self._execute(cursor, statement)
                if done.removed == done.expected:
                    break
                if statement == _LOCKING or self.plan.surplus.action == "update":
                    raise self._kept(cursor, done)
                connection.rollback()
            self._prove(cursor, done)
            if self.set_off:  # prepare has seen what comes of a few rows, not of these
                effects.refuse_changed_settings(cursor, self.plan)
                wrote = effects.written(cursor, before)
                if not repointed:
                    effects.refuse_other_rows(cursor, self.plan, wrote, done.removed)
                effects.refuse_writes(self.plan, effects.besides(cursor, self.plan, wrote))
            connection.commit()
            self.progress.repointed += repointed
            return done
        finally:
            with contextlib.suppress(psycopg2.Error):  # the connection may be gone: then the server rolls back
                connection.rollback()
                connection.autocommit = True

    def try_out(self, cursor: Cursor, size: int, lock_timeout_ms: int, *, refers: bool) -> int:
        """Do the first batch in the caller's transaction, for who rolls it back. Returns how many rows it took."""
        self._prepare(cursor)
        moving = {"first": 1, "size": size, "lock_timeout": str(lock_timeout_ms), "application": "at-most-one"}
        self.parameters.update(moving, examples=0)
        if refers:
            self._references(cursor)
        done = self._execute(cursor, _LOCKING)
        if done.removed != done.expected:
            raise self._kept(cursor, done)
        self._prove(cursor, done)
        effects.refuse_changed_settings(cursor, self.plan)
        return done.removed

    def _prove(self, cursor: Cursor, done: _Done) -> None:
        """Stop unless each row that the batch has archived is what it should be now and whole, and nothing acts on
        them but what did when the removal began. Until the commit the batch's lock lets nobody add to that."""
        if done.unlike:
            raise self._unaccounted(
                cursor, say("{unlike} of them got other values than the plan's", unlike=done.unlike)
            )
        cursor.execute(_PROVE, (done.first, done.last))
        ((wrong, known),) = cursor.fetchall()
        if wrong:
            raise self._unaccounted(
                cursor, say("{wrong} of them are in the table otherwise than they should be", wrong=wrong)
            )
        effects.refuse_new(self.plan, [effects.Effect(*one) for one in known], self.known)

    def _kept(self, cursor: Cursor, done: _Done) -> OperatorError:
        return self._unaccounted(cursor, say("{count} of them did not go", count=done.expected - done.removed))

    def _execute(self, cursor: Cursor, statement: str) -> _Done:
        cursor.execute(_EXECUTE.format(statement), self.parameters)
        ((held, *done),) = cursor.fetchall()
        if not held:
            self.hold(cursor.connection)  # says who has taken the run over
        return _Done(*done)

    def _references(self, cursor: Cursor) -> int:
        """See to whoever points to the batch's rows. Returns how many were pointed to a keeper.

        Under the lock no new reference can come, and a later statement of the transaction sees every one that came
        before.
        """
        cursor.execute(
            sql.SQL("{} SELECT pg_catalog.count(*) FROM locked").format(self.statements.locked()), self.parameters
        )
        cursor.execute("SET LOCAL enable_seqscan = on")  # who points to these rows may have no index for it
        gone = sql.SQL("SELECT {} FROM locked").format(listed(numbered("p", len(self.plan.primary_key))))
        repointed = 0
        if self.plan.surplus.references == "repoint":
            repointed = point_to_keepers(cursor, self.plan, self.statements.locked(), self.parameters)
        refuse_referenced(
            self.plan, count_references(cursor, self.plan, gone, self.parameters, within=self.statements.locked())
        )
        cursor.execute("SET LOCAL enable_seqscan = off")
        return repointed

    def _unaccounted(self, cursor: Cursor, seen: str) -> OperatorError:
        """The batch's refusal: names whatever of the table may have interfered."""
        found = effects.of_table(cursor, self.plan.schema, self.plan.table)
        named = effects.in_words(found) or say("no trigger or rule of the table, so one of another table")
        what, instead = say("updated"), ""
        if self.plan.surplus.action == "delete":
            what = say("removed")
            instead = say(
                "take the rows out of the rule as the application does, with surplus.action: update and "
                "surplus.values in plans/{id}.yml; or ",
                id=self.plan.file,
            )
        return OperatorError(
            observed(
                "AMO-3201",
                "Surplus rows of {table} were {what}, and {seen}: {named}.{undone}",
                table=table_name(self.plan),
                what=what,
                seen=seen,
                named=named,
                undone=NOTHING_WRITTEN,
            ),
            expected=say(
                "every row that enters the archive to be {what}, and nothing else to become of it.", what=what
            ),
            next_step=say(
                "{instead}disable what interferes for as long as the run lasts (ALTER TABLE {table} "
                "DISABLE TRIGGER ...), then run this again.",
                instead=instead,
                table=table_name(self.plan),
            ),
            effects=[str(effect) for effect in found],
        )
