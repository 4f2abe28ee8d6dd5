"""Archived rows on their way back into the plan's table: one is inserted, or gets its old values again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from ..plan import Plan
from ..postgres.catalog import Column, Cursor, table_name, unidentified, usual_search_path
from ..postgres.partitions import names_in_tree
from .archive import image, sha256
from .ranking import listed, of
from .returning import IN_BATCH, Way, unique_key

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


# For a check while the rule's index still stands, which is dropped before rows really return. A row that it rejects
# never gets into the table; ON CONFLICT shows it as the BEFORE triggers have made it, and nothing is updated:
# https://www.postgresql.org/docs/current/sql-insert.html#SQL-ON-CONFLICT
_INSERT_BEHIND = """
WITH setting AS MATERIALIZED (SELECT pg_catalog.set_config('search_path', {path}, true))
INSERT INTO {table} AS {here} ({targets}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {incoming}, setting
ON CONFLICT ({keys}) {predicate} DO UPDATE SET {column} = {here}.{column}
WHERE pg_catalog.set_config('at_most_one.excluded', {excluded}::text, true) IS NULL"""

# ON CONFLICT does not know an index that a build which was cut off has left INVALID, although it may reject rows. The
# row is taken as it is then: what BEFORE triggers would make of it cannot be seen.
_AS_IT_IS = """
PERFORM pg_catalog.set_config('at_most_one.excluded', (SELECT at_most_one_row::text FROM {incoming}), true)"""

# The row is tried as it is first: an older index than the rule's, the primary key's among them, rejects it there.
_ONE_BEHIND = """BEGIN
                {plainly}
            EXCEPTION WHEN unique_violation THEN
                GET STACKED DIAGNOSTICS constrained = CONSTRAINT_NAME;
                IF constrained <> ALL ({rule}) THEN RAISE; END IF;
                {change};
                PERFORM pg_catalog.set_config('search_path', '', true);
                reason := 'constraint';
                name := (SELECT {missing} FROM {incoming});
                IF name IS NULL THEN
                    reason := 'changed_value';
                    name := (
                        SELECT pg_catalog.string_agg(was.key, ', ' ORDER BY was.key)
                        FROM {incoming} CROSS JOIN LATERAL pg_catalog.jsonb_each(at_most_one_row) AS was
                        WHERE was.value IS DISTINCT FROM
                            pg_catalog.current_setting('at_most_one.excluded')::jsonb -> was.key);
                END IF;
                done := name IS NULL;
                UPDATE at_most_one.archived_row AS a SET restored_at = pg_catalog.now() WHERE a.id = item.id AND done;
            END;"""

_RULE_INDEX = """
SELECT (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(x.indexrelid, n, false), ', ')
        FROM pg_catalog.generate_series(1, x.indnkeyatts) AS n),
    coalesce('WHERE ' || pg_catalog.pg_get_expr(x.indpred, x.indrelid), ''), x.indisvalid
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = pg_catalog.to_regclass(%s) AND i.relname = %s"""

# By the foreign key's own operators; those to the table itself are left out, because a check's rows are not in it, and
# the copies that a foreign key has for each partition of the table that it refers to.
_REFERS = """
SELECT f.conname, n.nspname, c.relname,
    ARRAY(SELECT ARRAY[a.attname::text, b.attname::text,
              pg_catalog.format('OPERATOR(%%I.%%s)', s.nspname, o.oprname)]
          FROM unnest(f.conkey, f.confkey, f.conpfeqop) AS k (ours, theirs, operator)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.ours
          JOIN pg_catalog.pg_attribute AS b ON b.attrelid = f.confrelid AND b.attnum = k.theirs
          JOIN pg_catalog.pg_operator AS o ON o.oid = k.operator
          JOIN pg_catalog.pg_namespace AS s ON s.oid = o.oprnamespace)
FROM pg_catalog.pg_constraint AS f JOIN pg_catalog.pg_class AS c ON c.oid = f.confrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.conrelid = pg_catalog.to_regclass(%s) AND f.confrelid <> f.conrelid AND f.conparentid = 0 ORDER BY f.oid"""


@dataclass(frozen=True)
class _RuleIndex:
    """The rule's index while it is there, and how to ask what the constraints behind it would say."""

    keys: str
    predicate: str
    valid: bool
    missing: sql.Composable  # the name of a foreign key whose row is not there, of a row of the archive


