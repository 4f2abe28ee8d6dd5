"""How a planned index is written, and how the catalog renders it and the indexes that are there.

PostgreSQL prints the same index in different words (``'active'::status`` or ``'active'::app.status``, ``IN`` or
``= ANY``), so definitions are never compared as text from two sessions. The expected index is built, with the very
statement of :func:`create_statement`, on an empty temporary ``LIKE`` table; one query then renders both in one session.
Where their words still differ, :func:`settle` finds out whether they say the same.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from psycopg2.extras import RealDictCursor

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Index, IndexKey, Plan
from ..postgres import server_errors
from ..postgres.connection import Connection, lost
from ..postgres.fence_names import PATTERN
from ..postgres.server_errors import first_line
from ..system.strict_zip import strict_zip

# One row per relation of the namespace that has a wanted name, or is an index whose name matches the family's pattern.
# An index on a partition is a part of its table's, or what a build of it has left (on_partitions).
_FACTS = """
SELECT c.relname AS name, t.relname AS "table", m.amname AS method,
       CASE WHEN i.indexrelid IS NULL THEN 'something else' ELSE 'index' END AS kind,
       i.indisunique AS "unique", NOT i.indimmediate AS deferrable, {nulls_not_distinct} AS nulls_not_distinct,
       ARRAY(SELECT pg_get_indexdef(c.oid, k, false) FROM generate_series(1, i.indnkeyatts) AS k ORDER BY k) AS columns,
       ARRAY(SELECT pg_get_indexdef(c.oid, k, false)
             FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS k ORDER BY 1) AS include,
       ARRAY(SELECT n.nspname || '.' || o.opcname
             FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS u (oid, k)
             JOIN pg_catalog.pg_opclass o ON o.oid = u.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace ORDER BY k) AS opclass,
       ARRAY(SELECT n.nspname || '.' || o.collname
             FROM unnest(i.indcollation::oid[]) WITH ORDINALITY AS u (oid, k)
             JOIN pg_catalog.pg_collation o ON o.oid = u.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = o.collnamespace ORDER BY k) AS collation,
       ARRAY(SELECT CASE bits & 1 WHEN 1 THEN 'desc' ELSE 'asc' END
                 || CASE bits & 2 WHEN 2 THEN ' nulls first' ELSE ' nulls last' END
             FROM unnest(i.indoption::int2[]) WITH ORDINALITY AS u (bits, k) ORDER BY k) AS "order",
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       i.indisvalid AS valid, i.indisready AS ready, i.indislive AS live,
       pg_get_indexdef(c.oid) AS definition,
       p.pid AS building_pid, p.phase AS building_phase,
       CASE WHEN p.blocks_total > 0 THEN 100 * p.blocks_done / p.blocks_total
            WHEN p.tuples_total > 0 THEN 100 * p.tuples_done / p.tuples_total END AS building_percent
FROM pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
LEFT JOIN pg_catalog.pg_stat_progress_create_index p ON p.index_relid = c.oid
WHERE c.relnamespace = {namespace}
  AND (c.relname = ANY (%(names)s)
       OR i.indexrelid IS NOT NULL AND NOT t.relispartition
          AND c.relname ~ %(pattern)s AND c.relname !~ %(fence)s)
ORDER BY c.relname
"""
_TEMPORARY = "pg_my_temp_schema()"
_WORDED = ("columns", "predicate")  # what the server renders as text; the other parts are plain facts
_RENDERINGS = 3  # two are the most that was seen to change anything


def create_statement(index: Index, schema: str, *, concurrently: bool = False, only: bool = False) -> sql.Composed:
    """``CREATE INDEX`` for a planned index on its table in ``schema``; to be executed without parameters. ``only``: not
    on the partitions of the table."""
    parts: list[sql.Composable] = [
        sql.SQL("CREATE UNIQUE INDEX" if index.unique else "CREATE INDEX"),
        *([sql.SQL("CONCURRENTLY")] if concurrently else []),
        sql.Identifier(index.name),
        sql.SQL("ON ONLY {} USING {} ({})" if only else "ON {} USING {} ({})").format(
            sql.Identifier(schema, index.table),
            sql.Identifier(index.method),
            sql.SQL(", ").join(_key(key) for key in index.keys),
        ),
    ]
    if index.include:
        parts.append(sql.SQL("INCLUDE ({})").format(sql.SQL(", ").join(map(sql.Identifier, index.include))))
    if index.nulls_not_distinct:
        parts.append(sql.SQL("NULLS NOT DISTINCT"))
    if index.predicate:
        parts.append(sql.SQL("WHERE ({})").format(_whole(index.predicate)))
    return sql.SQL(" ").join(parts)


def drop_statement(name: str, schema: str) -> sql.Composed:
    """``DROP INDEX CONCURRENTLY``, qualified: without the schema ``IF EXISTS`` would succeed and drop nothing."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name))


