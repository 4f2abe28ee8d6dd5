"""The way back: archived rows return to their table, and who was pointed to a keeper points to their row again.

All or none, in one transaction, and never over newer data: what would be overwritten is refused before it is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from .archive import image, missing_objects, sha256
from .database import Connection, Hold, unheld
from .errors import OperatorError
from .plan import Plan
from .ranking import equal, listed, of, text_array
from .table import (
    WRITING,
    Column,
    Cursor,
    Row,
    columns_of,
    predicate_sql,
    table_name,
    transaction,
    usual_search_path,
    without_null_keys,
)

_EXAMPLES = 1_000
_HERE = "at_most_one_here"  # the table as it is now, next to archived rows under the table's own name


@dataclass(frozen=True)
class Restoration:
    """What was put back, or in check mode would be. ``rows`` are examples, at most 1,000 primary keys."""

    restored: int
    rows: list[Row]
    pointed_back: int
    statements: list[str]


_RETURNING = """
CREATE TEMPORARY TABLE at_most_one_returning AS
SELECT a.id, a.action, ARRAY(SELECT pg_catalog.jsonb_object_keys(a.row) ORDER BY 1) AS names
FROM at_most_one.archived_row AS a
WHERE (%(run_id)s::text IS NULL OR a.run_id = %(run_id)s) AND a.plan_id = %(plan)s
    AND a.table_schema = %(schema)s AND a.table_name = %(table)s AND a.restored_at IS NULL
ORDER BY a.id"""


def restore(
    connection: Connection, plan: Plan, *, run_id: str | None, check: bool = False, hold: Hold = unheld
) -> Restoration:
    """Put back every row of the run (``None``: of every run) that is not back yet, all or none, in one transaction.

    A removed row is inserted again; an updated one gets its old values, if it is still as we left it; rows of other
    tables that were pointed to a keeper point to their row again, if they still point to that keeper.

    Refuses before it writes (also in check mode; ``details.refused`` lists primary keys, at most 1,000) when a row's
    primary key is taken, when it was changed since, or when the rule's unique index is there and would reject it.
    Verifies each row's hash afterwards. No row passes through Python.
    """
    with transaction(connection, WRITING, plan) as cursor:
        (unheld if check else hold)(connection)
        if missing_objects(cursor):
            return Restoration(0, [], 0, [])  # no archive: nothing ever left
        columns = columns_of(cursor, plan)
        values = {"run_id": run_id, "plan": plan.id, "schema": plan.schema, "table": plan.table}
        cursor.execute("DROP TABLE IF EXISTS pg_temp.at_most_one_returning")
        if not check:  # two restorations at once: the second waits here, and then finds nothing to do
            cursor.execute("LOCK TABLE at_most_one.archived_row IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(_RETURNING, values)
        restored = cursor.rowcount
        cursor.execute("ANALYZE pg_temp.at_most_one_returning")
        cursor.execute(
            "SELECT names, action, pg_catalog.count(*) FROM pg_temp.at_most_one_returning GROUP BY 1, 2 ORDER BY 1, 2"
        )
        batches = [_Batch(plan, columns, *found) for found in cursor.fetchall()]
        for batch in batches:
            batch.refuse_lost_columns()
            batch.refuse_conflicts(cursor)
        rows = sorted(row for batch in batches for row in batch.read(cursor))[:_EXAMPLES]
        path = usual_search_path(cursor)
        statements = sorted({statement for batch in batches for statement in batch.write(cursor, path, check=check)})
        pointed_back = 0 if missing_objects(cursor, repointing=True) else _point_back(cursor, values, path, check)
        cursor.execute("DROP TABLE pg_temp.at_most_one_returning")
        # For the application's deferred triggers, which run at the commit.
        cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))
        if check:
            connection.rollback()
        return Restoration(restored, rows, pointed_back, statements)


_POINTED = """
SELECT table_schema, table_name, ARRAY(SELECT pg_catalog.jsonb_object_keys(primary_key) ORDER BY 1) AS key,
    ARRAY(SELECT pg_catalog.jsonb_object_keys(after) ORDER BY 1) AS columns, pg_catalog.count(*)
