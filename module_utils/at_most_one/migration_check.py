"""Whether a migration's own CREATE INDEX statements build what the plan says, found out before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import psycopg2
from psycopg2 import sql

from . import definitions, indexes
from .database import Connection
from .errors import OperatorError
from .migration_sql import CreateIndex, Statement
from .plan import Plan


def require_same(connection: Connection, plan: Plan, statements: Sequence[Statement], *, strict: bool) -> None:
    """Raise OperatorError unless the migration's own CREATE INDEX statements build what the plan says.

    Each is run, under the search_path that Prisma gives it, on an empty twin inside a savepoint that is rolled back,
    and compared like an index that is there. Unless ``strict``, a statement that cannot be run on the twin is left to
    Prisma (the migration may add what it needs), and so is how the index is stored. Writes nothing.
    """
    expected = definitions.expected(connection, plan)
    verdicts = []
    for statement in statements:
        if statement.index is None or statement.index.name not in expected:
            continue
        if (facts := _built_on_twin(connection, plan, statement.index, strict=strict)) is not None:
            verdict = indexes.judge(statement.index.name, expected[statement.index.name], facts)
            if strict and facts["storage"]:
                storage = indexes.Difference("storage", "the default", facts["storage"])
                verdict = replace(verdict, verdict="different", parts=(*verdict.parts, storage))
            verdicts.append((statement.number, verdict))
    faults = [f"statement {number}: {verdict.fault()}" for number, verdict in verdicts if verdict.verdict != "present"]
    if faults:
        raise OperatorError(
            f"Migration {plan.migration} builds something else than plan {plan.id} says: {'; '.join(faults)}.",
            expected="the same definition in both, as the catalog renders it.",
            next_step="correct the plan or the migration, whichever is wrong; nothing was built.",
            cause="migration_differs",
            indexes=[asdict(verdict) for _, verdict in verdicts],
        )


def _built_on_twin(connection: Connection, plan: Plan, index: CreateIndex, *, strict: bool) -> dict[str, Any] | None:
    if index.schema not in (None, plan.schema):
        return {"kind": f"an index in schema {index.schema}", "storage": None}
    twin = sql.Identifier("pg_temp", index.table)
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT at_most_one_statement")
        try:
            like = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {})")
            cursor.execute(like.format(twin, sql.Identifier(plan.schema, index.table)))
            cursor.execute("SET LOCAL temp_tablespaces = ''")
            cursor.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(plan.schema)))
            create = sql.SQL("CREATE UNIQUE INDEX {} ON {} {}" if index.unique else "CREATE INDEX {} ON {} {}")
            cursor.execute(create.format(sql.Identifier(index.name), twin, sql.SQL(index.rest)))
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
            raise OperatorError(
                f"Migration {plan.migration}: {index.name} cannot be built: {refused.diag.message_primary or refused}.",
                expected="a statement that builds the planned index on the planned table.",
                next_step="correct the migration; nothing was built.",
                cause="migration_differs",
                sqlstate=refused.pgcode,
            ) from refused
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT at_most_one_statement; RELEASE SAVEPOINT at_most_one_statement")
