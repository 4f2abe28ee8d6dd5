"""Removal in batches: each one statement in one transaction, short enough that no writer notices.

A batch takes the next surplus rows of the work list. It locks their keepers first, in the order of their primary key.
Under READ COMMITTED, FOR UPDATE waits for a writer and then takes the row as that writer left it, or drops it when it
no longer fulfils the condition: https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
A keeper that is still inside the predicate, with the key and the order that it was ranked with, stays until the batch
ends, so every other such row of its group is surplus and goes; the DELETE looks at it again in the same way. What has
changed since it was ranked stays where it is and is ranked again in the next round: no group ever loses all its rows.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import AsIs

from . import archive, replicas
from .database import Connection, Hold, unheld
from .errors import OperatorError
from .plan import Plan
from .ranking import equal, listed, numbered, of, text_array
from .references import count_references, point_to_keepers, refuse_referenced
from .table import Column, Cursor, Row, predicate_sql, without_null_keys
from .worklist import MEMBER, Work, member

EXAMPLES = 1_000


@dataclass(frozen=True)
class Pace:
    """How fast the batches go. ``target_ms`` is how long one may last, so how long a writer may wait for its rows."""

    target_ms: int = 50
    max_replica_lag_s: float = 30
    max_replica_wait_s: float = 600
    first: int = 1_000  # rows of the first batch; from then on the size follows the time
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
            seen = seen.removesuffix(" Nothing was written.").replace("; nothing was written.", ".")
            seen += f" {self.removed} rows had left by then, in {self.batches} whole batches; they are in the archive."
            next_step += " The same command again goes on from here."
        details = {**stop.details, "removed": self.removed, "batches": self.batches, "repointed": self.repointed}
        return type(stop)(seen, expected=stop.expected, next_step=next_step, **details)


# What a Hold requires, within the batch's one statement: the run's row, kept open until the batch has committed.
_HELD = "SELECT FROM at_most_one.run WHERE run_id = %(run_id)s AND finished_at IS NULL FOR KEY SHARE"

_BATCH = """
WITH setting AS MATERIALIZED (
    SELECT pg_catalog.set_config('search_path', %(search_path)s, true),
        pg_catalog.set_config('lock_timeout', %(lock_timeout)s, true),
        pg_catalog.set_config('application_name', %(application)s, false)),
held AS MATERIALIZED ({held}),
surplus AS MATERIALIZED (
    SELECT member.* FROM {member} AS member, setting
    WHERE EXISTS (SELECT FROM held) AND at_most_one_place > 1 AND at_most_one_requested
        AND at_most_one_position >= %(first)s AND at_most_one_position < %(first)s + %(size)s),
keeper AS MATERIALIZED (
    SELECT at_most_one_head AS at_most_one_keeper,
        pg_catalog.jsonb_object(%(key_names)s::text[], {key_texts}) AS at_most_one_keeper_key
    FROM {table} JOIN {member} AS at_most_one_member ON {is_the_row}
    WHERE at_most_one_position IN (SELECT at_most_one_head FROM surplus) AND {unchanged}
    ORDER BY {key} FOR UPDATE OF {alone}),
going AS MATERIALIZED (
    SELECT * FROM surplus JOIN keeper ON at_most_one_head = at_most_one_keeper)"""

# Only where something must be seen of the row before it goes: who refers to it, what it was before an UPDATE.
_LOCKED = """{batch},
locked AS MATERIALIZED (
    SELECT {parts}, at_most_one_member.*, {image} AS at_most_one_image
    FROM {table} JOIN going AS at_most_one_member ON {is_member} WHERE {unchanged}
    ORDER BY {key} FOR UPDATE OF {alone})"""

_DELETE = """{batch},
removed AS (
    DELETE FROM {table} USING going AS at_most_one_member WHERE {is_the_row} AND {unchanged}
    RETURNING {key_texts} AS key, at_most_one_keeper_key AS keeper, {image} AS row, NULL::text AS after_sha256,
        at_most_one_position)"""

_UPDATE = """{locked},
removed AS (
    UPDATE {table} SET {values} FROM locked AS at_most_one_member WHERE {is_member}
    RETURNING {key_texts} AS key, at_most_one_keeper_key AS keeper, at_most_one_image AS row,
        {after} AS after_sha256, at_most_one_position)"""

_ARCHIVE = """{removed},
archived AS (
    INSERT INTO at_most_one.archived_row
        (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action, after_sha256)
    SELECT %(run_id)s, %(plan_id)s, %(schema)s, %(table)s,
        pg_catalog.jsonb_object(%(key_names)s::text[], key), keeper, row, {hash}, %(action)s, after_sha256
    FROM removed RETURNING 1)