FROM at_most_one.repointed_row
WHERE (%(run_id)s::text IS NULL OR run_id = %(run_id)s) AND plan_id = %(plan)s AND restored_at IS NULL
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2"""

_STILL_POINTING = """
WHERE {same} AND {unchanged} AND r.table_schema = {schema} AND r.table_name = {table} AND r.restored_at IS NULL
    AND (%(run_id)s::text IS NULL OR r.run_id = %(run_id)s) AND r.plan_id = %(plan)s"""


def _point_back(cursor: Cursor, values: Mapping[str, Any], path: str, check: bool) -> int:
    """Every row that was pointed to a keeper points to its row again; all or none."""
    cursor.execute(_POINTED, values)
    total = 0
    for schema, table, key, columns, count in cursor.fetchall():
        cursor.execute(
            "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, -1) FROM pg_catalog.pg_attribute AS a"
            " WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped",
            (sql.Identifier(schema, table).as_string(cursor),),
        )
        types = dict(cursor.fetchall())
        if lost := sorted({*key, *columns} - set(types)):
            raise OperatorError(
                f"{schema}.{table}, whose rows were pointed to a keeper, no longer has column {', '.join(lost)}.",
                expected="every column that was there when its rows were pointed elsewhere.",
                next_step="set restored_at in at_most_one.repointed_row for rows that shall stay as they are.",
                columns=lost,
            )

        def condition(names: Sequence[str], stored: str, types: Mapping[str, str] = types) -> sql.Composed:
            return sql.SQL(" AND ").join(
                sql.SQL("pointing.{} = (r.{} ->> {})::{}").format(
                    sql.Identifier(name), sql.Identifier(stored), sql.Literal(name), sql.SQL(types[name])
                )
                for name in names
            )

        referring = sql.Identifier(schema, table)
        still = sql.SQL(_STILL_POINTING).format(
            same=condition(key, "primary_key"),
            unchanged=condition(columns, "after"),
            schema=sql.Literal(schema),
            table=sql.Literal(table),
        )
        cursor.execute(
            sql.SQL("SELECT pg_catalog.count(*) FROM {} AS pointing, at_most_one.repointed_row AS r {}").format(
                referring, still
            ),
            values,
        )
        ((pointing,),) = cursor.fetchall()
        if pointing != count:
            raise OperatorError(
                f"{count - pointing} rows of {schema}.{table} no longer point to the row that stayed; nothing was"
                " restored.",
                expected="rows that still point where the clean-up pointed them: newer data is never overwritten.",
                next_step="compare them with at_most_one.repointed_row, and set restored_at of those that shall stay.",
                table=f"{schema}.{table}",
                rows=count - pointing,
            )
        total += count
        if check:
            continue
        assign = sql.SQL(", ").join(
            sql.SQL("{} = (r.before ->> {})::{}").format(sql.Identifier(name), sql.Literal(name), sql.SQL(types[name]))
            for name in columns
        )
        cursor.execute(
            sql.SQL(
                "WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', %(path)s, true)),"
                " back AS (UPDATE {} AS pointing SET {} FROM at_most_one.repointed_row AS r {}"
                " AND EXISTS (SELECT FROM setting) RETURNING r.id)"
                " UPDATE at_most_one.repointed_row AS done SET restored_at = pg_catalog.now() FROM back"
                " WHERE done.id = back.id"
            ).format(referring, assign, still),
            {**values, "path": path},
        )
        cursor.execute("SELECT pg_catalog.set_config('search_path', '', true)")
    return total


class _Batch:
    """Archived rows with the same columns, on their way back into their table."""

    def __init__(self, plan: Plan, columns: Mapping[str, Column], names: list[str], action: str, size: int) -> None:
        self.plan, self.columns, self.names, self.action, self.size = plan, columns, names, action, size
        self.parameters: dict[str, Any] = {"names": names, "action": action}
        self.table = sql.Identifier(plan.schema, plan.table)
        for number, name in enumerate(names):
            self.parameters[f"name{number}"] = name
        incoming = of(plan.table, plan.primary_key)
        self.key, self.same = text_array(incoming), equal(incoming, of(_HERE, plan.primary_key))

    def refuse_lost_columns(self) -> None:
        lost = sorted(set(self.names) - set(self.columns))
        if lost:
            raise OperatorError(
                f"{table_name(self.plan)} no longer has column {', '.join(lost)}, which archived rows hold.",
                expected="every column that was there when the rows were archived: nothing may be lost silently.",
                next_step="restore these rows by hand from at_most_one.archived_row, or leave them there.",
                columns=lost,
            )

    def incoming(self) -> sql.Composed:
        """The archived rows as rows of the table, under the table's name so that the predicate reads them."""
        values = sql.SQL(", ").join(
            sql.SQL("(a.row ->> {})::{} AS {}").format(
                sql.Placeholder(f"name{number}"), sql.SQL(self.columns[name].type), sql.Identifier(name)
            )
            for number, name in enumerate(self.names)
        )
        return sql.SQL(
            "(SELECT a.id AS at_most_one_archived, a.after_sha256 AS at_most_one_after, {values}"
            " FROM at_most_one.archived_row AS a JOIN pg_temp.at_most_one_returning AS r ON r.id = a.id"
            " WHERE r.names = %(names)s::text[] AND r.action = %(action)s) AS {name}"
        ).format(values=values, name=sql.Identifier(self.plan.table))

    def read(self, cursor: Cursor) -> list[Row]:
        query = sql.SQL("SELECT {} FROM {} ORDER BY at_most_one_archived LIMIT {}").format(
            self.key, self.incoming(), sql.Literal(_EXAMPLES)
        )
        cursor.execute(query, self.parameters)
        return [key for (key,) in cursor.fetchall()]

    def refuse_conflicts(self, cursor: Cursor) -> None:
        here = sql.Identifier(_HERE)
        parts = {"key": self.key, "incoming": self.incoming(), "table": self.table, "here": here, "same": self.same}
        if self.action == "delete":
            taken = sql.SQL("SELECT {key} FROM {incoming} JOIN {table} AS {here} ON {same}").format(**parts)
            self._refuse(cursor, taken, "their primary key is in the table again", "compare these rows by hand")
        else:
            changed = sql.SQL(
                "SELECT {key} FROM {incoming} LEFT JOIN {table} AS {here} ON {same}"
                " WHERE at_most_one_after IS DISTINCT FROM {hash}"
            ).format(hash=sha256(image(self.names, here, "names")), **parts)
            why = "they are no longer as the clean-up left them, and newer data is never overwritten"
            self._refuse(cursor, changed, why, "compare these rows by hand")
        if self._rule_index_judges(cursor):
            why = f"{self.plan.rule_index.name} is there and would reject them"
            next_step = "roll the index back first, or leave these rows in the archive"
            self._refuse(cursor, self._rejected_by_rule(), why, next_step)

    def _refuse(self, cursor: Cursor, rows: sql.Composed, why: str, next_step: str) -> None:
        """Stop when the query ``rows``, which yields primary keys, yields any."""
        cursor.execute(
            sql.SQL("SELECT pg_catalog.count(*) OVER (), key FROM ({}) AS refused (key) LIMIT {}").format(
                rows, sql.Literal(_EXAMPLES)
            ),
            self.parameters,
        )
        refused = cursor.fetchall()
        if refused:
            raise OperatorError(
                f"{refused[0][0]} archived rows cannot return to {table_name(self.plan)}: {why}. No row was restored.",
                expected="an archive whose every row of this run can be put back.",
                next_step=f"{next_step} (details.refused lists their primary keys, at most {_EXAMPLES}).",
                refused=sorted(key for _, key in refused),
                count=refused[0][0],
            )

    def _rule_index_judges(self, cursor: Cursor) -> bool:
        """An index that is ready rejects rows, even while it is not valid."""
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = i.relnamespace"
            " WHERE n.nspname = %s AND i.relname = %s AND x.indisunique AND x.indisready)",
            (self.plan.schema, self.plan.rule_index.name),
        )
        return cursor.fetchone() == (True,)

    def _rejected_by_rule(self) -> sql.Composed:
        """PARTITION BY groups as the key's own type compares, whatever search_path makes of the operator ``=``."""
        numbered = [sql.Identifier(f"k{number}") for number in range(len(self.plan.key))]
        pairs = zip(of(self.plan.table, self.plan.key), numbered, strict=True)
        columns = listed(sql.SQL("{} AS {}").format(*pair) for pair in pairs)
        sides = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {} AS row_key, {}, {} AS is_incoming FROM {} WHERE {}{}").format(
                self.key,
                columns,
                sql.SQL(flag),
                rows,
                predicate_sql(self.plan),
                without_null_keys(self.plan),
            )
            for flag, rows in (("false", self.table), ("true", self.incoming()))
        )
        return sql.SQL(
            "SELECT row_key FROM (SELECT row_key, is_incoming, pg_catalog.count(*) OVER (PARTITION BY {}) AS size"
            " FROM ({}) AS both_sides) AS sized WHERE is_incoming AND size > 1"
        ).format(listed(numbered), sides)

    def _change(self, cursor: Cursor) -> sql.Composed:
        """The statement that puts the rows back. ``setting`` makes it run triggers as a session of the service does,
        while its own names are resolved before, with our empty search_path."""
        names = [name for name in self.names if not self.columns[name].generated]
        setting = sql.SQL("WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', %(path)s, true)) ")
        if self.action == "delete":
            targets = listed(map(sql.Identifier, names))
            return setting + sql.SQL(
                "INSERT INTO {} ({targets}) OVERRIDING SYSTEM VALUE SELECT {targets} FROM {}, setting"
            ).format(self.table, self.incoming(), targets=targets)
        cursor.execute(
            "SELECT attname::text FROM pg_catalog.pg_attribute"
            " WHERE attrelid = pg_catalog.to_regclass(%s) AND attidentity = 'a'",
            (self.table.as_string(cursor),),
        )
        fixed = {name for (name,) in cursor.fetchall()} | set(self.plan.primary_key)
        source = sql.Identifier(self.plan.table)
        return setting + sql.SQL("UPDATE {} AS {} SET {} FROM {}, setting WHERE {}").format(
            self.table,
            sql.Identifier(_HERE),
            listed(
                sql.SQL("{name} = {source}.{name}").format(name=sql.Identifier(name), source=source)
                for name in names
                if name not in fixed
            ),
            self.incoming(),
            self.same,
        )

    def write(self, cursor: Cursor, path: str, *, check: bool) -> list[str]:
        """Put the rows back, compare every row's hash with the archive's, mark as restored. Returns the statement."""
        change = self._change(cursor)
        if check:
            return [change.as_string(cursor)]
        cursor.execute(change, {**self.parameters, "path": path})
        cursor.execute("SELECT pg_catalog.set_config('search_path', '', true)")
        here = sql.Identifier(_HERE)
        cursor.execute(
            sql.SQL(
                "UPDATE at_most_one.archived_row AS a SET restored_at = pg_catalog.now() FROM {incoming}"
                " JOIN {table} AS {here} ON {same} WHERE a.id = at_most_one_archived AND a.row_sha256 = {hash}"
            ).format(
                incoming=self.incoming(),
                table=self.table,
                here=here,
                same=self.same,
                hash=sha256(image(self.names, here, "names")),
            ),
            self.parameters,
        )
        differing = self.size - cursor.rowcount
        if differing:
            raise OperatorError(
                f"{differing} rows put back into {table_name(self.plan)} differ from their archived image;"
                " nothing was restored.",
                expected="every row back byte for byte.",
                next_step="look for a trigger that changes rows on INSERT or UPDATE, or for a column whose type has"
                " changed.",
            )
        return [change.as_string(cursor)]
