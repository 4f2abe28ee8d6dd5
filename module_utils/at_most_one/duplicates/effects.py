"""What a change of the planned table sets off by itself, by name: triggers, rules, event triggers, foreign keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import Phrase, joined, observed, say
from ..plan import Plan
from ..postgres.catalog import NOTHING_WRITTEN, Cursor, table_name
from ..postgres.connection import TEXT_SETTINGS
from ..postgres.partitions import tree
from ..verdicts import word


@dataclass(frozen=True)
class Effect:
    """A trigger, rule, event trigger or foreign key: where it is, when it acts, and what it runs."""

    kind: str  # trigger | rule | event trigger | foreign key
    name: str
    table: str
    when: str  # BEFORE DELETE OR UPDATE FOR EACH ROW
    runs: str  # the function; otherwise what it does

    def __str__(self) -> str:
        return str(self.phrase)

    @property
    def phrase(self) -> Phrase:
        """The effect as a part of a message."""
        return say(
            "{kind} {name} of {table} ({when}: {runs})",
            kind=word(self.kind),
            name=self.name,
            table=word(self.table),
            when=self.when,
            runs=word(self.runs),
        )


def in_words(found: Iterable[Effect]) -> Phrase:
    """The effects as a part of a message; empty without any."""
    return joined(effect.phrase for effect in found)


# A partition's own row triggers act too; those that it has of its table (tgparentid) are that one's. tgtype:
# https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_trigger.h. Those of foreign keys are
# internal; those of the schema at_most_one are ours; disabled ones and those for replicas only do not fire.
_TRIGGERS = f"""
SELECT 'trigger', t.tgname::text, n.nspname || '.' || c.relname,
    CASE WHEN t.tgtype & 64 <> 0 THEN 'INSTEAD OF' WHEN t.tgtype & 2 <> 0 THEN 'BEFORE' ELSE 'AFTER' END || ' '
        || pg_catalog.concat_ws(' OR ', CASE WHEN t.tgtype & 4 <> 0 THEN 'INSERT' END,
            CASE WHEN t.tgtype & 8 <> 0 THEN 'DELETE' END, CASE WHEN t.tgtype & 16 <> 0 THEN 'UPDATE' END)
        || ' FOR EACH ' || CASE WHEN t.tgtype & 1 <> 0 THEN 'ROW' ELSE 'STATEMENT' END,
    s.nspname || '.' || p.proname
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace
WHERE t.tgrelid IN {tree("pg_catalog.to_regclass(%(relation)s)::oid")} AND t.tgparentid = 0
    AND (t.tgtype & 1 <> 0 OR t.tgrelid = pg_catalog.to_regclass(%(relation)s)::oid)
    AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
    AND t.tgtype & %(events)s <> 0 AND t.tgtype & %(level)s = 0 AND s.nspname <> 'at_most_one'"""  # noqa: S608  (the part is a constant)

_RULES = """
SELECT 'rule', r.rulename::text, n.nspname || '.' || c.relname,
    'ON ' || CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' WHEN '4' THEN 'DELETE' ELSE 'SELECT' END,
    CASE WHEN r.is_instead THEN 'does something instead' ELSE 'does something also' END
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(%(relation)s)"""


# The commands of a run that an event trigger can be fired by. Whatever else it is fired by is no business of a run.
TAGS = (
    "ALTER TABLE",
    "COMMENT",
    "CREATE INDEX",
    "CREATE SCHEMA",
    "CREATE TABLE",
    "CREATE TABLE AS",
    "DROP INDEX",
    "DROP TABLE",
    "GRANT",
    "REVOKE",
)
_EVENT_TRIGGERS = """
SELECT 'event trigger', e.evtname::text, 'the database',
    e.evtevent || coalesce(' ' || pg_catalog.array_to_string(e.evttags, ', '), ''), s.nspname || '.' || p.proname
FROM pg_catalog.pg_event_trigger AS e
JOIN pg_catalog.pg_proc AS p ON p.oid = e.evtfoid JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace
WHERE e.evtenabled IN ('O', 'A') AND e.evtevent IN ('ddl_command_start', 'ddl_command_end', 'sql_drop')
    AND (e.evttags IS NULL OR e.evttags && %s::text[])
