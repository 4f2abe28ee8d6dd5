"""Rows that left their table: kept whole, with their hash and their keeper, until they are put back byte for byte.

A row is kept as the text of each of its columns, by name. The connection's fixed output settings (see ``database``)
make that text a faithful image, and names instead of positions let a row return after a column was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from .database import Connection
from .errors import OperatorError
from .plan import Plan
from .table import (
    READING,
    WRITING,
    Column,
    Cursor,
    Row,
    columns_of,
    predicate_sql,
    table_name,
    transaction,
    without_null_keys,
)

_OBJECTS = (
    ("SELECT pg_catalog.to_regnamespace('at_most_one')", "CREATE SCHEMA IF NOT EXISTS at_most_one"),
    (
        "SELECT pg_catalog.to_regclass('at_most_one.archived_row')",
        """CREATE TABLE IF NOT EXISTS at_most_one.archived_row (
    id bigserial PRIMARY KEY,
    run_id text NOT NULL,
    plan_id text NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    primary_key jsonb NOT NULL,
    keeper jsonb NOT NULL,
    row jsonb NOT NULL,
    row_sha256 text NOT NULL,
    action text NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now(),
    restored_at timestamptz,
    after_sha256 text
)""",
    ),
    (
        "SELECT CASE WHEN pg_catalog.to_regclass('at_most_one.archived_row') IS NULL OR EXISTS (SELECT"
        " FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass('at_most_one.archived_row')"
        " AND attname = 'after_sha256') THEN true END",
        "ALTER TABLE at_most_one.archived_row ADD COLUMN IF NOT EXISTS after_sha256 text",
    ),
    (
        "SELECT pg_catalog.to_regclass('at_most_one.archived_row_run_id')",
        "CREATE INDEX IF NOT EXISTS archived_row_run_id ON at_most_one.archived_row (run_id)",
    ),
)


@dataclass(frozen=True)
class Restoration:
    """What was put back, or in check mode would be."""

    rows: list[Row]
    statements: list[str]


def ensure(cursor: Cursor) -> list[str]:
    """Create what the archive needs and is not there; the statements run, in the caller's transaction.

    A second run finds everything in the catalog and needs no privilege to create.
    """
    statements = missing_objects(cursor)
    for statement in statements:
        cursor.execute(statement)
    return statements


def missing_objects(cursor: Cursor) -> list[str]:
    """The statements that :func:`ensure` would run."""
    statements = []
    for lookup, statement in _OBJECTS:
        cursor.execute(lookup)
        if cursor.fetchone() == (None,):
            statements.append(statement)
    return statements


def image(columns: Sequence[str], source: sql.Composable, names: str) -> sql.Composed:
    """The jsonb image of a row of ``source``: each column's text by name. Parameter ``names`` holds the columns."""
    values = sql.SQL(", ").join(sql.SQL("{}.{}::text").format(source, sql.Identifier(name)) for name in columns)
    return sql.SQL("pg_catalog.jsonb_object({}::text[], ARRAY[{}]::text[])").format(sql.Placeholder(names), values)


def sha256(row: sql.Composable) -> sql.Composed:
    """The hash of a row's image. jsonb prints its keys in one order only, so equal images have equal hashes."""
    return sql.SQL("pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(({})::text, 'UTF8')), 'hex')").format(row)


def keys_of_run(plan: Plan, columns: Mapping[str, Column]) -> sql.Composed:
    """The primary keys that a run archived, as typed columns. Parameter ``run_id``."""
    parts = sql.SQL(", ").join(
        sql.SQL("(primary_key ->> {})::{}").format(sql.Literal(name), sql.SQL(columns[name].type))
        for name in plan.primary_key
    )
    return sql.SQL(
        "SELECT {} FROM at_most_one.archived_row WHERE run_id = %(run_id)s AND plan_id = {} AND restored_at IS NULL"
    ).format(parts, sql.Literal(plan.id))


def restore(connection: Connection, plan: Plan, *, run_id: str | None, check: bool = False) -> Restoration:
    """Put back every row of the run (``None``: of every run) that is not back yet, all or none, in one transaction.

    Refuses before it writes (also in check mode; ``details.refused`` lists the primary keys) when a row's primary key
    is taken, or when the rule's unique index is there and would reject the row. Verifies each row's hash afterwards.
    """
    with transaction(connection, READING if check else WRITING, plan) as cursor:
        columns = columns_of(cursor, plan)
        if missing_objects(cursor):
            return Restoration([], [])  # no archive: nothing ever left
        rows: list[Row] = []
        statements: list[str] = []
        for names, archived in _pending(cursor, plan, run_id, lock=not check):
            batch = _Batch(plan, columns, names, archived)
            batch.refuse_lost_columns()
            batch.refuse_conflicts(cursor)
            rows += batch.read(cursor)
            statements += batch.write(cursor, check=check)
        return Restoration(sorted(rows), sorted(set(statements)))


def _pending(cursor: Cursor, plan: Plan, run_id: str | None, *, lock: bool) -> list[tuple[list[str], list[int]]]:
    """The rows to put back as (column names, archive ids): one entry, unless the columns changed within the run."""
    query = (
        "SELECT id, ARRAY(SELECT pg_catalog.jsonb_object_keys(row) ORDER BY 1) FROM at_most_one.archived_row"
        " WHERE (%s::text IS NULL OR run_id = %s)"
        " AND plan_id = %s AND table_schema = %s AND table_name = %s AND restored_at IS NULL"
        " ORDER BY id"
    )
    cursor.execute(query + (" FOR UPDATE" if lock else ""), (run_id, run_id, plan.id, plan.schema, plan.table))
    by_names: dict[tuple[str, ...], list[int]] = {}
    for identifier, names in cursor.fetchall():
        by_names.setdefault(tuple(names), []).append(identifier)
    return [(list(names), archived) for names, archived in by_names.items()]


