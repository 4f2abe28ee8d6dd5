"""The way back: archived rows return to their table, and who was pointed to a keeper points to their row again.

In batches, each a transaction of its own that begins by making sure that the run still holds its plan, and that marks
what it has put back: stopped between two, the next call goes on. Nothing newer is overwritten. Rows that cannot return
stay in the archive, each with its reason; whether the others return nevertheless is the caller's choice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..plan import Plan
from ..postgres import own_schema
from ..postgres.catalog import (
    WRITING,
    Cursor,
    LockNotObtained,
    Row,
    columns_of,
    explain,
    table_name,
    transaction,
    undone,
)
from ..postgres.connection import Connection, Hold, unheld
from ..postgres.lock_retry import WHILE_HOLDING, pause_s
from . import archived_rows, effects, repointed_rows
from .batch_size import next_size
from .returning import LeftOut, Way, begin, put_back

_EXAMPLES = 1_000
_EXAMPLES_OF_REASON = 100
_CHECK_LOCK_TIMEOUT = "1s"  # a check waits for nobody longer than this, whatever the connection's own
_RETRIED_SMALLER = ("57014", "40P01")  # a batch too large for statement_timeout; a deadlock, the likelier the larger


@dataclass
class Restoration:
    """What was put back, or in check mode would be. ``rows`` are examples, at most 1,000 primary keys."""

    restored: int = 0
    rows: list[Row] = field(default_factory=list)
    pointed_back: int = 0
    batches: int = 0
    longest_batch_ms: int = 0
    left: list[LeftOut] = field(default_factory=list)  # what cannot return, by reason; it stays in the archive
    statements: list[str] = field(default_factory=list)


@dataclass
class Size:
    """How many rows a batch takes: as many as last about ``target_ms``."""

    rows: int = 1_000
    largest: int = 20_000
    target_ms: int = 1_000

    def learn(self, took_ms: float) -> None:
        self.rows = int(next_size(self.rows, took_ms, self.target_ms, smallest=1, largest=self.largest))


def restore(
    connection: Connection,
    plan: Plan,
    *,
    run_id: str | None,
    check: bool = False,
    possible: bool = False,
    index_dropped_first: bool = False,
    hold: Hold = unheld,
    size: Size | None = None,
) -> Restoration:
    """Put back every row of the run (``None``: of every run) that is not back yet.

    A removed row is inserted again; an updated one gets its old values, if it is still as we left it; rows of other
    tables that were pointed to a keeper point to their row again, if they still point to that keeper. Every row that is
    put back has its archived hash. No row passes through Python.

    ``possible`` puts back what can return and names the others in ``left``; otherwise one of them refuses all of it
    before the first row. ``check`` does the same work in one transaction that is rolled back: its figures are true, its
    triggers have run, and until it ends who deletes a row that a returning one refers to, or inserts the same key,
    waits for it. With ``index_dropped_first`` a check tells what returns once the rule's index is dropped: of a row
    that it rejects now, the BEFORE triggers and the foreign keys are asked, AFTER triggers are not.
    """
    if not check and not possible:
        _refuse_left(plan, _Work(connection, plan, run_id, unheld, size or Size()).rolled_back())
    work = _Work(connection, plan, run_id, unheld if check else hold, size or Size())
    work.behind = check and index_dropped_first
    try:
        done = work.rolled_back() if check else work.run()
    except OperatorError as stop:
        raise stop if check else _with_progress(stop, work.done) from stop
    if not possible:
        _refuse_left(
            plan, done, say("No row was restored") if check else say("{restored} rows are back", restored=done.restored)
        )
    return done


def restore_within(cursor: Cursor, plan: Plan, *, run_id: str) -> Restoration:
    """The same work in the caller's transaction, for who rolls it back: names in ``left`` what cannot return."""
    work = _Work(cursor.connection, plan, run_id, unheld, Size())
    work.outer = cursor  # which sees what is written to other tables
    work.only_own = True
    return work.run()