ORDER BY 2"""

# A removed row takes those along that point to it, and theirs; a key that is updated takes along those that follow it.
_FOREIGN_KEYS = f"""
WITH RECURSIVE reached AS (
    SELECT f.oid, f.conrelid, 1 AS depth FROM pg_catalog.pg_constraint AS f
    WHERE f.conparentid = 0 AND f.confrelid IN {tree("pg_catalog.to_regclass(%(relation)s)::oid")}
        AND CASE %(action)s WHEN 'delete' THEN f.confdeltype IN ('c', 'n', 'd') ELSE f.confupdtype IN ('c', 'n', 'd')
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = f.confrelid
                AND a.attnum = ANY (f.confkey) AND a.attname = ANY (%(columns)s::text[])) END
    UNION
    SELECT f.oid, f.conrelid, r.depth + 1 FROM reached AS r
    JOIN pg_catalog.pg_constraint AS up ON up.oid = r.oid AND up.confdeltype = 'c'
    JOIN pg_catalog.pg_constraint AS f ON f.confrelid = r.conrelid
        AND f.conparentid = 0 AND f.confdeltype IN ('c', 'n', 'd')
    WHERE %(action)s = 'delete' AND r.depth < 20)
SELECT DISTINCT ON (r.depth, f.conname, n.nspname, c.relname)
    'foreign key', f.conname::text, n.nspname || '.' || c.relname,
    CASE %(action)s WHEN 'delete' THEN 'ON DELETE' ELSE 'ON UPDATE' END,
    CASE CASE %(action)s WHEN 'delete' THEN f.confdeltype ELSE f.confupdtype END
        WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END, n.nspname, c.relname, r.depth
FROM reached AS r JOIN pg_catalog.pg_constraint AS f ON f.oid = r.oid
JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY r.depth, f.conname, n.nspname, c.relname"""  # noqa: S608  (the part is a constant)

INSERT, _DELETE, UPDATE = 4, 8, 16
_ANY_LEVEL, _STATEMENT_LEVEL = 0, 1


def of_table(
    cursor: Cursor, schema: str, table: str, events: int = INSERT | _DELETE | UPDATE, level: int = _ANY_LEVEL
) -> list[Effect]:
    """The user triggers and the rules of a table that react to a change of its rows."""
    relation = sql.Identifier(schema, table).as_string(cursor)
    values = {"relation": relation, "events": events, "level": level}
    cursor.execute(f"{_TRIGGERS} UNION ALL {_RULES} ORDER BY 1, 2", values)
    return [Effect(*row) for row in cursor.fetchall()]


# What a removal knows of its rows, at one moment: the columns that it archives, and what acts on rows that leave: the
# triggers and rules of the table, and the foreign keys that change who refers to it. Whoever creates, changes or
# enables any of it needs a lock on the table that a transaction which has written to it keeps from others.
KNOWN = f"""(
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(kind, name, of_table, acts, runs)), '[]')
    FROM ({_TRIGGERS} UNION ALL {_RULES}
        UNION ALL SELECT kind, name, of_table, acts, runs FROM ({_FOREIGN_KEYS})
            AS key (kind, name, of_table, acts, runs, in_schema, in_table, depth) WHERE depth = 1
        UNION ALL SELECT 'column', a.attname::text, n.nspname || '.' || c.relname, 'type',
            pg_catalog.format_type(a.atttypid, NULL)
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE a.attrelid = pg_catalog.to_regclass(%(relation)s) AND a.attnum > 0 AND NOT a.attisdropped)
        AS found (kind, name, of_table, acts, runs))"""  # noqa: S608  (the parts are constants)


def known_values(cursor: Cursor, plan: Plan) -> dict[str, Any]:
    """The parameters of :data:`KNOWN`."""
    return {
        "relation": sql.Identifier(plan.schema, plan.table).as_string(cursor),
        "events": _DELETE if plan.surplus.action == "delete" else UPDATE,
        "level": _ANY_LEVEL,
        "action": plan.surplus.action,
        "columns": list(plan.surplus.values),
    }


def known(cursor: Cursor, plan: Plan) -> frozenset[Effect]:
    """What there is of it now. Read before anything is decided by it, it is what a batch compares with."""
    cursor.execute(f"SELECT {KNOWN}", known_values(cursor, plan))
    ((found,),) = cursor.fetchall()
    return frozenset(Effect(*one) for one in found)


def refuse_new(plan: Plan, now: Iterable[Effect], before: Collection[Effect]) -> None:
    """Stop if there is something that was not there when the removal began: nobody has asked what it does to the
    rows, and the values of a new column are not archived."""
    new = sorted((one for one in now if one not in before), key=str)
    if new:
        raise OperatorError(
            observed(
                "AMO-3219",
                "Something of {table} was created, changed or enabled after its rows had begun to leave: {new}."
                "{undone}",
                table=table_name(plan),
                new=in_words(new),
                undone=NOTHING_WRITTEN,
            ),
            expected=say(
                "the columns, triggers, rules and foreign keys of the beginning: what else belongs to a row, or is done"
                " to others with it, is neither archived nor taken back."
            ),
            next_step=say("run this again: it begins with what is there now, and asks what that does."),
            effects=[str(effect) for effect in new],
        )


def of_plan(cursor: Cursor, plan: Plan) -> tuple[list[Effect], list[Effect]]:
    """What the removal, the update, the index build and the restore set off, and the foreign keys that would act.

    The latter are apart, because with action delete they have nothing to act on: the removal stops at a row that
    another one points to. A statement trigger of their tables fires even so.
    """
    deleting = plan.surplus.action == "delete"
    found = of_table(cursor, plan.schema, plan.table, _DELETE | INSERT if deleting else UPDATE)
    cursor.execute(
        _FOREIGN_KEYS,
        {
            "relation": sql.Identifier(plan.schema, plan.table).as_string(cursor),
            "action": plan.surplus.action,
            "columns": list(plan.surplus.values),
        },
    )
    acting = [(Effect(*row[:5]), *row[5:]) for row in cursor.fetchall()]
    for _, schema, table, depth in acting:
        if depth == 1:
            found += of_table(cursor, schema, table, _DELETE | UPDATE, _STATEMENT_LEVEL)
    if deleting and plan.surplus.references == "repoint":
        for schema, table in referring(cursor, plan):
            found += of_table(cursor, schema, table, UPDATE)
    cursor.execute(_EVENT_TRIGGERS, (list(TAGS),))
    found += [Effect(*row) for row in cursor.fetchall()]
    return list(dict.fromkeys(found)), list(dict.fromkeys(effect for effect, *_ in acting))


_REFERRING = f"""
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_constraint AS f
JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.conparentid = 0 AND f.confrelid IN {tree("pg_catalog.to_regclass(%(relation)s)::oid")} ORDER BY 1, 2
"""  # noqa: S608  (the part is a constant)


def referring(cursor: Cursor, plan: Plan) -> list[tuple[str, str]]:
    """The tables with a foreign key into the plan's, as (schema, table)."""
    cursor.execute(_REFERRING, {"relation": sql.Identifier(plan.schema, plan.table).as_string(cursor)})
    return cursor.fetchall()


