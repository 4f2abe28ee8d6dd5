"""Which operator a unique index compares a column with: for conditions that have to mean the same.

Names are resolved by the catalog, never by a search_path: ``=`` of a citext column in a schema of its own would
silently become the one of text.
"""

from __future__ import annotations

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..plan import Plan
from ..postgres.catalog import Cursor

# {compatible}: PostgreSQL would pass a value of type t to something declared for that type without converting it.
_COMPATIBLE = """({type} = t.oid OR EXISTS (
    SELECT FROM pg_catalog.pg_cast AS k WHERE k.castsource = t.oid AND k.casttarget = {type}
        AND k.castmethod = 'b' AND k.castcontext = 'i')
    OR {type} = CASE t.typtype WHEN 'e' THEN to_regtype('anyenum') ELSE {containers} END)"""
_CONTAINERS = """CASE WHEN t.typcategory = 'A' THEN to_regtype('anyarray')
    WHEN t.typtype = 'c' THEN to_regtype('record') WHEN t.typtype = 'r' THEN to_regtype('anyrange')
    WHEN t.typtype = 'm' THEN to_regtype('anymultirange') END"""

# Which operator class an index takes by default: GetDefaultOpClass() in src/backend/commands/indexcmds.c. Where two
# would do, the column has no index.
_EQUALITY = f"""
WITH RECURSIVE typed AS (
    SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = pg_catalog.to_regclass(%(table)s) AND a.attname = %(column)s
    UNION ALL
    SELECT d.typbasetype FROM typed JOIN pg_catalog.pg_type AS d ON d.oid = typed.atttypid)
SELECT s.nspname, o.oprname
FROM typed JOIN pg_catalog.pg_type AS t ON t.oid = typed.atttypid AND t.typtype <> 'd'
CROSS JOIN LATERAL (
    SELECT c.opcfamily, c.opcintype
    FROM pg_catalog.pg_opclass AS c JOIN pg_catalog.pg_am AS m ON m.oid = c.opcmethod
    JOIN pg_catalog.pg_type AS i ON i.oid = c.opcintype
    WHERE m.amname = 'btree' AND {_COMPATIBLE.format(type="c.opcintype", containers=_CONTAINERS)} AND c.opcdefault
    ORDER BY c.opcintype = t.oid DESC, i.typispreferred AND i.typcategory = t.typcategory DESC LIMIT 1
) AS class
JOIN pg_catalog.pg_amop AS e ON e.amopfamily = class.opcfamily AND e.amopstrategy = 3
    AND e.amoplefttype = class.opcintype AND e.amoprighttype = class.opcintype
JOIN pg_catalog.pg_operator AS o ON o.oid = e.amopopr JOIN pg_catalog.pg_namespace AS s ON s.oid = o.oprnamespace
"""  # noqa: S608  (every part is a constant of this file)


def equality(cursor: Cursor, plan: Plan, column: str) -> sql.Composable:
    """The qualified ``=`` of the operator class that an index on this column of the plan's table takes by default."""
    schema, name = _default(cursor, plan, column)
    return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(name))


def _default(cursor: Cursor, plan: Plan, column: str) -> tuple[str, str]:
    table = sql.Identifier(plan.schema, plan.table).as_string(cursor)
    cursor.execute(_EQUALITY, {"table": table, "column": column})
    ((schema, name),) = cursor.fetchall()
    return schema, name


# Families of operator classes that call other values equal than the type's default class does: record_image_ops, or an
# extension's own. PARTITION BY, GROUP BY and foreign keys know only the default.
_NAMED = """
SELECT s.nspname, o.oprname
FROM pg_catalog.pg_opclass AS c JOIN pg_catalog.pg_am AS m ON m.oid = c.opcmethod
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.opcnamespace
JOIN pg_catalog.pg_amop AS e ON e.amopfamily = c.opcfamily AND e.amopstrategy = 3
    AND e.amoplefttype = c.opcintype AND e.amoprighttype = c.opcintype
JOIN pg_catalog.pg_operator AS o ON o.oid = e.amopopr JOIN pg_catalog.pg_namespace AS s ON s.oid = o.oprnamespace
WHERE m.amname = 'btree' AND c.opcname = %(name)s AND n.nspname = coalesce(%(schema)s, 'pg_catalog')
"""


def refuse_other_equality(cursor: Cursor, plan: Plan) -> None:
    """Raise OperatorError unless the rule's index calls the same values equal as the rows are grouped by."""
    for key in plan.rule_index.keys:
        if key.opclass and key.column:
            schema, _, name = key.opclass.rpartition(".")
            cursor.execute(_NAMED, {"name": name, "schema": schema or None})
            named = cursor.fetchall()
            default = _default(cursor, plan, key.column)
            if named and named != [default]:
                raise OperatorError(
                    observed(
                        "AMO-3204",
                        "Index {rule_index} of plan {plan_id} compares {column} with {named} of {opclass}; the "
                        "column's type does with {default}.",
                        rule_index=plan.rule_index.name,
                        plan_id=plan.id,
                        column=key.column,
                        named=".".join(named[0]),
                        opclass=key.opclass,
                        default=".".join(default),
                    ),
                    expected=say(
                        "an operator class that calls the same values equal as the column's type does: "
                        "duplicates are found by that."
                    ),
                    next_step=say(
                        "leave opclass out of the index in plans/{plan_id}.yml, or add a generated column whose type "
                        "compares as you need, and make that the key.",
                        plan_id=plan.file,
                    ),
                )
