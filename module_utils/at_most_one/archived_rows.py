"""Archived rows on their way back into the plan's table: one is inserted, or gets its old values again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg2 import sql

from .archive import image, sha256
from .plan import Plan
from .ranking import listed, of
from .returning import IN_BATCH, Way, unique_key
from .table import Column, Cursor, usual_search_path

SOURCE = "archived_row"
_HERE = "at_most_one_here"  # the table as it is now, next to its archived rows
_INCOMING = "at_most_one_incoming"

_FIXED = """
SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s) AND attidentity = 'a'"""


# The range lets the server read the archive's part in question, whatever it knows of the table's size.
_FROM_ARCHIVE = """
(SELECT a.id AS at_most_one_archived, a.after_sha256 AS at_most_one_after, a.row AS at_most_one_row, {values}
 FROM at_most_one.archived_row AS a JOIN {in_batch} AS r ON r.id = a.id
 WHERE {which} AND a.id >= (SELECT pg_catalog.min(id) FROM {in_batch})
    AND a.id <= (SELECT pg_catalog.max(id) FROM {in_batch})) AS {incoming}"""

# ``setting`` makes the statement run triggers as a session of the service does, while its own names are resolved
# before, with our empty search_path.
_INSERT = """
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', {path}, true))
INSERT INTO {table} ({targets}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {incoming}, setting"""

_UPDATE = """
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', {path}, true))
UPDATE {table} AS {here} SET {assign} FROM {incoming}, setting
WHERE {same} AND at_most_one_after = {hash_now}"""

_MARK = """
UPDATE at_most_one.archived_row AS a SET restored_at = pg_catalog.now()
FROM {incoming} JOIN {table} AS {here} ON {same}
WHERE a.id = at_most_one_archived AND a.row_sha256 = {hash}"""

_ONE = """{change};
            GET DIAGNOSTICS changed = ROW_COUNT;
            PERFORM pg_catalog.set_config('search_path', '', true);
            {mark};
            done := FOUND;
            IF NOT done AND {update} AND changed = 0 THEN
                reason := 'changed_since';
            ELSIF NOT done THEN
                name := (
                    SELECT coalesce(pg_catalog.string_agg(was.key, ', ' ORDER BY was.key)
                        FILTER (WHERE was.value IS DISTINCT FROM now.image -> was.key), 'row_sha256')
                    FROM (SELECT at_most_one_row AS row, {image} AS image
                          FROM {incoming} JOIN {table} AS {here} ON {same}) AS now
                    CROSS JOIN LATERAL pg_catalog.jsonb_each(now.row) AS was HAVING pg_catalog.count(*) > 0);
                reason := CASE WHEN name IS NULL THEN 'swallowed' ELSE 'changed_value' END;
            END IF;"""


class Table:
    """The plan's table, as archived rows return to it."""

    def __init__(self, cursor: Cursor, plan: Plan, columns: Mapping[str, Column]) -> None:
        self.plan, self.columns = plan, columns
        self.path = usual_search_path(cursor)
        self.key = unique_key(cursor, plan.schema, plan.table, plan.primary_key)
        cursor.execute(_FIXED, (sql.Identifier(plan.schema, plan.table).as_string(cursor),))
        self.fixed = {column for (column,) in cursor.fetchall()} | set(plan.primary_key)

    def way_of(self, shape: Mapping[str, Any]) -> Way:
        """The way of the rows that were archived with these columns and by this action."""
        return _Way(self, shape)


class _Way:
    def __init__(self, into: Table, shape: Mapping[str, Any]) -> None:
        self.into, self.update, self.names = into, shape["action"] == "update", list(shape["names"])
        self.table = into.plan.table
        self.judges: Mapping[str, str] = {into.plan.rule_index.name: "rule", into.key.index: "taken"}
        self.in_batch = sql.SQL("r.shape = {}::jsonb").format(sql.Literal(json.dumps(shape, ensure_ascii=False)))

    def lost_columns(self) -> list[str]:
        return sorted(set(self.names) - set(self.into.columns))

    def write(self) -> list[sql.Composed]:
        return [self._with(_UPDATE if self.update else _INSERT, self.in_batch), self._with(_MARK, self.in_batch)]

    def write_one(self) -> sql.Composed:
        one = sql.SQL("r.id = item.id")
        return self._with(
            _ONE,
            one,
            change=self._with(_UPDATE if self.update else _INSERT, one),
            mark=self._with(_MARK, one),
            update=sql.Literal(self.update),
        )

    def _with(self, template: str, which: sql.Composable, **more: sql.Composable) -> sql.Composed:
        written = [name for name in self.names if not self.into.columns[name].generated]
        columns = [self.into.columns[name] for name in self.names]
        source = sql.Identifier(_INCOMING)
        return sql.SQL(template).format(
            table=sql.Identifier(self.into.plan.schema, self.into.plan.table),
            here=sql.Identifier(_HERE),
            path=sql.Literal(self.into.path),
            incoming=self._incoming(which),
            same=self.into.key.same(_INCOMING, _HERE),
            image=image(columns, sql.Identifier(_HERE)),
            hash=sha256(image(columns, sql.Identifier(_HERE))),
            # While the statement runs for the triggers, in their search_path.
            hash_now=sha256(image(columns, sql.Identifier(_HERE), sql.Literal(self.into.path))),
            targets=listed(map(sql.Identifier, written)),
            values=listed(of(_INCOMING, written)),
            assign=listed(
                sql.SQL("{name} = {source}.{name}").format(name=sql.Identifier(name), source=source)
                for name in written
                if name not in self.into.fixed
            ),
            **more,
        )

    def _incoming(self, which: sql.Composable) -> sql.Composed:
        """The archived rows as rows of the table."""
        return sql.SQL(_FROM_ARCHIVE).format(
            values=listed(
                sql.SQL("(a.row ->> {})::{} AS {}").format(
                    sql.Literal(name), sql.SQL(self.into.columns[name].type), sql.Identifier(name)
                )
                for name in self.names
            ),
            in_batch=IN_BATCH,
            which=which,
            incoming=sql.Identifier(_INCOMING),
        )