_CHANGED = """
SELECT pg_catalog.array_agg(name ORDER BY name) FROM (
    SELECT name FROM unnest(%s::text[], %s::text[]) AS ours (name, value)
    WHERE pg_catalog.current_setting(name) <> value
    UNION ALL
    SELECT 'session_replication_role' WHERE pg_catalog.current_setting('session_replication_role') = 'replica'
    UNION ALL
    SELECT 'track_counts' WHERE pg_catalog.current_setting('track_counts') = 'off'
) AS changed"""


def refuse_changed_settings(cursor: Cursor, plan: Plan) -> None:
    """Stop if a trigger has changed what the text of a value depends on: rows are archived and compared as text, and
    what is written under one setting may not be read under another."""
    cursor.execute(_CHANGED, (list(TEXT_SETTINGS), list(TEXT_SETTINGS.values())))
    ((names,),) = cursor.fetchall()
    if names:
        raise OperatorError(
            observed(
                "AMO-3217",
                "What rows of {table} set off changes settings of the session: {names}. Found on the table: {found}.",
                table=table_name(plan),
                names=", ".join(names),
                found=in_words(of_table(cursor, plan.schema, plan.table)) or say("no trigger"),
            ),
            expected=say(
                "the settings to be as before once a row has left: rows are archived as text, which they shape."
            ),
            next_step=say(
                "let the function have its own settings, which end with it (ALTER FUNCTION ... SET {name} = ...), or "
                "disable it for as long as the run lasts; then run this again. Nothing was written.",
                name=names[0],
            ),
        )


def require_counts(cursor: Cursor, plan: Plan) -> None:
    """Stop unless the server counts what a transaction writes, which :func:`written` reads: only a superuser can say
    that it shall not, for a role, a database or all of them."""
    cursor.execute("SELECT pg_catalog.current_setting('track_counts'), session_user::text")
    ((counts, user),) = cursor.fetchall()
    if counts == "off":
        raise OperatorError(
            observed(
                "AMO-3218",
                "track_counts is off in the sessions of {user}: the server does not count the rows that a transaction "
                "writes, so that nothing tells what triggers write when rows of {table} leave or return.",
                user=user,
                table=table_name(plan),
            ),
            expected=say("on, PostgreSQL's default."),
            next_step=say(
                "see where it is set, then reset it: psql -c '\\drds'; as a superuser, ALTER ROLE {user} RESET "
                "track_counts, or ALTER DATABASE the same; where neither has it, it is off in postgresql.conf, and "
                "autovacuum needs it, too. Then run this again.",
                user=user,
            ),
        )


