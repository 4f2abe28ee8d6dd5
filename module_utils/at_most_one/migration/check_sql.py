"""Whether a migration's own statements build what the plan says, found out before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..indexes import definitions, verification
from ..plan import Plan
from ..postgres import server_errors
from ..postgres.connection import Connection
from ..prisma.migration_sql import CreateIndex, DropIndex, Statement
from . import scope


def require_same(connection: Connection, plan: Plan, statements: Sequence[Statement], *, strict: bool) -> None:
    """Raise OperatorError unless the migration's own statements build what the plan says, and drop nothing else.

    Each CREATE INDEX is run, under the search_path that Prisma or the script gives it, on an empty shadow table inside
    a savepoint that is rolled back, and compared like an index that is there. Unless ``strict``, a statement that
    cannot be run on the shadow table is left to Prisma (the migration may add what it needs), and so is how the index
    is stored. Writes nothing.
    """
    expected = definitions.expected(connection, plan)
    verdicts = []
    for statement in statements:
        if statement.index is None or statement.index.name not in expected:
            continue
        facts = _built_on_shadow_table(connection, plan, statement.index, statement.search_path, strict=strict)
        if facts is not None:
            verdict = verification.judge(statement.index.name, expected[statement.index.name], facts)
            if strict and facts["storage"]:
                storage = verification.Difference("storage", say("the default"), facts["storage"])
                verdict = replace(verdict, verdict="different", parts=(*verdict.parts, storage))
            verdicts.append((statement.number, verdict))
    faults: list[str] = [
        say("statement {number}: {fault}", number=number, fault=verdict.fault())
        for number, verdict in verdicts
        if verdict.verdict != "present"
    ]
    faults += [
        say("statement {number} would drop {name}", number=number, name=name)
        for number, name in _others(connection, plan, statements)
    ]
    lost = scope.lost(statements)
    faults += [
        say("statement {number} drops {name} after it was built", number=number, name=name) for number, name in lost
    ]
    if faults:
        raise OperatorError(
            observed(
                "AMO-3602",
                "Migration {migration} builds something else than plan {plan_id} says: {faults}.",
                migration=plan.migration,
                plan_id=plan.id,
                faults=joined(faults),
            ),
            expected=say("the same definition in both, as the catalog renders it."),
            next_step=say("correct the plan or the migration, whichever is wrong; nothing was built."),
            cause="migration_differs",
            indexes=[asdict(verdict) for _, verdict in verdicts],
        )


def _others(connection: Connection, plan: Plan, statements: Sequence[Statement]) -> list[tuple[int, str]]:
    """The relations of a planned name in another schema that a DROP INDEX of the script would find, by statement."""
    planned = {index.name for index in plan.indexes}
    found: list[tuple[int, str]] = []
    for statement in statements:
        if isinstance(statement.action, DropIndex) and statement.search_path:
            for schema, name in statement.action.targets:
                if schema is None and name in planned:
                    where = _schema_of(connection, statement.search_path, name)
                    if where not in (None, plan.schema):
                        found.append(
                            (
                                statement.number,
                                say("{where}.{name}, which the plan does not name", where=where, name=name),
                            )
                        )
    return found


def _schema_of(connection: Connection, search_path: Sequence[str], name: str) -> str | None:
    """The schema in which the server finds an unqualified relation; ``None`` when it finds none."""
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT at_most_one_name")
        try:
            cursor.execute(_set_search_path(search_path))
            cursor.execute(
                "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(%s))",
                (name,),
            )
            row = cursor.fetchone()
            return str(row[0]) if row else None
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_name; RELEASE SAVEPOINT at_most_one_name")


def _set_search_path(schemas: Sequence[str]) -> sql.Composed:
    return sql.SQL("SET LOCAL search_path = {}").format(sql.SQL(", ").join(map(sql.Identifier, schemas)))


def _built_on_shadow_table(
    connection: Connection, plan: Plan, index: CreateIndex, search_path: tuple[str, ...], *, strict: bool
) -> dict[str, Any] | None:
    schema: str | None = index.schema
    if schema is None and search_path:
        schema = _schema_of(connection, search_path, index.table)
        if schema is None:
            return {
                "kind": say(
                    "no table {table} in search_path {search_path}",
                    table=index.table,
                    search_path=", ".join(search_path),
                ),
                "storage": None,
            }
    if schema not in (None, plan.schema):
        return {"kind": say("an index in schema {schema}", schema=schema), "storage": None}
    shadow = sql.Identifier("pg_temp", index.table)
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT at_most_one_statement")
        try:
            like = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {})")
            cursor.execute(like.format(shadow, sql.Identifier(plan.schema, index.table)))
            cursor.execute("SET LOCAL temp_tablespaces = ''")
            cursor.execute(_set_search_path(search_path or (plan.schema,)))
            create = sql.SQL("CREATE UNIQUE INDEX {} ON {} {}" if index.unique else "CREATE INDEX {} ON {} {}")
            cursor.execute(create.format(sql.Identifier(index.name), shadow, sql.SQL(index.rest)))
            cursor.execute("SET LOCAL search_path = ''")
            cursor.execute(
                "SELECT n.nspname, concat_ws(', ', array_to_string(c.reloptions, ', '), t.spcname)"
                " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                " LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace"
                " WHERE c.relnamespace = pg_my_temp_schema() AND c.relname = %s",
                (index.name,),
            )
            schema, storage = cursor.fetchone() or ("", None)
            seen = definitions.seen(connection, replace(plan, schema=schema))
            return {**seen[index.name], "storage": storage}
        except psycopg2.Error as refused:
            if not strict:
                return None
            said = server_errors.explain(
                refused,
                say("a statement that builds the planned index on the planned table."),
                say("correct the migration; nothing was built."),
            )
            raise OperatorError(
                observed(
                    "AMO-3603",
                    "Migration {migration}: {index} cannot be built: {message}.",
                    migration=plan.migration,
                    index=index.name,
                    message=said.message,
                ),
                expected=said.expected,
                next_step=said.next_step,
                cause="migration_differs",
                sqlstate=refused.pgcode,
            ) from refused
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_statement; RELEASE SAVEPOINT at_most_one_statement")
