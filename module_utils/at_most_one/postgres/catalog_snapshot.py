"""What the plan's tables and Prisma's history are at one moment: kept when a run begins, compared when it goes back.

It holds what a deployment changes and a rollback gives back: columns, constraints, indexes and triggers of the planned
tables by definition, and which migrations count as applied. Rows are not in it: the service goes on writing them, so a
digest over the table would call each of its own writes a fault. What a run did to rows, the archive says, row by row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg2 import sql

from ..plan import Plan
from .connection import Connection
from .fence_names import PATTERN

# One statement, so one view of the catalog. The connection's empty search_path makes the definitions comparable. An
# INVALID index of a planned name is left out: it is a build's rubbish, before or after, and index_set judges it.
_OBJECTS = """
WITH planned AS (
    SELECT c.oid, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
), indexes AS (
    SELECT i.relname, x.indisvalid AND x.indisready AS usable, pg_catalog.pg_get_indexdef(i.oid) AS definition
    FROM pg_catalog.pg_index x JOIN planned p ON p.oid = x.indrelid JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
), fence AS ( -- of a release in which it was a trigger
    SELECT f.oid FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
    WHERE n.nspname = 'at_most_one'
), objects AS (
    SELECT pg_catalog.concat('column ', p.relname, '.', a.attname, ' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN ' not null' END, ' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
               ' identity ' || nullif(a.attidentity::text, ''), ' generated ' || nullif(a.attgenerated::text, ''))
               AS line
    FROM planned p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = p.oid AND d.adnum = a.attnum
    UNION ALL
    SELECT pg_catalog.concat('constraint ', p.relname, '.', k.conname, ' ', pg_catalog.pg_get_constraintdef(k.oid))
    FROM planned p JOIN pg_catalog.pg_constraint k ON k.conrelid = p.oid
    UNION ALL
    SELECT pg_catalog.concat('index ', definition, CASE WHEN NOT usable THEN ' INVALID' END)
    FROM indexes WHERE (usable OR relname <> ALL (%(indexes)s)) AND relname !~ %(fence)s
    UNION ALL
    SELECT pg_catalog.concat('trigger ', pg_catalog.pg_get_triggerdef(t.oid),
               CASE WHEN t.tgenabled = 'D' THEN ' DISABLED' END)
    FROM planned p JOIN pg_catalog.pg_trigger t ON t.tgrelid = p.oid AND NOT t.tgisinternal
    WHERE t.tgfoid NOT IN (SELECT oid FROM fence)
)
SELECT coalesce((SELECT pg_catalog.array_agg(line ORDER BY line) FROM objects), '{}'),
       coalesce((SELECT pg_catalog.array_agg(relname::text ORDER BY relname) FROM indexes
                 WHERE relname = ANY (%(indexes)s)), '{}'),
       coalesce((SELECT pg_catalog.array_agg(relname::text ORDER BY relname) FROM indexes
                 WHERE relname = ANY (%(indexes)s) AND usable), '{}'),
       EXISTS (SELECT FROM indexes WHERE relname ~ %(fence)s)
           OR EXISTS (SELECT FROM planned p JOIN pg_catalog.pg_trigger t ON t.tgrelid = p.oid
                      JOIN fence f ON f.oid = t.tgfoid)
"""
_MIGRATIONS = """
SELECT migration_name, pg_catalog.bool_or(finished_at IS NOT NULL) FROM {}
WHERE rolled_back_at IS NULL GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True)
class Snapshot:
    """One moment. ``objects`` and ``migrations`` are lines for a person, sorted, and are what is compared."""

    objects: tuple[str, ...]
    migrations: tuple[str, ...]
    planned_indexes: tuple[str, ...]  # those of the plan that are there, whatever their state
    usable_indexes: tuple[str, ...]  # those of them that are valid and ready
    fence: bool  # an index of the write fence; it is the tool's own, so no object to give back

    def kept(self) -> dict[str, Any]:
        """As the journal keeps it, with the digest that names it."""
        lines = [*self.objects, *self.migrations]
        return {
            "objects": list(self.objects),
            "migrations": list(self.migrations),
            "usable_indexes": list(self.usable_indexes),
            "fence": self.fence,
            "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        }


def take(connection: Connection, plan: Plan) -> Snapshot:
    """Read it, in the caller's transaction; tables that are not there have no objects."""
    tables = sorted({plan.table, *(index.table for index in plan.indexes)})
    history = sql.Identifier(plan.schema, "_prisma_migrations")
    with connection.cursor() as cursor:
        names = [index.name for index in plan.indexes]
        given = {"schema": plan.schema, "tables": tables, "indexes": names, "fence": PATTERN}
        cursor.execute(_OBJECTS, given)
        objects, there, usable, fence = cursor.fetchone() or ([], [], [], False)
        cursor.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (history.as_string(cursor),))
        migrations = []
        if cursor.fetchone() == (True,):
            cursor.execute(sql.SQL(_MIGRATIONS).format(history))
            # The plan's own failed attempt is no state to go back to: the next deployment begins with repairing it.
            migrations = [
                f"migration {name} {'applied' if applied else 'failed'}"
                for name, applied in cursor.fetchall()
                if applied or name != plan.migration
            ]
    return Snapshot(tuple(objects), tuple(migrations), tuple(there), tuple(usable), fence)


