"""What a change of the planned table sets off by itself: the service's triggers and rules, by name."""

from __future__ import annotations

from dataclasses import dataclass

from .table import Cursor


@dataclass(frozen=True)
class Effect:
    """A trigger or a rule: where it is, when it acts, and what it runs."""

    kind: str  # trigger | rule
    name: str
    table: str
    when: str  # BEFORE DELETE OR UPDATE FOR EACH ROW
    runs: str  # the function; for a rule what it does instead or also

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of {self.table} ({self.when}: {self.runs})"


# tgtype: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_trigger.h. Those of foreign keys are
# internal; those of the schema at_most_one are ours; disabled ones and those for replicas only do not fire.
_TRIGGERS = """
SELECT 'trigger', t.tgname::text, n.nspname || '.' || c.relname,
    CASE WHEN t.tgtype & 64 <> 0 THEN 'INSTEAD OF' WHEN t.tgtype & 2 <> 0 THEN 'BEFORE' ELSE 'AFTER' END || ' '
        || pg_catalog.concat_ws(' OR ', CASE WHEN t.tgtype & 4 <> 0 THEN 'INSERT' END,
            CASE WHEN t.tgtype & 8 <> 0 THEN 'DELETE' END, CASE WHEN t.tgtype & 16 <> 0 THEN 'UPDATE' END)
        || ' FOR EACH ' || CASE WHEN t.tgtype & 1 <> 0 THEN 'ROW' ELSE 'STATEMENT' END,
    s.nspname || '.' || p.proname
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
    AND t.tgtype & 28 <> 0 AND s.nspname <> 'at_most_one'"""

_RULES = """
SELECT 'rule', r.rulename::text, n.nspname || '.' || c.relname,
    'ON ' || CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' WHEN '4' THEN 'DELETE' ELSE 'SELECT' END,
    CASE WHEN r.is_instead THEN 'does something instead' ELSE 'does something also' END
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s"""


def of_table(cursor: Cursor, schema: str, table: str) -> list[Effect]:
    """The user triggers and the rules of a table that react to a change of its rows."""
    cursor.execute(f"{_TRIGGERS} UNION ALL {_RULES} ORDER BY 1, 2", {"schema": schema, "table": table})
    return [Effect(*row) for row in cursor.fetchall()]