SELECT EXISTS (SELECT FROM held), (SELECT pg_catalog.count(*) FROM archived),
    (SELECT pg_catalog.array_agg(key) FROM (
        SELECT key FROM removed ORDER BY at_most_one_position LIMIT %(examples)s) AS shown), {replicas}"""

_MOVING = {"first": "bigint", "size": "bigint", "lock_timeout": "text", "application": "text", "examples": "bigint"}


# In milliseconds; the view of all settings would take longer than a small batch.
_PATIENCE = """
SELECT (EXTRACT(epoch FROM pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) * 1000)::pg_catalog.int4"""
_EXECUTE = f"EXECUTE at_most_one_batch ({', '.join(f'%({name})s' for name in _MOVING)})"


def _same_bytes(ones: Iterable[sql.Composable], others: Iterable[sql.Composable]) -> sql.Composed:
    """Needs no operator of the columns' types, which search_path might not find, and no index."""
    return sql.SQL("ROW({})::record OPERATOR(pg_catalog.*=) ROW({})::record").format(listed(ones), listed(others))


class Batches:
    """The statements of one removal and the loop that runs them."""

    def __init__(
        self, plan: Plan, columns: Mapping[str, Column], run_id: str, search_path: str, pace: Pace, hold: Hold
    ) -> None:
        self.plan, self.columns, self.pace, self.hold = plan, columns, pace, hold
        self.progress = Progress()
        size = len(plan.primary_key)
        key = of(plan.table, plan.primary_key)
        here = [*of(plan.table, plan.key), *of(plan.table, [sort.column for sort in plan.keep])]
        there = [*member("k", len(plan.key)), *member("s", len(plan.keep))]
        member_key = of("at_most_one_member", [f"at_most_one_p{number}" for number in range(size)])
        image = archive.image(list(columns.values()), sql.Identifier(plan.table), sql.Placeholder("search_path"))
        self.parts: dict[str, sql.Composable] = {
            "held": sql.SQL("SELECT" if hold is unheld else _HELD),
            "member": MEMBER,
            "table": sql.Identifier(plan.schema, plan.table),
            "alone": sql.Identifier(plan.table),
            "key": listed(key),
            "key_texts": text_array(key),
            "is_member": equal(key, member_key),
            # Where the row was when it was ranked: found without an index. One that was updated since is elsewhere.
            "is_the_row": sql.SQL("{}.ctid = at_most_one_member.at_most_one_ctid AND {}").format(
                sql.Identifier(plan.table), _same_bytes(key, member_key)
            ),
            "unchanged": sql.SQL("{}{} AND {}").format(
                predicate_sql(plan), without_null_keys(plan), _same_bytes(here, there)
            ),
            "parts": listed(sql.SQL("{} AS {}").format(*pair) for pair in zip(key, numbered("p", size), strict=True)),
            "image": image,
            "after": archive.sha256(image),
            "hash": archive.sha256(sql.SQL("row")),
            "replicas": replicas.LAGS,
            "values": listed(
                sql.SQL("{} = {}::{}").format(
                    sql.Identifier(name), sql.Placeholder(f"value{number}"), sql.SQL(columns[name].type)
                )
                for number, name in enumerate(plan.surplus.values)
            ),
        }
        self.parameters: dict[str, Any] = {
            "run_id": run_id,
            "plan_id": plan.id,
            "schema": plan.schema,
            "table": plan.table,
            "names": list(columns),
            "key_names": list(plan.primary_key),
            "action": plan.surplus.action,
            "search_path": search_path,
            **{f"value{number}": value for number, value in enumerate(plan.surplus.values.values())},
        }

    def _with(self, template: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(template).format(**self.parts, **more)

    def locked(self) -> sql.Composed:
        """The WITH clause that locks the batch's keepers and its surplus rows: ``locked`` has the latter's p0, ..."""
        return self._with(_LOCKED, batch=self._with(_BATCH))

    def removal(self) -> sql.Composed:
        """Lock, look again, archive and remove. Returns whether the run is held, how many rows went, some of their
        keys, the replicas."""
        if self.plan.surplus.action == "delete":
            removed = self._with(_DELETE, batch=self._with(_BATCH))
        else:
            removed = self._with(_UPDATE, locked=self.locked())
        return self._with(_ARCHIVE, removed=removed)

    def _prepare(self, cursor: Cursor) -> None:
        """Planning one batch would cost as much as removing a hundred rows. Names are resolved now, too: with our empty
        search_path, whatever a batch sets for the application's triggers."""
        moving = {name: AsIs(f"${number}") for number, name in enumerate(_MOVING, 1)}
        cursor.execute(
            sql.SQL("PREPARE at_most_one_batch ({}) AS {}").format(
                sql.SQL(", ".join(_MOVING.values())), self.removal()
            ),
            {**self.parameters, **moving},
        )

    def run(self, connection: Connection, work: Work, requested: int, *, refers: bool, again: bool = False) -> int:
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
                self.parts["is_the_row"] = self.parts["is_member"]
            self._prepare(cursor)
            first, size, before = 1, float(self.pace.first), self.progress.removed
            while first <= work.members:
                self.parameters.update(
                    first=first,
                    size=int(size),
                    lock_timeout=str(self.pace.target_ms),
                    application=f"at-most-one cleanup {self.progress.removed} of {requested}",
                    examples=EXAMPLES - len(self.progress.examples),
                )
                started = time.monotonic()
                removed, examples, lags = self._patiently(connection, cursor, patience_ms, refers=refers)
                took_ms = (time.monotonic() - started) * 1000
                self.progress.removed += removed
                self.progress.batches += 1
                self.progress.longest_ms = max(self.progress.longest_ms, round(took_ms))
                self.progress.examples += examples or []
                first += int(size)
                factor = min(2.0, max(0.25, self.pace.target_ms * 0.8 / max(took_ms, 0.1)))
                size = min(self.pace.largest, max(self.pace.smallest, size * factor))
                self.progress.warnings += replicas.wait(
                    cursor, lags, self.pace.max_replica_lag_s, self.pace.max_replica_wait_s, self.progress.warnings
                )
            cursor.execute("DEALLOCATE at_most_one_batch")
            return self.progress.removed - before

    def _patiently(self, connection: Connection, cursor: Cursor, patience_ms: int, *, refers: bool) -> Any:
        """One batch, asked for again and again until the connection's lock_timeout is used up."""
        deadline = time.monotonic() + patience_ms / 1000
        while True:
            try:
                if refers:
                    return self._one_with_references(connection, cursor)
                return self._execute(cursor)
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
                left = deadline - time.monotonic() if patience_ms else 1
                if left <= 0:
                    raise
            if patience_ms:
                self.parameters["lock_timeout"] = str(max(1, min(self.pace.target_ms, round(left * 1000))))
            time.sleep(random.uniform(0.002, 0.01))  # noqa: S311  (jitter, not a secret)

    def _execute(self, cursor: Cursor) -> Any:
        cursor.execute(_EXECUTE, self.parameters)
        ((held, *done),) = cursor.fetchall()
        if not held:
            self.hold(cursor.connection)  # says who has taken the run over
        return done

    def _one_with_references(self, connection: Connection, cursor: Cursor) -> Any:
        """A batch whose rows others may point to. Under the lock no new reference can come, and a later statement of
        the transaction sees every one that came before."""
        connection.autocommit = False
        try:
            cursor.execute(sql.SQL("{} SELECT pg_catalog.count(*) FROM locked").format(self.locked()), self.parameters)
            cursor.execute("SET LOCAL enable_seqscan = on")  # who points to these rows may have no index for it
            gone = sql.SQL("SELECT {} FROM locked").format(listed(numbered("p", len(self.plan.primary_key))))
            repointed = 0
            if self.plan.surplus.references == "repoint":
                repointed = point_to_keepers(cursor, self.plan, self.locked(), self.parameters)
            refuse_referenced(
                self.plan, count_references(cursor, self.plan, gone, self.parameters, within=self.locked())
            )
            cursor.execute("SET LOCAL enable_seqscan = off")
            row = self._execute(cursor)
            connection.commit()
            self.progress.repointed += repointed
            return row
        finally:
            with contextlib.suppress(psycopg2.Error):  # the connection may be gone: then the server rolls back
                connection.rollback()
                connection.autocommit = True
