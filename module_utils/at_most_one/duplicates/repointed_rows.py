"""Rows of other tables that were pointed to a keeper, on their way back to the row that they pointed to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from psycopg2 import sql

from ..postgres.catalog import Cursor
from .ranking import listed
from .returning import IN_BATCH, Way, unique_key

SOURCE = "repointed_row"

_TYPES = """
SELECT attname::text, pg_catalog.format_type(atttypid, -1) FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""

# Only a row that is still as the clean-up pointed it: its text is compared, as it was written down.
_POINT_BACK = """
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', {path}, true)),
stored AS (
    SELECT p.id AS at_most_one_id, p.before AS at_most_one_before, p.after AS at_most_one_after, {key}
    FROM at_most_one.repointed_row AS p JOIN {in_batch} AS r ON r.id = p.id
    WHERE {which}),
back AS (
    UPDATE {table} AS pointing SET {assign} FROM stored, setting WHERE {same} AND {unchanged} RETURNING at_most_one_id)
UPDATE at_most_one.repointed_row AS done SET restored_at = pg_catalog.now() FROM back WHERE done.id = at_most_one_id"""

_ONE = """{change};
            done := FOUND;
            PERFORM pg_catalog.set_config('search_path', '', true);
            IF NOT done THEN reason := 'moved'; END IF;"""


def way_of(cursor: Cursor, path: str, shape: Mapping[str, Any]) -> Way:
    """The way of the rows of one table that refer by the same columns; ``path`` is what their triggers see."""
    cursor.execute(_TYPES, (sql.Identifier(shape["schema"], shape["table"]).as_string(cursor),))
    return _Way(cursor, path, shape, dict(cursor.fetchall()))


class _Way:
    def __init__(self, cursor: Cursor, path: str, shape: Mapping[str, Any], types: Mapping[str, str]) -> None:
        self.path, self.shape, self.types = path, shape, types
        self.table: str = shape["table"]
        self.own = f"{shape['schema']}.{shape['table']}"
        self.tables: Collection[str] = (self.table,)
        self.judges: Mapping[str, tuple[str, str]] = {}
        self.key = unique_key(cursor, shape["schema"], shape["table"], shape["key"])

    def barred(self) -> tuple[str, str] | None:
        if not self.types:
            return "table", ""
        if lost := sorted({*self.shape["key"], *self.shape["columns"]} - set(self.types)):
            return "column", ", ".join(lost)
        return ("key", ", ".join(sorted(self.shape["key"]))) if self.key is None else None

    def write(self) -> list[sql.Composed]:
        return [
            self._point_back(
                sql.SQL("r.shape = {}::jsonb").format(sql.Literal(json.dumps(self.shape, ensure_ascii=False)))
            )
        ]

    def write_one(self) -> sql.Composed:
        return sql.SQL(_ONE).format(change=self._point_back(sql.SQL("r.id = item.id")))

    def _point_back(self, which: sql.Composable) -> sql.Composed:
        assert self.key is not None  # noqa: S101  (a way that is barred is not taken)
        return sql.SQL(_POINT_BACK).format(
            path=sql.Literal(self.path),
            in_batch=IN_BATCH,
            which=which,
            table=sql.Identifier(self.shape["schema"], self.table),
            key=listed(self._stored("p", "primary_key", name) for name in self.shape["key"]),
            same=self.key.same("pointing", "stored"),
            assign=listed(
                sql.SQL("{} = (stored.at_most_one_before ->> {})::{}").format(
                    sql.Identifier(name), sql.Literal(name), sql.SQL(self.types[name])
                )
                for name in self.shape["columns"]
            ),
            unchanged=sql.SQL(" AND ").join(
                sql.SQL('pointing.{}::text COLLATE pg_catalog."C" = stored.at_most_one_after ->> {}').format(
                    sql.Identifier(name), sql.Literal(name)
                )
                for name in self.shape["columns"]
            ),
        )

    def _stored(self, source: str, column: str, name: str) -> sql.Composed:
        return sql.SQL("({}.{} ->> {})::{} AS {}").format(
            sql.Identifier(source),
            sql.Identifier(column),
            sql.Literal(name),
            sql.SQL(self.types[name]),
            sql.Identifier(name),
        )
