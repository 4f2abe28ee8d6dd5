"""How the rule's unique index will compare its key, and a lock that equal keys share: the ground under the fence.

The index compares with the equality of its operator class, under its collation. The lock is made of the hash functions
of exactly that equality (a hash operator family that holds the same operator), so it is right for citext, numeric and
nondeterministic collations, where equal keys have different texts. Of some types (date, timestamptz, boolean, bytea)
SQL may not call that function before PostgreSQL 18; from 14 on the server does it for a row of the one column. A column
whose type has none (bit, arrays, ...) is left out of the lock: fewer keys then differ in it, and when no column is left
one lock serves the whole plan. Writers may wait more, none ever less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2 import sql

from .plan import Plan
from .table import Cursor

# {compatible}: PostgreSQL would pass a value of type t to something declared for that type without converting it.
_COMPATIBLE = """({type} = t.oid OR EXISTS (
    SELECT FROM pg_catalog.pg_cast AS k WHERE k.castsource = t.oid AND k.casttarget = {type}
        AND k.castmethod = 'b' AND k.castcontext = 'i')
    OR {type} = CASE t.typtype WHEN 'e' THEN to_regtype('anyenum') ELSE {containers} END)"""
_CONTAINERS = """CASE WHEN t.typcategory = 'A' THEN to_regtype('anyarray')
    WHEN t.typtype = 'c' THEN to_regtype('record') WHEN t.typtype = 'r' THEN to_regtype('anyrange')
    WHEN t.typtype = 'm' THEN to_regtype('anymultirange') END"""

# Which operator class an index takes by default: GetDefaultOpClass() in src/backend/commands/indexcmds.c.
_KEY_COLUMNS = f"""
WITH RECURSIVE typed AS (
    SELECT a.attname, a.atttypid FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = pg_catalog.to_regclass(%(table)s) AND a.attname = %(column)s
    UNION ALL
    SELECT typed.attname, d.typbasetype FROM typed JOIN pg_catalog.pg_type AS d ON d.oid = typed.atttypid
    WHERE d.typtype = 'd')
SELECT pg_catalog.quote_ident(typed.attname), operator_schema.nspname, o.oprname, hashing.nspname, hashing.proname,
    coalesce(hashing.direct, false), coalesce(class.opcintype = t.oid, false)
FROM typed JOIN pg_catalog.pg_type AS t ON t.oid = typed.atttypid AND t.typtype <> 'd'
LEFT JOIN LATERAL (
    SELECT c.opcfamily, c.opcintype
    FROM pg_catalog.pg_opclass AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.opcnamespace
    JOIN pg_catalog.pg_am AS m ON m.oid = c.opcmethod JOIN pg_catalog.pg_type AS i ON i.oid = c.opcintype
    WHERE m.amname = 'btree' AND {_COMPATIBLE.format(type="c.opcintype", containers=_CONTAINERS)}
        AND CASE WHEN %(opclass)s::text IS NULL THEN c.opcdefault
            ELSE %(opclass)s IN (c.opcname, pg_catalog.concat(n.nspname, '.', c.opcname)) END
    ORDER BY c.opcintype = t.oid DESC, i.typispreferred DESC, n.nspname = 'pg_catalog' DESC, c.oid LIMIT 1
) AS class ON true
LEFT JOIN pg_catalog.pg_amop AS e ON e.amopfamily = class.opcfamily AND e.amopstrategy = 3
    AND e.amoplefttype = class.opcintype AND e.amoprighttype = class.opcintype