def indexes_there(connection: Connection, schema: str, names: Sequence[str]) -> list[str]:
    """Those of the names that are an index of the schema, in any state, on whatever table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname::text FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind IN ('i', 'I') AND c.relname = ANY (%s) ORDER BY 1",
            (schema, list(names)),
        )
        return [name for (name,) in cursor.fetchall()]


def differences(before: Mapping[str, Any], now: Snapshot) -> list[str]:
    """What is gone (``-``) and what is new (``+``) since ``before``, which is a :meth:`Snapshot.kept`.

    The write fence is no difference: an index of it that cannot be dropped yet is named by who was to drop it.
    """
    old = {*before["objects"], *before["migrations"]}
    new = {*now.objects, *now.migrations}
    return [*(f"- {line}" for line in sorted(old - new)), *(f"+ {line}" for line in sorted(new - old))]


@dataclass(frozen=True)
class Change:
    """What has happened to a plan's objects since ``before``; without one only what is there now can be said."""

    built: tuple[str, ...]  # planned indexes, in any state, that were not usable before
    there: tuple[str, ...]  # planned indexes that there are now, in any state
    kept: tuple[str, ...]  # planned indexes that were: whoever takes something back leaves them alone
    applied: bool  # the plan's migration counts as applied, and did not before
    fence: bool  # the write fence is up, and was not before
    differences: tuple[str, ...]
    recorded: bool


def changed_since(before: Mapping[str, Any] | None, now: Snapshot, plan: Plan) -> Change:
    """Compare ``before``, a :meth:`Snapshot.kept`, with now."""
    found = differences(before, now) if before else []
    kept = tuple(before["usable_indexes"]) if before else ()
    return Change(
        built=tuple(name for name in now.planned_indexes if name not in kept),
        there=tuple(now.planned_indexes),
        kept=kept,
        applied=f"+ migration {plan.migration} applied" in found,
        fence=now.fence and before is not None and not before["fence"],
        differences=tuple(found),
        recorded=before is not None,
    )


@dataclass(frozen=True)
class Content:
    """What has become of the rows that some runs archived, and the digests of the two sides over those rows.

    ``archived_sha256`` is over the images as archived, ``table_sha256`` over the same columns of the same rows as they
    are in the table now. They are equal exactly when every row is back and nobody has changed it since.
    """

    archived: int = 0
    pending: int = 0  # not put back
    back: int = 0  # in the table, as archived
    changed: int = 0  # put back, and changed since by the service
    absent: int = 0  # put back, and removed since by the service
    taken: tuple[Mapping[str, str], ...] = ()  # pending, and newer data is in their place: the first 20
    elsewhere: Mapping[str, int] = field(default_factory=dict)  # rows not put back, by a table that is not the plan's
    archived_sha256: str = ""
    table_sha256: str = ""


