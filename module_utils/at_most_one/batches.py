"""Removal in batches: each one statement in one transaction, short enough that no writer notices.

A batch takes the next rows of the work list, cut where a group ends. It locks them in the order of their primary key,
looks again at their predicate, ranks what is still in it, and only then archives and removes. Under READ COMMITTED, FOR
UPDATE waits for a writer and then takes the row as that writer left it, or drops it when it is no longer inside the
predicate. So what gets ranked can change no more, and of the rows of one group one always stays.
https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED

A group too large for one batch is cut; then its best row is ranked with each piece, and stays each time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2.errors
from psycopg2 import sql

from . import archive, replicas
from .database import Connection
from .errors import OperatorError
from .plan import Plan
from .ranking import candidates, equal, listed, numbered, of, parts_of, text_array, windows
from .references import count_references, point_to_keepers, refuse_referenced
from .table import Column, Cursor, Row
from .worklist import MEMBER, Work

EXAMPLES = 1_000


@dataclass(frozen=True)
class Pace:
    """How fast the batches go. ``target_ms`` is how long one may last, so how long a writer may wait for its rows."""

    target_ms: int = 50
    max_replica_lag_s: float = 30
    max_replica_wait_s: float = 600
    first: int = 500  # rows of the first batch; from then on the size follows the time
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
            seen = seen.removesuffix(" Nothing was written.")
            seen += f" {self.removed} rows had left by then, in {self.batches} whole batches; they are in the archive."
            next_step += " The same command again goes on from here."
        details = {**stop.details, "removed": self.removed, "batches": self.batches, "repointed": self.repointed}
        return type(stop)(seen, expected=stop.expected, next_step=next_step, **details)


_BATCH = """
WITH bounds AS MATERIALIZED (
    SELECT coalesce(
            (SELECT head - 1 FROM {member} WHERE position = %(first)s + %(size)s AND head > %(first)s),
            %(first)s + %(size)s - 1) AS last,
        (SELECT head FROM {member} WHERE position = %(first)s) AS head,
        pg_catalog.set_config('search_path', %(search_path)s, true) AS search_path,
        pg_catalog.set_config('lock_timeout', %(lock_timeout)s, true) AS lock_timeout,
        pg_catalog.set_config('application_name', %(application)s, false) AS application),
member AS MATERIALIZED (
    SELECT * FROM {member}
    WHERE is_touched AND position >= %(first)s AND position < %(first)s + %(size)s
        AND position <= (SELECT last FROM bounds)
    UNION ALL
    SELECT * FROM {member}
    WHERE is_touched AND position = (SELECT head FROM bounds) AND position < %(first)s),
locked AS MATERIALIZED ({candidates} ORDER BY {key} FOR UPDATE OF {table_alone}),
ranked AS (
    SELECT locked.*, {keepers}, pg_catalog.row_number() OVER best AS place FROM locked {windows}),
surplus AS MATERIALIZED (SELECT * FROM ranked WHERE place > 1 AND is_requested)"""

_JOIN = """ JOIN (SELECT {named}, is_requested AS at_most_one_requested FROM member) AS at_most_one_member ON {same}"""

_DELETE = """
    DELETE FROM {table} USING surplus WHERE {matches}
    RETURNING {key} AS key, {keeper} AS keeper, {image} AS row, NULL::text AS after_sha256"""

_UPDATE = """
    UPDATE {table} SET {values} FROM surplus WHERE {matches}
    RETURNING {key} AS key, {keeper} AS keeper, surplus.image AS row, {after} AS after_sha256"""

_REMOVAL = """{batch},
removed AS ({change}),
archived AS (
    INSERT INTO at_most_one.archived_row
        (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action, after_sha256)
    SELECT %(run_id)s, %(plan_id)s, %(schema)s, %(table)s,
        pg_catalog.jsonb_object(%(key_names)s::text[], key), pg_catalog.jsonb_object(%(key_names)s::text[], keeper),
        row, {hash}, %(action)s, after_sha256
    FROM removed RETURNING 1)
