"""Rows that left their table: kept whole, with their hash and their keeper, until ``restore`` puts them back.

A row is kept as the text of each of its columns, by name. The connection's fixed output settings make that text a
faithful image (postgres/connection.py), and names instead of positions let a row return after a column was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg2 import sql

from ..plan import Plan
from ..postgres.catalog import Column

# CASE makes the image after the first setting, and OFFSET 0 keeps the second one outside, after it.
_UNDER_EMPTY_PATH = """(
    SELECT made.image FROM (
        SELECT CASE WHEN pg_catalog.set_config('search_path', '', true) IS NOT NULL THEN {image} END AS image OFFSET 0
    ) AS made WHERE pg_catalog.set_config('search_path', {search_path}, true) IS NOT NULL)"""


def image(columns: Sequence[Column], source: sql.Composable, search_path: sql.Composable | None = None) -> sql.Composed:
    """The jsonb image of a row of ``source``: each column's text by name, made under the empty search_path.

    The connection has an empty one. A statement that sets another, for the triggers that it runs, names it: it is in
    force again after the image is made. Only the text of some types depends on it, such as that of regclass.
    """
    values = sql.SQL(", ").join(
        sql.SQL("{}.{}::text").format(source, sql.Identifier(column.name)) for column in columns
    )
    made = sql.SQL("pg_catalog.jsonb_object({}::text[], ARRAY[{}]::text[])").format(
        sql.Literal([column.name for column in columns]), values
    )
    if search_path is None or not any(column.needs_search_path for column in columns):
        return made
    return sql.SQL(_UNDER_EMPTY_PATH).format(image=made, search_path=search_path)


def sha256(row: sql.Composable) -> sql.Composed:
    """The hash of a row's image. jsonb prints its keys in one order only, so equal images have equal hashes."""
    return sql.SQL("pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(({})::text, 'UTF8')), 'hex')").format(row)


def content(columns: Sequence[Column], source: sql.Composable) -> sql.Composed:
    """32 hexadecimal digits that name the content of a row of ``source``: of SHA-256 over its binary form.

    That form depends on no setting, and costs a third of what the image does. A type without one gives its text.
    """
    values = sql.SQL(", ").join(
        sql.SQL("{}.{}" if column.binary else "{}.{}::text").format(source, sql.Identifier(column.name))
        for column in columns
    )
    return sql.SQL(
        "pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.record_send(ROW({}))), 'hex'), 1, 32)"
    ).format(values)


def keys_of_run(plan: Plan, columns: Mapping[str, Column], *, every_run: bool) -> sql.Composed:
    """The primary keys that a run archived, or every run, as typed columns. Parameter ``run_id``."""
    parts = sql.SQL(", ").join(
        sql.SQL("(primary_key ->> {})::{}").format(sql.Literal(name), sql.SQL(columns[name].type))
        for name in plan.primary_key
    )
    return sql.SQL("SELECT {} FROM at_most_one.archived_row WHERE {} plan_id = {} AND restored_at IS NULL").format(
        parts, sql.SQL("" if every_run else "run_id = %(run_id)s AND"), sql.Literal(plan.id)
    )
