"""What a plan's tables are at one moment, schema and content, as digests: by them a rehearsal's turns are compared.

A digest over whole tables is of use only where nobody else writes, which a rehearsal may ask for and a deployment may
not: there, what happened to the rows is read from the archive (see postgres/catalog_snapshot.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2 import sql

from ..duplicates import affected
from ..plan import Plan
from ..postgres import catalog_snapshot
from ..postgres.connection import Connection

# The rows' hashes are added up, so neither an order nor memory for all of them is needed.
_ROWS = """
WITH hashed AS (
    SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(whole_row::text, 'UTF8')), 'hex') AS h
    FROM {table} AS whole_row WHERE {kept}
)
SELECT pg_catalog.count(*), pg_catalog.sum(('x' || pg_catalog.substr(h, 1, 15))::bit(60)::bigint),
       pg_catalog.sum(('x' || pg_catalog.substr(h, 16, 15))::bit(60)::bigint),
       pg_catalog.sum(('x' || pg_catalog.substr(h, 31, 15))::bit(60)::bigint),
       pg_catalog.sum(('x' || pg_catalog.substr(h, 46, 15))::bit(60)::bigint)
FROM hashed
"""
_COLUMNS = "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"


@dataclass(frozen=True)
class Table:
    """The content of one table, without the rows that were left out."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class State:
    """One moment."""

    schema: catalog_snapshot.Snapshot
    tables: Mapping[str, Table]

    def kept(self) -> dict[str, Any]:
        """As a mapping, with a digest over all of the content."""
        schema = self.schema.kept()
        lines = [f"{name} {table.rows} {table.sha256}" for name, table in sorted(self.tables.items())]
        return {
            "schema": schema,
            "tables": {name: asdict(table) for name, table in self.tables.items()},
            "schema_sha256": schema["sha256"],
            "content_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        }


def take(connection: Connection, plan: Plan, leave_out: Mapping[str, str]) -> State:
    """Read schema and rows of the plan's tables in the caller's transaction.

    ``leave_out`` are columns and values (the canary): rows of a table that has all of these columns and these values in
    them are not read, because the checks of a deployment write them.
    """
    found = {}
    with connection.cursor() as cursor:
        for schema, name in affected.tables(connection, plan):
            table = sql.Identifier(schema, name)
            cursor.execute(_COLUMNS, (table.as_string(cursor),))
            columns = {column for (column,) in cursor.fetchall()}
            same = [sql.SQL("{}::text = %s").format(sql.Identifier("whole_row", column)) for column in leave_out]
            left_out = bool(leave_out) and columns.issuperset(leave_out)
            kept = sql.SQL("({}) IS NOT TRUE").format(sql.SQL(" AND ").join(same)) if left_out else sql.SQL("true")
            cursor.execute(
                sql.SQL(_ROWS).format(table=table, kept=kept), tuple(leave_out.values()) if left_out else None
            )
            rows, *sums = cursor.fetchone() or (0,)
            digest = hashlib.sha256(" ".join(str(value or 0) for value in (rows, *sums)).encode()).hexdigest()
            found[f"{schema}.{name}"] = Table(int(rows), digest)
    return State(catalog_snapshot.take(connection, plan), found)


def differences(before: Mapping[str, Any], now: State) -> list[str]:
    """What differs from ``before``, a :meth:`State.kept`: lines for a person, none when all is equal."""
    old, new = before["tables"], now.kept()["tables"]
    found = catalog_snapshot.differences(before["schema"], now.schema)
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            found.append(f"{'-' if name in old else '+'} table {name}")
        elif old[name] != new[name]:
            counts = f"{old[name]['rows']} rows then, {new[name]['rows']} now"
            found.append(
                f"content of {name}: {counts}, digest {old[name]['sha256'][:12]} -> {new[name]['sha256'][:12]}"
            )
    return found