def _refuse_left(plan: Plan, found: Restoration, outcome: str = "") -> None:
    """``outcome``: what was restored until then, if anything was."""
    if not found.left:
        return
    count = sum(left.count for left in found.left)
    disable = say(
        "disable the trigger for as long as they return (ALTER TABLE {table} DISABLE TRIGGER ...), or ",
        table=table_name(plan),
    )
    raise OperatorError(
        observed(
            "AMO-3208",
            "{count} archived rows cannot return to {table}: {left}. {outcome}.",
            count=count,
            table=table_name(plan),
            left=joined(left.phrase for left in found.left),
            outcome=outcome or say("No row was restored"),
        ),
        expected=say("an archive whose every row can be put back."),
        next_step=say(
            "{disable}compare these rows by hand (details.refused lists their primary keys), or run "
            "it again with -e rollback_restore=possible: the others return, and these stay in the "
            "archive.",
            disable=disable if any(left.reason == "writes" for left in found.left) else "",
        ),
        refused=sorted(row for left in found.left for row in left.rows)[:_EXAMPLES],
        count=count,
        left=[asdict(left) for left in found.left],
    )


def _with_progress(stop: OperatorError, done: Restoration) -> OperatorError:
    """The same error, saying what was done until then."""
    seen, next_step = stop.seen, stop.next_step
    if done.restored or done.pointed_back:
        progress = say(
            "{restored} rows were back by then, in {batches} whole batches.",
            restored=done.restored,
            batches=done.batches,
        )
        seen = joined([undone(seen), progress], " ")
        next_step = joined([next_step, say("The same command again goes on from here.")], " ")
    details = {**stop.details, "restored": done.restored, "pointed_back": done.pointed_back}
    return type(stop)(seen, expected=stop.expected, next_step=next_step, **details)


_FILL = """
INSERT INTO pg_temp.at_most_one_returning
SELECT a.id, {shape} FROM at_most_one.{source} AS a
WHERE (%(run_id)s::text IS NULL OR a.run_id = %(run_id)s) AND a.plan_id = %(plan)s AND a.restored_at IS NULL
    AND {more} AND a.id > %(after)s ORDER BY a.id LIMIT %(size)s RETURNING id"""

_BACK = """
SELECT {key} FROM at_most_one.{source} AS a JOIN pg_temp.at_most_one_returning AS r ON r.id = a.id
WHERE a.restored_at IS NOT NULL ORDER BY a.id LIMIT %(limit)s"""

_LEFT = """
SELECT table_name, reason, name, pg_catalog.count(*)::integer,
    pg_catalog.jsonb_agg(key ORDER BY id) FILTER (WHERE place <= %(limit)s)
FROM (
    SELECT a.table_schema || '.' || a.table_name AS table_name, l.reason, l.name, l.id, {key} AS key,
        pg_catalog.row_number() OVER (
            PARTITION BY a.table_schema, a.table_name, l.reason, l.name ORDER BY l.id) AS place
    FROM pg_temp.at_most_one_left_out AS l JOIN at_most_one.{source} AS a ON a.id = l.id
    WHERE l.source = %(source)s) AS numbered
GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3"""


@dataclass(frozen=True)
class _Source:
    """A table of the archive, and what the rows have in common that return by the same statements."""

    name: str
    shape: str
    key: str
    more: str = "true"

    def query(self, template: str) -> sql.Composed:
        parts = {"shape": self.shape, "source": self.name, "key": self.key, "more": self.more}
        return sql.SQL(template).format(**{name: sql.SQL(part) for name, part in parts.items()})


