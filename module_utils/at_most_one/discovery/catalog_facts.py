"""What the catalog and its statistics say of the tables that a rule may be about: a few statements, no table read.

Statistics hold values of rows. They are asked for of no column but those that :mod:`statuses` takes for a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..postgres.catalog import Cursor
from . import statuses

# Ordinary tables that are nobody's extension and no partition, that this role may read, in schemas of users.
_TABLES = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text,
       CASE WHEN c.relpages > 0 AND c.reltuples >= 0 THEN c.reltuples::float8 END,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index x
             CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
             WHERE x.indrelid = c.oid AND x.indisprimary ORDER BY k.place),
       ARRAY(SELECT g.tgname::text FROM pg_catalog.pg_trigger g
             WHERE g.tgrelid = c.oid AND NOT g.tgisinternal ORDER BY 1)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition AND c.relname <> '_prisma_migrations'
  AND n.nspname NOT IN ('information_schema', 'at_most_one') AND n.nspname !~ '^pg_'
  AND (%(schema)s IS NULL OR n.nspname = %(schema)s) AND (%(table)s IS NULL OR c.relname = %(table)s)
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2, 3
"""
_COLUMNS = """
SELECT a.attrelid::bigint, a.attname::text, pg_catalog.quote_ident(a.attname), t.typname::text, t.typtype::text,
       a.attnotnull, s.null_frac::float8, s.n_distinct::float8, s.avg_width,
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_stats s
    ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
WHERE a.attrelid = ANY (%(tables)s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attrelid, a.attnum
"""
# pg_constraint has no index by the table that is referred to: it is read once, for all of them.
_REFERENCES = """
SELECT f.confrelid::bigint, f.conname::text, s.nspname || '.' || r.relname, f.confdeltype::text
FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class r ON r.oid = f.conrelid
JOIN pg_catalog.pg_namespace s ON s.oid = r.relnamespace
WHERE f.contype = 'f' AND f.confrelid = ANY (%(tables)s) AND f.conparentid = 0
ORDER BY f.conname
"""
# A unique index over expressions has a 0 among its columns.
_UNIQUE = """
SELECT x.indrelid::bigint, x.indpred IS NOT NULL,
       ARRAY(SELECT coalesce(a.attname::text, '') FROM generate_series(0, x.indnkeyatts - 1) AS k (place)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[k.place]
             ORDER BY k.place)
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indrelid
WHERE x.indisunique AND x.indisvalid AND c.relkind = 'r' AND c.relpersistence = 'p'
"""
# Foreign keys of the tables, and checks over one column.
_CONSTRAINTS = """
SELECT k.conrelid::bigint, k.contype::text, k.confrelid = k.conrelid,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
       CASE k.contype WHEN 'c' THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid) END
FROM pg_catalog.pg_constraint k
WHERE k.conrelid = ANY (%(tables)s) AND (k.contype = 'f' OR k.contype = 'c' AND cardinality(k.conkey) = 1)
ORDER BY k.conrelid, k.conname
"""
_COMMON = """
SELECT c.oid::bigint, s.attname::text, s.most_common_vals::text::text[], s.most_common_freqs::float8[]
FROM pg_catalog.pg_stats s
JOIN pg_catalog.pg_namespace n ON n.nspname = s.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
JOIN unnest(%(tables)s::bigint[], %(columns)s::text[]) AS w (relation, name)
    ON w.relation = c.oid AND w.name = s.attname
WHERE NOT s.inherited AND s.most_common_vals IS NOT NULL
"""
_ON_DELETE = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


@dataclass
class Column:
    """A column. ``distinct`` is the number of its values, by the statistics; ``frequent`` those of a status alone."""

    name: str
    quoted: str
    type: str
    category: str  # e: an enum, b: a base type
    not_null: bool
    null_share: float | None
    distinct: float | None
    width: int | None
    labels: list[str]
    frequent: Mapping[str, float] = field(default_factory=dict)  # value to its share of the rows
    checks: tuple[str, ...] = ()  # the values that a constraint allows
    named_status: bool = False  # a text column whose name says so