class _Batch:
    """Archived rows with the same columns, on their way back into their table."""

    def __init__(self, plan: Plan, columns: Mapping[str, Column], names: list[str], archived: list[int]) -> None:
        self.plan, self.columns, self.names = plan, columns, names
        self.parameters: dict[str, Any] = {"archived": archived, "names": names}
        self.table = sql.Identifier(plan.schema, plan.table)
        for number, name in enumerate(names):
            self.parameters[f"name{number}"] = name

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
            "(SELECT a.id AS at_most_one_archived, {values} FROM at_most_one.archived_row AS a"
            " WHERE a.id = ANY (%(archived)s)) AS {name}"
        ).format(values=values, name=sql.Identifier(self.plan.table))

    def key_texts(self, source: sql.Composable) -> sql.Composed:
        texts = (sql.SQL("{}.{}::text").format(source, sql.Identifier(name)) for name in self.plan.primary_key)
        return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(texts))

    def same_row(self, one: sql.Composable, other: sql.Composable) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL("{}.{name} = {}.{name}").format(one, other, name=sql.Identifier(name))
            for name in self.plan.primary_key
        )

    def read(self, cursor: Cursor) -> list[Row]:
        source = sql.Identifier(self.plan.table)
        query = sql.SQL("SELECT {} FROM {}").format(self.key_texts(source), self.incoming())
        cursor.execute(query, self.parameters)
        return [key for (key,) in cursor.fetchall()]

    def refuse_conflicts(self, cursor: Cursor) -> None:
        source, here = sql.Identifier(self.plan.table), sql.Identifier("here")
        cursor.execute(
            sql.SQL("SELECT {key} FROM {incoming} JOIN {table} AS here ON {same}").format(
                key=self.key_texts(source),
                incoming=self.incoming(),
                table=self.table,
                same=self.same_row(source, here),
            ),
            self.parameters,
        )
        taken = sorted(key for (key,) in cursor.fetchall())
        if taken:
            raise self._refusal(taken, "their primary key is in the table again", "compare these rows by hand")
        if self._rule_index_judges(cursor):
            cursor.execute(self._rejected_by_rule(), self.parameters)
            rejected = sorted(key for (key,) in cursor.fetchall())
            if rejected:
                why = f"{self.plan.rule_index.name} is there and would reject them"
                raise self._refusal(rejected, why, "roll the index back first, or leave these rows in the archive")

    def _refusal(self, rows: list[Row], why: str, next_step: str) -> OperatorError:
        return OperatorError(
            f"{len(rows)} archived rows cannot return to {table_name(self.plan)}: {why}. No row was restored.",
            expected="an archive whose every row of this run can be put back.",
            next_step=f"{next_step} (details.refused lists their primary keys).",
            refused=rows,
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
        source = sql.Identifier(self.plan.table)
        keys = [sql.SQL("{}.{}").format(source, sql.Identifier(name)) for name in self.plan.key]
        numbered = [sql.Identifier(f"k{number}") for number in range(len(keys))]
        columns = sql.SQL(", ").join(sql.SQL("{} AS {}").format(*pair) for pair in zip(keys, numbered, strict=True))
        sides = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {} AS row_key, {}, {} AS is_incoming FROM {} WHERE {}{}").format(
                self.key_texts(source),
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
        ).format(sql.SQL(", ").join(numbered), sides)

    def write(self, cursor: Cursor, *, check: bool) -> list[str]:
        """Insert, compare every row's hash with the archive's, mark as restored. Returns the statement that inserts."""
        names = [name for name in self.names if not self.columns[name].generated]
        targets = sql.SQL(", ").join(map(sql.Identifier, names))
        insert = sql.SQL("INSERT INTO {} ({targets}) OVERRIDING SYSTEM VALUE SELECT {targets} FROM {}").format(
            self.table, self.incoming(), targets=targets
        )
        if check:
            return [insert.as_string(cursor)]
        cursor.execute(insert, self.parameters)
        here, source = sql.Identifier("here"), sql.Identifier(self.plan.table)
        cursor.execute(
            sql.SQL(
                "UPDATE at_most_one.archived_row AS a SET restored_at = pg_catalog.now() FROM {incoming}"
                " JOIN {table} AS here ON {same} WHERE a.id = at_most_one_archived AND a.row_sha256 = {hash}"
            ).format(
                incoming=self.incoming(),
                table=self.table,
                same=self.same_row(source, here),
                hash=sha256(image(self.names, here, "names")),
            ),
            self.parameters,
        )
        if cursor.rowcount != len(self.parameters["archived"]):
            differing = len(self.parameters["archived"]) - cursor.rowcount
            raise OperatorError(
                f"{differing} rows put back into {table_name(self.plan)} differ from their archived image; nothing was"
                " restored.",
                expected="every row back byte for byte.",
                next_step="look for a trigger that changes rows on INSERT, or for a column whose type has changed.",
            )
        return [insert.as_string(cursor)]