def _rule_index(cursor: Cursor, plan: Plan, table: str) -> _RuleIndex | None:
    cursor.execute(_RULE_INDEX, (table, plan.rule_index.name))
    found = cursor.fetchone()
    if found is None:
        return None
    cursor.execute(_REFERS, (table,))
    missing: list[sql.Composable] = [sql.SQL("NULL::text")]
    for name, schema, referenced, parts in cursor.fetchall():
        same = sql.SQL(" AND ").join(
            sql.SQL("referenced.{} {} {}").format(
                sql.Identifier(their), sql.SQL(operator), sql.Identifier(_INCOMING, our)
            )
            for our, their, operator in parts
        )
        missing.append(
            sql.SQL(
                "CASE WHEN ROW({}) IS NOT NULL AND NOT EXISTS (SELECT FROM {} AS referenced WHERE {}) THEN {} END"
            ).format(
                listed(of(_INCOMING, [our for our, _their, _operator in parts])),
                sql.Identifier(schema, referenced),
                same,
                sql.Literal(name),
            )
        )
    keys, predicate, valid = found
    return _RuleIndex(keys, predicate, valid, sql.SQL("coalesce({})").format(listed(missing)))


class Table:
    """The plan's table, as archived rows return to it.

    ``behind``: for a check that tells what will return once the rule's index is dropped. An updated row that only the
    index rejects then counts as one that returns.
    """

    def __init__(self, cursor: Cursor, plan: Plan, columns: Mapping[str, Column], *, behind: bool) -> None:
        self.plan, self.columns, self.behind = plan, columns, behind
        self.path = usual_search_path(cursor)
        key = unique_key(cursor, plan.schema, plan.table, plan.primary_key)
        if key is None:  # dropped since its columns were read
            raise unidentified(plan)
        self.key = key
        name = sql.Identifier(plan.schema, plan.table).as_string(cursor)
        self.rule_index = _rule_index(cursor, plan, name) if behind else None
        # Of a partitioned table an error names the partition, and its own index.
        self.tables = names_in_tree(cursor, plan.schema, plan.table)
        self.rule = names_in_tree(cursor, plan.schema, plan.rule_index.name)
        self.taken = names_in_tree(cursor, plan.schema, self.key.index)
        cursor.execute(_FIXED, (name,))
        self.fixed = {column for (column,) in cursor.fetchall()} | set(plan.primary_key)

    def way_of(self, shape: Mapping[str, Any]) -> Way:
        """The way of the rows that were archived with these columns and by this action."""
        return _Way(self, shape)


class _Way:
    def __init__(self, into: Table, shape: Mapping[str, Any]) -> None:
        self.into, self.update, self.names = into, shape["action"] == "update", list(shape["names"])
        self.tables: Collection[str] = into.tables
        self.own = table_name(into.plan)
        rule = "" if into.behind and self.update else "rule"
        self.judges: Mapping[str, tuple[str, str]] = {
            **dict.fromkeys(into.rule, (rule, into.plan.rule_index.name)),
            **dict.fromkeys(into.taken, ("taken", into.key.index)),
        }
        self.in_batch = sql.SQL("r.shape = {}::jsonb").format(sql.Literal(json.dumps(shape, ensure_ascii=False)))

    def barred(self) -> tuple[str, str] | None:
        lost = sorted(set(self.names) - set(self.into.columns))
        return ("column", ", ".join(lost)) if lost else None

    def write(self) -> list[sql.Composed]:
        return [self._with(_UPDATE if self.update else _INSERT, self.in_batch), self._with(_MARK, self.in_batch)]

    def write_one(self) -> sql.Composed:
        one = sql.SQL("r.id = item.id")
        plainly = self._with(
            _ONE,
            one,
            change=self._with(_UPDATE if self.update else _INSERT, one),
            mark=self._with(_MARK, one),
            update=sql.Literal(self.update),
        )
        if self.update or self.into.rule_index is None:
            return plainly
        rule, columns = self.into.rule_index, [self.into.columns[name] for name in self.names]
        writable = [
            name for name in self.names if name not in self.into.fixed and not self.into.columns[name].generated
        ]
        change = self._with(
            _INSERT_BEHIND if rule.valid else _AS_IT_IS,
            one,
            keys=sql.SQL(rule.keys),
            predicate=sql.SQL(rule.predicate),
            column=sql.Identifier((writable or self.names)[0]),
            excluded=image(columns, sql.Identifier("excluded"), sql.Literal(self.into.path)),
        )
        names = sql.Literal(list(self.into.rule))
        return self._with(_ONE_BEHIND, one, plainly=plainly, rule=names, change=change, missing=rule.missing)

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