Written = dict[tuple[str, str], int]  # (schema, table) to rows

# TRUNCATE counts no rows; its lock, which only TRUNCATE and DDL take, lasts as long as the transaction. What is written
# to a partition is written to its table. Large objects are rows of two tables of the catalog.
_WRITTEN = """
SELECT n.nspname, c.relname, pg_catalog.sum(rows)::bigint FROM (
    SELECT coalesce(pg_catalog.pg_partition_root(relid)::oid, relid), n_tup_ins + n_tup_upd + n_tup_del
    FROM pg_catalog.pg_stat_xact_user_tables
    UNION ALL
    SELECT relid, n_tup_ins + n_tup_upd + n_tup_del FROM pg_catalog.pg_stat_xact_sys_tables
    WHERE relname IN ('pg_largeobject', 'pg_largeobject_metadata')
    UNION ALL
    SELECT coalesce(pg_catalog.pg_partition_root(c.oid::regclass)::oid, c.oid), 1 FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.mode = 'AccessExclusiveLock' AND c.relkind = 'r'
) AS written (relation, rows)
JOIN pg_catalog.pg_class AS c ON c.oid = relation JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname <> 'at_most_one' AND n.nspname !~ '^pg_temp' AND rows > 0 GROUP BY 1, 2"""


def written(cursor: Cursor, before: Written | None = None) -> Written:
    """How many rows of each table this transaction has written since ``before``, an earlier answer in it.

    One more if it emptied the table. Without the tables that are ours. Without ``before`` there may be rows of the
    session's last transactions among them, because the server passes such figures on about once a second.
    """
    cursor.execute(_WRITTEN)
    counts = {(schema, table): count - (before or {}).get((schema, table), 0) for schema, table, count in cursor}
    return {table: count for table, count in counts.items() if count}


# The rows that this transaction has written, by schema.table.
_COUNTED = """(
    SELECT coalesce(pg_catalog.jsonb_object_agg(name, rows), '{{}}') FROM (
        SELECT schemaname || '.' || relname AS name, rows FROM ({written}) AS w (schemaname, relname, rows)) AS counted
    WHERE {condition})"""


def guard(cursor: Cursor, plan: Plan, *, only_own: bool) -> sql.Composed:
    """The SQL expression for what is written to tables that the plan does not name; ``only_own``: to its own."""
    condition = sql.SQL("name = {}").format(sql.Literal(table_name(plan)))
    if not only_own:
        counted = {table_name(plan), *(f"{schema}.{table}" for schema, table in referring(cursor, plan))}
        allowed = sorted({*plan.surplus.writes} - counted)
        condition = sql.SQL("name <> ALL ({}::text[])").format(sql.Literal(allowed))
    return sql.SQL(_COUNTED).format(written=sql.SQL(_WRITTEN), condition=condition)


def besides(cursor: Cursor, plan: Plan, wrote: Written) -> list[str]:
    """Those of the tables that neither the removal nor the restore writes itself."""
    repointing = plan.surplus.action == "delete" and plan.surplus.references == "repoint"
    own = {(plan.schema, plan.table), *(referring(cursor, plan) if repointing else ())}
    return [f"{schema}.{table}" for schema, table in sorted(set(wrote) - own)]


def refuse_other_rows(cursor: Cursor, plan: Plan, wrote: Written, removed: int) -> None:
    """Stop if the removal has changed other rows of the table besides."""
    own = (plan.schema, plan.table)
    if (count := wrote.get(own, 0)) != removed:
        raise OperatorError(
            observed(
                "AMO-3202",
                "The removal of {removed} rows changed {changed} rows of {table}: {by}.",
                removed=removed,
                changed=count,
                table=table_name(plan),
                by=in_words(of_table(cursor, *own)),
            ),
            expected=say("no other row of the table to change with them: it would not come back."),
            next_step=say("disable what changes it for as long as the run lasts, then run this again."),
        )


def refuse_writes(plan: Plan, tables: list[str]) -> None:
    """Stop unless the plan allows triggers to write to these tables."""
    unknown = [table for table in tables if table not in plan.surplus.writes]
    if unknown:
        raise OperatorError(
            observed(
                "AMO-3203",
                "When rows leave {table} or return, triggers write to {unknown}.",
                table=table_name(plan),
                unknown=", ".join(unknown),
            ),
            expected=say("no other table to change: what is written there is neither archived nor taken back."),
            next_step=say(
                "disable the trigger for as long as the run lasts; or, if those rows may stay as they "
                "are then, add to surplus in plans/{plan_id}.yml: writes: [{tables}].",
                plan_id=plan.file,
                tables=", ".join(tables),
            ),
            tables=unknown,
        )