def comment_statement(name: str, schema: str, literal: str) -> sql.Composed:
    """``COMMENT ON INDEX``; ``literal`` is one string literal or NULL, as a migration writes it."""
    return sql.SQL("COMMENT ON INDEX {} IS {}").format(sql.Identifier(schema, name), sql.SQL(literal))


def expected(connection: Connection, plan: Plan) -> dict[str, dict[str, Any]]:
    """The planned indexes as the catalog renders them, from empty shadow tables that are gone when this returns."""
    names = {f"at_most_one_expected_{n}": index for n, index in enumerate(plan.indexes)}
    at_work: list[str] = []
    with _explained(at_work), _shadow_tables(connection, plan, at_work) as shadows, connection.cursor() as cursor:
        for name, index in names.items():
            at_work.append(index.name)
            cursor.execute(create_statement(replace(index, name=name, table=shadows[index.table]), "pg_temp"))
        rendered = _read(connection, None, sorted(names), None)
    return {index.name: {**rendered[name], "table": index.table} for name, index in names.items()}


@contextlib.contextmanager
def _shadow_tables(connection: Connection, plan: Plan, at_work: list[str]) -> Iterator[dict[str, str]]:
    """An empty temporary table like each table of the plan, by the table's name; gone with what was built on them."""
    shadows = {table: f"at_most_one_shadow_{n}" for n, table in enumerate(sorted({i.table for i in plan.indexes}))}
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT at_most_one_shadow")
        try:
            for table, shadow in shadows.items():
                at_work.append(f"{plan.schema}.{table}")
                like = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {})")
                cursor.execute(like.format(sql.Identifier("pg_temp", shadow), sql.Identifier(plan.schema, table)))
            yield shadows
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_shadow; RELEASE SAVEPOINT at_most_one_shadow")


def seen(connection: Connection, plan: Plan) -> dict[str, dict[str, Any]]:
    """What the plan's schema holds under the planned names, and every index of the plan's family."""
    return _read(connection, plan.schema, [index.name for index in plan.indexes], plan.family.pattern)