# The rows of the archive are few, those of the table may be many: only rows that match are rendered as an image.
_CONTENT = """
WITH a AS (
    SELECT id, primary_key, row, row_sha256, restored_at IS NULL AS pending, action,
           pg_catalog.to_jsonb(archived_row) ->> 'after_sha256' AS after_sha256 -- older archives do not have it
    FROM at_most_one.archived_row
    WHERE plan_id = %(plan)s AND table_schema = %(schema)s AND table_name = %(table)s
      AND (%(runs)s::text[] IS NULL OR run_id = ANY (%(runs)s))
), matched AS MATERIALIZED (
    SELECT a.id, pg_catalog.jsonb_object(%(names)s::text[], ARRAY[{columns}]) AS image
    FROM a JOIN {table} AS t ON {same_key}
), b AS (
    SELECT a.*, m.image, (
               SELECT pg_catalog.jsonb_object_agg(k, m.image -> k) FROM pg_catalog.jsonb_object_keys(a.row) AS k
           ) AS same_columns
    FROM a LEFT JOIN matched m USING (id)
)
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE pending),
       pg_catalog.count(*) FILTER (WHERE NOT pending AND same_columns = row),
       pg_catalog.count(*) FILTER (WHERE NOT pending AND image IS NOT NULL AND same_columns IS DISTINCT FROM row),
       pg_catalog.count(*) FILTER (WHERE NOT pending AND image IS NULL),
       coalesce((SELECT pg_catalog.jsonb_agg(primary_key) FROM (
           SELECT primary_key FROM b WHERE pending AND image IS NOT NULL
               AND (action = 'delete' OR after_sha256 <> {row_hash}) ORDER BY id LIMIT 20) first_ones), '[]'),
       {digest_archived}, {digest_table}
FROM b
"""
# Keys whose text is not what their index holds. Compared as text, each row of the table would be read and written out.
_TYPED = """
SELECT attname::text, pg_catalog.format_type(atttypid, -1) FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = ANY (%s) AND atttypid = ANY (
    ARRAY['uuid', 'smallint', 'integer', 'bigint']::pg_catalog.regtype[]::pg_catalog.oid[])"""
_ELSEWHERE = """
SELECT table_schema || '.' || table_name, pg_catalog.count(*)::integer FROM at_most_one.archived_row
WHERE plan_id = %(plan)s AND restored_at IS NULL AND (table_schema <> %(schema)s OR table_name <> %(table)s)
    AND (%(runs)s::text[] IS NULL OR run_id = ANY (%(runs)s))
GROUP BY 1 ORDER BY 1"""
_DIGEST = (
    "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(coalesce("
    "pg_catalog.string_agg({line}, E'\\n' ORDER BY id), ''), 'UTF8')), 'hex')"
)
_ROW_HASH = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(same_columns::text, 'UTF8')), 'hex')"


def content(connection: Connection, plan: Plan, runs: Sequence[str] | None) -> Content:
    """Compare the rows that these runs (``None``: all) archived with the table, in one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_catalog.to_regclass('at_most_one.archived_row') IS NOT NULL, ARRAY(SELECT a.attname::text"
            " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped)",
            (plan.schema, plan.table),
        )
        there, names = cursor.fetchone() or (False, [])
        if not there:
            return Content()
        parameters = {"plan": plan.id, "schema": plan.schema, "table": plan.table, "runs": None, "names": names}
        if runs is not None:
            parameters["runs"] = list(runs)
        cursor.execute(_ELSEWHERE, parameters)
        elsewhere = dict(cursor.fetchall())
        if not names:
            return Content(elsewhere=elsewhere)
        cursor.execute(_TYPED, (sql.Identifier(plan.schema, plan.table).as_string(cursor), list(plan.primary_key)))
        types = dict(cursor.fetchall())
        same_key = sql.SQL(" AND ").join(
            sql.SQL("{} = (a.primary_key ->> {})::{}").format(
                sql.Identifier("t", name), sql.Literal(name), sql.SQL(types[name])
            )
            if name in types
            else sql.SQL("{}::text = a.primary_key ->> {}").format(sql.Identifier("t", name), sql.Literal(name))
            for name in plan.primary_key
        )
        cursor.execute(
            sql.SQL(_CONTENT).format(
                table=sql.Identifier(plan.schema, plan.table),
                columns=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in names),
                same_key=same_key,
                row_hash=sql.SQL(_ROW_HASH),
                digest_archived=sql.SQL(_DIGEST.format(line="row_sha256")),
                digest_table=sql.SQL(_DIGEST.format(line=_ROW_HASH)),
            ),
            parameters,
        )
        archived, pending, back, changed, absent, taken, *digests = cursor.fetchone() or (0, 0, 0, 0, 0, [], "", "")
    return Content(archived, pending, back, changed, absent, tuple(taken), elsewhere, *digests)