SELECT (SELECT pg_catalog.count(*) FROM archived), (SELECT last FROM bounds),
    (SELECT pg_catalog.array_agg(key) FROM (SELECT key FROM removed LIMIT %(examples)s) AS shown), {replicas}"""


class Batches:
    """The statements of one removal and the loop that runs them."""

    def __init__(self, plan: Plan, columns: Mapping[str, Column], run_id: str, pace: Pace) -> None:
        self.plan, self.columns, self.pace = plan, columns, pace
        self.progress = Progress()
        self.key = of(plan.table, plan.primary_key)
        self.parameters: dict[str, Any] = {
            "run_id": run_id,
            "plan_id": plan.id,
            "schema": plan.schema,
            "table": plan.table,
            "names": list(columns),
            "key_names": list(plan.primary_key),
            "action": plan.surplus.action,
            **{f"value{number}": value for number, value in enumerate(plan.surplus.values.values())},
        }

    def _batch(self) -> sql.Composed:
        plan = self.plan
        size = len(plan.primary_key)
        hidden = [f"at_most_one_p{number}" for number in range(size)]
        parts = numbered("p", size)
        image = archive.image(list(self.columns), sql.Identifier(plan.table), "names")
        return sql.SQL(_BATCH).format(
            member=MEMBER,
            candidates=candidates(
                plan,
                sql.SQL("at_most_one_member.at_most_one_requested AS is_requested"),
                *([sql.SQL("{} AS image").format(image)] if plan.surplus.action == "update" else []),
                join=sql.SQL(_JOIN).format(
                    named=listed(
                        sql.SQL("{} AS {}").format(part, sql.Identifier(name))
                        for part, name in zip(parts, hidden, strict=True)
                    ),
                    same=equal(self.key, of("at_most_one_member", hidden)),
                ),
            ),
            key=listed(self.key),
            table_alone=sql.Identifier(plan.table),
            keepers=listed(
                sql.SQL("pg_catalog.first_value({}) OVER best AS {}").format(*pair)
                for pair in zip(parts, numbered("keeper", size), strict=True)
            ),
            windows=windows(plan),
        )

    def lock(self) -> sql.Composed:
        """Only lock the batch's rows: what refers to them can then be looked at, and changes no more."""
        return sql.SQL("{} SELECT pg_catalog.count(*) FROM surplus").format(self._batch())

    def removal(self) -> sql.Composed:
        """Lock, look again, rank, archive and remove. Returns how many went, the last position, examples, replicas."""
        plan, table = self.plan, sql.Identifier(self.plan.table)
        common = {
            "table": sql.Identifier(plan.schema, plan.table),
            "matches": equal(self.key, parts_of("surplus", plan)),
            "key": text_array(self.key),
            "keeper": text_array(of("surplus", [f"keeper{number}" for number in range(len(self.key))])),
        }
        image = archive.image(list(self.columns), table, "names")
        if plan.surplus.action == "delete":
            change = sql.SQL(_DELETE).format(image=image, **common)
        else:
            change = sql.SQL(_UPDATE).format(
                values=listed(
                    sql.SQL("{} = {}::{}").format(
                        sql.Identifier(name), sql.Placeholder(f"value{number}"), sql.SQL(self.columns[name].type)
                    )
                    for number, name in enumerate(plan.surplus.values)
                ),
                after=archive.sha256(image),
                **common,
            )
        return sql.SQL(_REMOVAL).format(
            batch=self._batch(), change=change, hash=archive.sha256(sql.SQL("row")), replicas=replicas.LAGS
        )

    def run(self, connection: Connection, work: Work, requested: int, search_path: str, *, refers: bool) -> int:
        """Work through the list. Returns how many rows went. ``connection`` is idle and in autocommit.

        The lock_timeout of the connection bounds how long a batch asks for its rows. It asks in slices of the target
        time and lets go of everything in between, so that nobody waits for rows that we hold while we wait for others.
        """
        with connection.cursor() as cursor:
            cursor.execute("SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'")
            ((patience_ms,),) = cursor.fetchall()
            # A batch is a few thousand rows found by their primary key. The planner, which does not know how many, must
            # not read the whole table for them.
            cursor.execute("SET enable_hashjoin = off; SET enable_mergejoin = off")
            first, size, before = 1, float(self.pace.first), self.progress.removed
            while first <= work.members:
                self.parameters.update(
                    first=first,
                    size=int(size),
                    search_path=search_path,
                    lock_timeout=str(self.pace.target_ms),
                    application=f"at-most-one cleanup {self.progress.removed} of {requested}",
                    examples=EXAMPLES - len(self.progress.examples),
                )
                started = time.monotonic()
                removed, last, examples, lags = self._patiently(connection, cursor, patience_ms, refers=refers)
                took_ms = (time.monotonic() - started) * 1000
                self.progress.removed += removed
                self.progress.batches += 1
                self.progress.longest_ms = max(self.progress.longest_ms, round(took_ms))
                self.progress.examples += examples or []
                first = last + 1
                factor = min(2.0, max(0.25, self.pace.target_ms * 0.8 / max(took_ms, 0.1)))
                size = min(self.pace.largest, max(self.pace.smallest, size * factor))
                self.progress.warnings += replicas.wait(
                    cursor, lags, self.pace.max_replica_lag_s, self.pace.max_replica_wait_s, self.progress.warnings
                )
            return self.progress.removed - before

    def _patiently(self, connection: Connection, cursor: Cursor, patience_ms: int, *, refers: bool) -> Any:
        """One batch, asked for again and again until the connection's lock_timeout is used up."""
        deadline = time.monotonic() + patience_ms / 1000
        while True:
            try:
                if refers:
                    return self._one_with_references(connection, cursor)
                cursor.execute(self.removal(), self.parameters)
                return cursor.fetchall()[0]
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
                left = deadline - time.monotonic() if patience_ms else 1
                if left <= 0:
                    raise
            if patience_ms:
                self.parameters["lock_timeout"] = str(max(1, min(self.pace.target_ms, round(left * 1000))))
            time.sleep(random.uniform(0.002, 0.01))  # noqa: S311  (jitter, not a secret)

    def _one_with_references(self, connection: Connection, cursor: Cursor) -> Any:
        """A batch whose rows others may point to. Under the lock no new reference can come, and a later statement of
        the transaction sees every one that came before."""
        connection.autocommit = False
        try:
            cursor.execute(self.lock(), self.parameters)
            # Whoever points to these rows may have no index for it.
            cursor.execute("SET LOCAL enable_hashjoin = on")
            repointed = 0
            if self.plan.surplus.references == "repoint":
                repointed = point_to_keepers(cursor, self.plan, self._batch(), self.parameters)
            gone = sql.SQL("SELECT {} FROM surplus").format(listed(numbered("p", len(self.key))))
            refuse_referenced(
                self.plan, count_references(cursor, self.plan, gone, self.parameters, within=self._batch())
            )
            cursor.execute("SET LOCAL enable_hashjoin = off")
            cursor.execute(self.removal(), self.parameters)
            row = cursor.fetchall()[0]
            connection.commit()
            self.progress.repointed += repointed
            return row
        finally:
            connection.rollback()
            connection.autocommit = True