_ROWS = _Source(
    archived_rows.SOURCE,
    "pg_catalog.jsonb_build_object('action', a.action, 'names',"
    " ARRAY(SELECT pg_catalog.jsonb_object_keys(a.row) ORDER BY 1))",
    "ARRAY(SELECT a.primary_key ->> part.name FROM unnest(%(key)s::text[]) WITH ORDINALITY AS part (name, place)"
    " ORDER BY part.place)",
    "a.table_schema = %(schema)s AND a.table_name = %(table)s",
)
_POINTING = _Source(
    repointed_rows.SOURCE,
    "pg_catalog.jsonb_build_object('schema', a.table_schema, 'table', a.table_name, 'key',"
    " ARRAY(SELECT pg_catalog.jsonb_object_keys(a.primary_key) ORDER BY 1), 'columns',"
    " ARRAY(SELECT pg_catalog.jsonb_object_keys(a.after) ORDER BY 1))",
    "ARRAY(SELECT part.value FROM pg_catalog.jsonb_each_text(a.primary_key) AS part ORDER BY part.key)",
)


class _SetOffByNow(Exception):
    """Something is set off by rows that return, and was not when they began to: the batch is written once more."""


class _Work:
    """One restoration: its batches, and what they have done so far."""

    def __init__(self, connection: Connection, plan: Plan, run_id: str | None, hold: Hold, size: Size) -> None:
        self.connection, self.plan, self.hold, self.size = connection, plan, hold, size
        self.done = Restoration()
        self.behind = False  # a check that tells what returns once the rule's index is dropped
        self.outer: Cursor | None = None  # of the one transaction that a check rolls back
        self.only_own = False  # whether only what is written to the plan's own table keeps a row out
        self.guard: sql.Composable | None = None
        self.patience_s = 0.0  # how long one batch asks for its locks
        self.values: dict[str, Any] = {
            "run_id": run_id,
            "plan": plan.id,
            "schema": plan.schema,
            "table": plan.table,
            "key": list(plan.primary_key),
        }

    def rolled_back(self) -> Restoration:
        """The same work, in one transaction of which nothing stays."""
        with transaction(self.connection, WRITING, self.plan) as cursor:
            cursor.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", (_CHECK_LOCK_TIMEOUT,))
            self.outer = cursor
            done = self.run()
            self.connection.rollback()
        return done

    def run(self) -> Restoration:
        """Return the rows, then those that were pointed to a keeper; what cannot return is tried again as long as
        others do, because a row may refer to another one."""
        with self._step() as cursor:
            if not own_schema.has_archive(cursor.connection):
                return self.done  # nothing ever left
            table = archived_rows.Table(cursor, self.plan, columns_of(cursor, self.plan), behind=self.behind)
            self.guard = self._guard(cursor)
            begin(cursor)
        while self._pass(_ROWS, lambda _, shape: table.way_of(shape)) and self._named("constraint", "trigger"):
            self._forget()
        self._pass(_POINTING, lambda cursor, shape: repointed_rows.way_of(cursor, table.path, shape))
        with self._step() as cursor:
            for source in (_ROWS, _POINTING):
                cursor.execute(
                    source.query(_LEFT), {**self.values, "limit": _EXAMPLES_OF_REASON, "source": source.name}
                )
                self.done.left += [LeftOut(*found) for found in cursor.fetchall()]
            cursor.execute("DROP TABLE pg_temp.at_most_one_returning, pg_temp.at_most_one_left_out")
        self.done.rows.sort()
        return self.done

    def _guard(self, cursor: Cursor) -> sql.Composable | None:
        """What counts the rows that are written elsewhere; None as long as nothing is set off by what returns."""
        if not (self.plan.surplus.triggers or effects.of_plan(cursor, self.plan)[0]):
            return None
        effects.require_counts(cursor, self.plan)
        return effects.guard(cursor, self.plan, only_own=self.only_own)

    @contextlib.contextmanager
    def _step(self) -> Iterator[Cursor]:
        """A transaction of its own; in a check a part of the one that is rolled back."""
        if self.outer is None:
            with transaction(self.connection, WRITING, self.plan) as cursor:
                self.hold(self.connection)
                yield cursor
            return
        self.outer.execute("SAVEPOINT at_most_one_step")
        try:
            yield self.outer
        except (psycopg2.errors.QueryCanceled, psycopg2.errors.DeadlockDetected) as failure:
            self.outer.execute("ROLLBACK TO SAVEPOINT at_most_one_step")
            raise explain(failure, self.plan) from failure
        self.outer.execute("RELEASE SAVEPOINT at_most_one_step")

    def _pass(self, source: _Source, way_of: Callable[[Cursor, Any], Way]) -> int:
        """Try every row of a source once. Returns how many are back."""
        total = after = 0
        asking_since: float | None = None  # for the locks of one batch
        while True:
            started = time.monotonic()
            try:
                with self._step() as cursor:
                    found, back, examples = self._batch(cursor, source, way_of, after)
            except _SetOffByNow:
                continue
            except LockNotObtained:
                asking_since = asking_since or started
                if time.monotonic() - asking_since >= self.patience_s:
                    raise
                time.sleep(pause_s(0, first_s=0.05, longest_s=0.05))
                continue
            except OperatorError as stop:
                if stop.details.get("sqlstate") not in _RETRIED_SMALLER or self.size.rows == 1:
                    raise
                self.size.rows = max(1, self.size.rows // 8)
                continue
            asking_since = None
            if not found:
                return total
            took_ms = (time.monotonic() - started) * 1000
            after, total = found, total + back
            self._count(source, back, examples, took_ms)
            self.size.learn(took_ms)

    def _batch(
        self, cursor: Cursor, source: _Source, way_of: Callable[[Cursor, Any], Way], after: int
    ) -> tuple[int, int, list[Row]]:
        """The last row's id in the archive (0: there was none), how many are back, and some of them."""
        if self.outer is None:  # two restorations at once: the second waits here, and then finds these rows marked
            cursor.execute("LOCK TABLE at_most_one.archived_row IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(WHILE_HOLDING)
            ((asked_ms, _at_once),) = cursor.fetchall()
            self.patience_s = asked_ms / 1000 if asked_ms else float("inf")
        cursor.execute("TRUNCATE pg_temp.at_most_one_returning")
        # By the primary key, from where the last batch ended, instead of sorting what is left for every batch.
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute(source.query(_FILL), {**self.values, "after": after, "size": self.size.rows})
        last = max((found for (found,) in cursor.fetchall()), default=0)
        cursor.execute("SET LOCAL enable_sort = on")
        if not last:
            return 0, 0, []

        def remembered(shape: Any) -> Way:
            way = way_of(cursor, shape)
            if not way.barred():
                shown = way.write()[0].as_string(cursor).strip()
                self.done.statements = list(dict.fromkeys([*self.done.statements, shown]))
            return way

        back = put_back(cursor, source.name, remembered, self.guard)
        if self.guard is None and self.outer is None:
            self.guard = self._guard(cursor)  # again, now that nobody can create a trigger until this is committed
            if self.guard is not None:
                raise _SetOffByNow
        limit = _EXAMPLES - len(self.done.rows) if source is _ROWS else 0
        cursor.execute(source.query(_BACK), {**self.values, "limit": limit})
        return last, back, [key for (key,) in cursor.fetchall()]

    def _count(self, source: _Source, back: int, examples: list[Row], took_ms: float) -> None:
        if source is _ROWS:
            self.done.restored += back
            self.done.rows += examples
        else:
            self.done.pointed_back += back
        self.done.batches += 1
        self.done.longest_batch_ms = max(self.done.longest_batch_ms, round(took_ms))

    def _named(self, *reasons: str) -> bool:
        with self._step() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_temp.at_most_one_left_out WHERE reason = ANY (%s))", (list(reasons),)
            )
            return cursor.fetchone() == (True,)

    def _forget(self) -> None:
        with self._step() as cursor:
            cursor.execute("DELETE FROM pg_temp.at_most_one_left_out")