LEFT JOIN pg_catalog.pg_operator AS o ON o.oid = e.amopopr
LEFT JOIN pg_catalog.pg_namespace AS operator_schema ON operator_schema.oid = o.oprnamespace
LEFT JOIN LATERAL (
    SELECT n.nspname, p.proname, {_COMPATIBLE.format(type="p.proargtypes[0]", containers="NULL")} AS direct
    FROM pg_catalog.pg_amop AS h JOIN pg_catalog.pg_am AS m ON m.oid = h.amopmethod
    JOIN pg_catalog.pg_amproc AS f ON f.amprocfamily = h.amopfamily AND f.amprocnum = 2
        AND f.amproclefttype = h.amoplefttype AND f.amprocrighttype = h.amoprighttype
    JOIN pg_catalog.pg_proc AS p ON p.oid = f.amproc JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE m.amname = 'hash' AND h.amopopr = o.oid AND h.amoplefttype = h.amoprighttype
    ORDER BY direct DESC, h.amopfamily LIMIT 1
) AS hashing ON true
"""  # noqa: S608  (every part is a constant of this file)


# What hashes a row with its columns' own functions, and since which server version.
_HASH_OF_ROW, _SINCE = ("pg_catalog", "hash_record_extended"), 140_000


@dataclass(frozen=True)
class KeyColumn:
    """A column of the rule's key. ``printed`` is its name as PostgreSQL prints it in the DETAIL of an error."""

    name: str
    printed: str
    operator: tuple[str, str] | None  # schema and name of the index's equality
    hashing: tuple[str, str] | None  # schema and name of its 64-bit hash function
    collation: str | None  # the planned index's own

    def equal(self, one: sql.Composable, other: sql.Composable) -> sql.Composed:
        """``one = other`` as the index will compare them; NULL when one of them is."""
        operator: sql.Composable = sql.SQL("=")
        if self.operator:
            schema, name = self.operator
            operator = sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(name))
        return sql.SQL("{}{} {} {}").format(one, self._collate(), operator, other)

    def hashed(self, value: sql.Composable, seed: int) -> sql.Composed:
        """The bigint that equal values share; 0 for NULL. Only with ``hashing``."""
        if self.hashing is None:
            raise ValueError(f"{self.name} has no hash function")
        row = sql.SQL("ROW" if self.hashing == _HASH_OF_ROW else "")
        return sql.SQL("coalesce({}({}({}{}), {}), 0)").format(
            sql.Identifier(*self.hashing), row, value, self._collate(), sql.Literal(seed)
        )

    def _collate(self) -> sql.Composable:
        if self.collation is None:
            return sql.SQL("")
        return sql.SQL(" COLLATE {}").format(sql.Identifier(*self.collation.split(".")))


def key_columns(cursor: Cursor, plan: Plan) -> Mapping[str, KeyColumn]:
    """The columns of the plan's key by name, in its order, as the catalog and the planned index describe them."""
    declared = {key.column: key for key in plan.rule_index.keys}
    table = sql.Identifier(plan.schema, plan.table).as_string(cursor)
    columns = {}
    for name in plan.key:
        index_key = declared.get(name)
        opclass, collation = (index_key.opclass, index_key.collation) if index_key else (None, None)
        cursor.execute(_KEY_COLUMNS, {"table": table, "column": name, "opclass": opclass})
        ((printed, *found, direct, own_class),) = cursor.fetchall()
        operator, hashing = ((schema, its) if its else None for schema, its in (found[:2], found[2:]))
        if hashing and not direct:
            hashing = _HASH_OF_ROW if own_class and cursor.connection.server_version >= _SINCE else None
        columns[name] = KeyColumn(name, printed, operator, hashing, collation)
    return columns


def lock_number(plan: Plan, columns: Mapping[str, KeyColumn]) -> sql.Composed:
    """The bigint to lock for the row NEW: the same for equal keys; for others different, but for the left out."""
    hashes = [
        column.hashed(sql.SQL("NEW.{}").format(sql.Identifier(name)), _seed(plan, name))
        for name, column in columns.items()
        if column.hashing
    ]
    return sql.SQL(" OPERATOR(pg_catalog.#) ").join(hashes or [sql.SQL("{}").format(sql.Literal(_seed(plan, "")))])


def _seed(plan: Plan, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{plan.id}\0{name}".encode()).digest()[:8], signed=True)