def settle(
    connection: Connection, plan: Plan, expected: dict[str, dict[str, Any]], seen: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """``seen``, with the expected words where an index's expressions say the same in others.

    An index that went through pg_dump and a restore was parsed from PostgreSQL's own rendering, which casts more than
    the original did (``status IN ('a')`` on a varchar becomes ``::character varying``, then ``::text`` in the array).
    So both renderings are built on a shadow table and rendered again until nothing changes any more. Parsing what was
    rendered keeps the meaning, pg_dump relies on it, so two that end in the same words mean the same. The converse is
    not true:
    ``IN ('b', 'a')`` stays different from ``IN ('a', 'b')``, with a remark that only the order differs.
    """
    suspects = {
        index.name: index.table
        for index in plan.indexes
        if (found := seen.get(index.name)) and found["kind"] == "index"
        if any(found[part] != expected[index.name][part] for part in _WORDED)
    }
    if not suspects:
        return seen
    settled = dict(seen)
    at_work: list[str] = []
    with _explained(at_work), _shadow_tables(connection, plan, at_work) as shadows:
        for name, table in suspects.items():
            theirs, ours = (_settled(connection, shadows[table], facts) for facts in (seen[name], expected[name]))
            same = [part for part in _WORDED if theirs[part] == ours[part]]
            settled[name] = {
                **seen[name],
                **{part: expected[name][part] for part in same},
                "remarks": {
                    part: say("the same parts in another order")
                    for part in _WORDED
                    if part not in same and _only_order(_words(theirs[part]), _words(ours[part]))
                },
            }
    return settled


def _settled(connection: Connection, shadow: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The worded parts after as many renderings as it takes; as they are when the shadow table does not take them."""
    words = {part: facts[part] for part in _WORDED}
    with connection.cursor() as cursor:
        for _ in range(_RENDERINGS):
            cursor.execute("SAVEPOINT at_most_one_rendering")
            try:
                cursor.execute(_rebuild(shadow, facts, words))
                rendered = _read(connection, None, ["at_most_one_rendered"], None)["at_most_one_rendered"]
            except psycopg2.Error:
                return words
            finally:
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_rendering; RELEASE SAVEPOINT at_most_one_rendering")
            words = {part: rendered[part] for part in _WORDED}
    return words


def _rebuild(shadow: str, facts: dict[str, Any], words: dict[str, Any]) -> sql.Composed:
    """An index of the same expressions and operator classes; what else there is to it has no say in their words."""
    keys = (
        sql.SQL("({}) {}").format(sql.SQL(column), sql.Identifier(*opclass.partition(".")[::2]))
        for column, opclass in strict_zip(words["columns"], facts["opclass"])
    )
    statement = sql.SQL("CREATE INDEX at_most_one_rendered ON {} USING {} ({})").format(
        sql.Identifier("pg_temp", shadow), sql.Identifier(facts["method"]), sql.SQL(", ").join(keys)
    )
    return statement + sql.SQL(f" WHERE {words['predicate']}" if words["predicate"] else "")


def _words(rendered: Any) -> list[str]:
    """What a rendering is made of, but for parentheses: literals, names, numbers, signs."""
    text = ", ".join(rendered) if isinstance(rendered, list) else rendered or ""
    return re.findall(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\w+|[^\w\s()]", text)


def _only_order(one: list[str], other: list[str]) -> bool:
    return one != other and sorted(one) == sorted(other)


def violations(connection: Connection, schema: str, index: Index) -> int:
    """How many groups of rows a unique index would refuse. NULL keys count only under NULLS NOT DISTINCT."""
    keys = [_expression(key) for key in index.keys]
    conditions = [sql.SQL("({})").format(_whole(index.predicate))] if index.predicate else []
    if not index.nulls_not_distinct:
        conditions += [sql.SQL("{} IS NOT NULL").format(key) for key in keys]
    statement = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} GROUP BY {} HAVING count(*) > 1) AS d").format(
        sql.Identifier(schema, index.table),
        sql.SQL(" AND ").join([*conditions, sql.SQL("true")]),
        sql.SQL(", ").join(keys),
    )
    with connection.cursor() as cursor, _explained([f"{schema}.{index.table}"]):
        cursor.execute(statement)
        ((count,),) = cursor.fetchall()
        return int(count)


def _whole(predicate: str) -> sql.SQL:
    """The predicate for use inside parentheses: a line break ends the comment that it may end with."""
    return sql.SQL(f"{predicate}\n" if "--" in predicate else predicate)


def _key(key: IndexKey) -> sql.Composable:
    parts = [_expression(key)]
    if key.opclass:
        parts.append(sql.Identifier(*key.opclass.split(".")))
    if key.order:
        parts.append(sql.SQL(key.order.upper()))
    if key.nulls:
        parts.append(sql.SQL(f"NULLS {key.nulls.upper()}"))
    return sql.SQL(" ").join(parts)


def _expression(key: IndexKey) -> sql.Composable:
    what = sql.Identifier(key.column) if key.column else sql.SQL("({})").format(sql.SQL(key.expression or ""))
    if not key.collation:
        return what
    return sql.SQL("{} COLLATE {}").format(what, sql.Identifier(*key.collation.split(".")))


def _read(
    connection: Connection, schema: str | None, names: Iterable[str], pattern: str | None
) -> dict[str, dict[str, Any]]:
    """Facts by name, from ``schema`` or from this session's temporary schema."""
    namespace = "(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)" if schema else _TEMPORARY
    nulls = "i.indnullsnotdistinct" if connection.server_version >= 150_000 else "false"
    statement = sql.SQL(_FACTS).format(namespace=sql.SQL(namespace), nulls_not_distinct=sql.SQL(nulls))
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(statement, {"schema": schema, "names": list(names), "pattern": pattern, "fence": PATTERN})
        return {row["name"]: dict(row) for row in cursor.fetchall()}


@contextlib.contextmanager
def _explained(at_work: Sequence[str]) -> Iterator[None]:
    """Turn a server's error into an OperatorError about the last entry of ``at_work``; a lost one stays what it is."""
    try:
        yield
    except psycopg2.Error as failure:
        if lost(failure):
            raise
        raise _explanation(failure, at_work[-1] if at_work else say("the planned indexes")) from failure


def _explanation(failure: psycopg2.Error, what: str) -> OperatorError:
    if isinstance(failure, psycopg2.errors.InsufficientPrivilege) and not server_errors.function_of(failure):
        return OperatorError(
            observed(
                "AMO-3505", "The role may not inspect {what}: {first_line}.", what=what, first_line=first_line(failure)
            ),
            expected=say("SELECT on the planned tables, free of row level security, and TEMPORARY on the database."),
            next_step=say("grant it, or connect as the tables' owner."),
            sqlstate=failure.pgcode,
        )
    if isinstance(failure, (psycopg2.errors.LockNotAvailable, psycopg2.errors.QueryCanceled)):
        return OperatorError(
            observed(
                "AMO-3506",
                "Inspecting {what} did not end in time: {first_line}.",
                what=what,
                first_line=first_line(failure),
            ),
            expected=say("the planned tables to be readable within lock_timeout_ms and statement_timeout_ms."),
            next_step=say("look for a session with an ACCESS EXCLUSIVE lock, or allow more time; nothing was changed."),
            sqlstate=failure.pgcode,
        )
    said = server_errors.explain(
        failure,
        say("tables and columns on which the planned indexes can be built."),
        say("correct the plan, or apply the schema's migrations that come before it."),
    )
    inside = server_errors.function_of(failure)
    return OperatorError(
        observed("AMO-3507", "An index cannot be tried: {what}: {message}.", what=what, message=said.message)
        if inside
        else observed(
            "AMO-3518", "The plan does not fit the database: {what}: {message}.", what=what, message=said.message
        ),
        expected=said.expected,
        next_step=said.next_step,
        sqlstate=failure.pgcode,
    )