@dataclass
class Table:
    """A table; ``rows`` is None where nobody has analyzed it."""

    number: int
    schema: str
    name: str
    rows: float | None
    primary_key: tuple[str, ...]
    triggers: tuple[str, ...]
    references: tuple[dict[str, str], ...] = ()  # foreign keys to it
    columns: dict[str, Column] = field(default_factory=dict)
    unique: list[tuple[frozenset[str], bool]] = field(default_factory=list)  # columns, and whether for some rows alone
    foreign_keys: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)  # columns, and whether to itself
    shared: frozenset[str] = frozenset()  # columns that another table has under this name, unique


def read(cursor: Cursor, schema: str | None, table: str | None) -> list[Table]:
    """The tables with their columns, keys and statistics."""
    cursor.execute(_TABLES, {"schema": schema, "table": table})
    tables = {row[0]: Table(row[0], row[1], row[2], row[3], tuple(row[4]), tuple(row[5])) for row in cursor.fetchall()}
    wanted = {"tables": list(tables)}
    cursor.execute(_REFERENCES, wanted)
    for number, constraint, place, on_delete in cursor.fetchall():
        tables[number].references += ({"constraint": constraint, "table": place, "on_delete": _ON_DELETE[on_delete]},)
    cursor.execute(_COLUMNS, wanted)
    for number, *facts in cursor.fetchall():
        column = Column(*facts)
        rows = tables[number].rows
        if column.distinct is not None and column.distinct < 0:  # a share of the rows
            column.distinct = None if rows is None else -column.distinct * rows
        tables[number].columns[column.name] = column
    _read_constraints(cursor, tables)
    _read_unique(cursor, tables)
    for one in tables.values():
        for column in one.columns.values():
            column.named_status = statuses.says_status(column.name, column.type, list(one.columns))
    _read_common(cursor, tables.values())
    return list(tables.values())


def _read_constraints(cursor: Cursor, tables: Mapping[int, Table]) -> None:
    cursor.execute(_CONSTRAINTS, {"tables": list(tables)})
    for number, kind, itself, columns, expression in cursor.fetchall():
        if kind == "f":
            tables[number].foreign_keys.append((tuple(columns), itself))
        elif columns[0] in tables[number].columns:
            tables[number].columns[columns[0]].checks = tuple(statuses.checked_values(expression))


def _read_unique(cursor: Cursor, tables: Mapping[int, Table]) -> None:
    """Unique indexes of every table: a column that is unique in another table refers to it, with or without a key."""
    cursor.execute(_UNIQUE)
    alone: dict[str, set[int]] = {}
    for number, partial, columns in cursor.fetchall():
        if number in tables and "" not in columns:
            tables[number].unique.append((frozenset(columns), partial))
        if len(columns) == 1 and not partial:
            alone.setdefault(columns[0], set()).add(number)
    for number, table in tables.items():
        table.shared = frozenset(name for name in table.columns if alone.get(name, set()) - {number})


def _read_common(cursor: Cursor, tables: Iterable[Table]) -> None:
    """The frequent values of status columns, and of no other."""
    wanted = [(table, column) for table in tables for column in table.columns.values() if is_status(column)]
    if wanted:
        cursor.execute(
            _COMMON,
            {"tables": [table.number for table, _ in wanted], "columns": [column.name for _, column in wanted]},
        )
        found = {(number, name): (values, shares) for number, name, values, shares in cursor.fetchall()}
        for table, column in wanted:
            values, shares = found.get((table.number, column.name), ((), ()))
            column.frequent = dict(zip(values, shares))


def is_status(column: Column) -> bool:
    """Whether a column's values may be read and named: an enum's, a constraint's, or few of a column named so."""
    few = column.distinct is None or column.distinct <= statuses.MOST_VALUES
    return column.category == "e" or bool(column.checks) or (column.named_status and few)
