"""The planned table as the catalog describes it, a transaction on it, and its errors in the operator's words.

Any package that uses the database may import it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import Phrase, filled, observed, say
from ..plan import Plan
from . import locks, partitions, server_errors
from .connection import Connection

Cursor = psycopg2.extensions.cursor
Row = list[str]  # one row's primary key: the text of its parts, in the plan's order

READING = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
WRITING = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"


@dataclass(frozen=True)
class Column:
    """A live column. A cast to ``type`` resolves with an empty search_path; ``type`` carries no length, ``declared``
    does."""

    name: str
    type: str
    declared: str
    generated: bool
    needs_search_path: bool = False  # its text names objects, with or without their schema: regclass and its like
    binary: bool = True  # every part of its type can be sent in binary form


class LockNotObtained(OperatorError):
    """A lock was not obtained within lock_timeout; ``details.blockers`` are the sessions that hold one on the table."""


def table_name(plan: Plan) -> str:
    """The planned table, for a person."""
    return f"{plan.schema}.{plan.table}"


def predicate_sql(plan: Plan) -> sql.SQL:
    """The plan's predicate, the only plan text that becomes SQL as it stands: a plan is reviewed like code.

    For statements that are executed with parameters: psycopg2 then turns the doubled percent signs back. The line break
    ends a comment in the predicate.
    """
    return sql.SQL("(" + plan.predicate.replace("%", "%%") + "\n)")


def without_null_keys(plan: Plan) -> sql.Composed:
    """``AND ... IS NOT NULL`` for each key column: to a unique index NULLs are distinct, unless it says otherwise."""
    if plan.rule_index.nulls_not_distinct:
        return sql.Composed([])
    return sql.Composed([sql.SQL(" AND {} IS NOT NULL").format(sql.Identifier(plan.table, key)) for key in plan.key])


@contextlib.contextmanager
def transaction(connection: Connection, mode: str, plan: Plan) -> Iterator[Cursor]:
    """One transaction of its own: needs an idle connection and leaves an idle one. ``mode`` is READING or WRITING.

    The block's errors of psycopg2 come out as OperatorError.
    """
    status = connection.info.transaction_status
    if status == psycopg2.extensions.TRANSACTION_STATUS_UNKNOWN:  # while nobody listened, as between two transactions
        raise psycopg2.OperationalError("the server has closed the connection")
    if connection.autocommit or status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
        raise ValueError("needs an idle connection without autocommit")
    committing = False
    try:
        with connection.cursor() as cursor:
            cursor.execute(mode)
            yield cursor
        committing = True
        connection.commit()
    except psycopg2.errors.LockNotAvailable as failure:
        raise lock_not_obtained(connection, plan, failure) from failure
    except psycopg2.Error as failure:
        raise explain(failure, plan, committing=committing) from failure
    finally:
        with contextlib.suppress(psycopg2.Error):  # the connection may be gone: then the server rolls back
            connection.rollback()


def lock_not_obtained(connection: Connection, plan: Plan, failure: psycopg2.Error) -> LockNotObtained:
    """The operator's form of a lock_timeout, with who holds locks on the table. Leaves an idle connection."""
    connection.rollback()
    blockers = locks.holders(connection, plan.schema, [plan.table])
    connection.rollback()
    return LockNotObtained(
        observed(
            "AMO-3101",
            "{table}: a lock was not obtained in time; {sessions}.{undone}",
            table=table_name(plan),
            sessions=locks.describe(blockers),
            undone=NOTHING_WRITTEN,
        ),
        expected=say("a lock within lock_timeout_ms."),
        next_step=say("wait for those sessions or end them, then run this again."),
        sqlstate=failure.pgcode,
        blockers=blockers,
    )


NOTHING_WRITTEN = say(" Nothing was written.")
_NOTHING_LEFT = say("; nothing was written")


def undone(seen: str) -> str:
    """What was seen, without that nothing was written: for work of which a part was committed before."""
    if isinstance(seen, Phrase) and seen.values.get("undone") in (NOTHING_WRITTEN, _NOTHING_LEFT):
        return filled(seen, undone="")
    return seen


# By SQLSTATE or its class: what was expected, what to do. https://www.postgresql.org/docs/current/errcodes-appendix.html
_EXPLANATIONS = {
    "57014": (
        say("an answer within statement_timeout_ms."),
        say("raise statement_timeout_ms, or see what the server is busy with."),
    ),
    "42501": (say("a role that may do this and that sees every row."), say("connect as the owner of the table.")),
    "40": (say("no deadlock."), say("run this again.")),
    "42": (say("a plan that fits this database."), say("compare the plan's names and its predicate with the table.")),
    "22": (say("primary keys that the columns accept."), say("compare the given rows with the table.")),
    "23": (say("rows that break no constraint."), say("look at the named constraint, then run this again.")),
    "54": (
        say("rows and keys within the server's limits: a row enters the archive as at most 256 MB of text."),
        say("find the row that is larger and take it out of the rule as the application does, then run this again."),
    ),
    "57": (say("a connection that lasts."), say("check the server, then run this again.")),
    "08": (say("a connection that lasts."), say("check the server, then run this again.")),
}


def explain(failure: psycopg2.Error, plan: Plan, *, committing: bool = False) -> OperatorError:
    """The operator's form of a database error: without a DETAIL that may hold row values."""
    code = failure.pgcode or "08000"  # no SQLSTATE: the connection broke
    expected, next_step = (
        _EXPLANATIONS.get(code) or _EXPLANATIONS.get(code[:2]) or (say("no error."), say("see the server's log."))
    )
    said = server_errors.explain(failure, expected, next_step)
    unknown = committing and code[:2] in ("08", "57")
    left = say("; whether it was committed is unknown") if unknown else _NOTHING_LEFT
    constraint = failure.diag.constraint_name
    return OperatorError(
        observed(
            "AMO-3102",
            "{table}: {message} (SQLSTATE {code}){undone}.",
            table=table_name(plan),
            message=said.message,
            code=code,
            undone=left,
        ),
        expected=said.expected,
        next_step=said.next_step,
        sqlstate=code,
        **({"constraint": constraint} if constraint else {}),
    )


# reset_val is ours, because it is set at connect: what another session of this role gets is stored in the catalog, or
# is what PostgreSQL itself begins with.
_SEARCH_PATH = """
SELECT coalesce(
    (SELECT pg_catalog.substr(setting, 13)
     FROM pg_catalog.pg_db_role_setting AS s, unnest(s.setconfig) AS setting
     WHERE setting LIKE 'search_path=%' AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database
           WHERE datname = pg_catalog.current_database()))
       AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user))
     ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
    '"$user", public')
"""


def usual_search_path(cursor: Cursor) -> str:
    """What a session of this role usually gets, pg_catalog first: the application's triggers count on it.

    A search_path in postgresql.conf itself is not seen, for want of the right to read that file.
    """
    cursor.execute(_SEARCH_PATH)
    ((path,),) = cursor.fetchall()
    return f"pg_catalog, {path}" if path.strip() else "pg_catalog"


_RELATION = """
SELECT c.oid, c.relkind,
    c.relkind <> 'p' AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid),
    (SELECT p.relname FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
     WHERE i.inhrelid = c.oid LIMIT 1),
    (SELECT pg_catalog.string_agg(r.rulename, ', ' ORDER BY r.rulename)
     FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_ATTRIBUTES = """
WITH RECURSIVE inside AS (  -- the column's type, and what arrays, domains, ranges and rows are made of
    SELECT attnum, atttypid AS type FROM pg_catalog.pg_attribute
    WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
    UNION
    SELECT i.attnum, p.type FROM inside AS i JOIN pg_catalog.pg_type AS t ON t.oid = i.type
    CROSS JOIN LATERAL (
        SELECT t.typelem UNION SELECT t.typbasetype
        UNION SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE r.rngtypid = t.oid
        UNION SELECT a.atttypid FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0
    ) AS p (type) WHERE p.type <> 0
)
SELECT attname, pg_catalog.format_type(atttypid, -1), pg_catalog.format_type(atttypid, atttypmod),
    attgenerated <> '', attnotnull,
    EXISTS (SELECT FROM inside AS i JOIN pg_catalog.pg_type AS t ON t.oid = i.type
            WHERE i.attnum = c.attnum AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
                AND t.typname ~ '^reg[a-z]+$'),
    NOT EXISTS (SELECT FROM inside AS i JOIN pg_catalog.pg_type AS t ON t.oid = i.type
                WHERE i.attnum = c.attnum AND t.typsend = 0)
FROM pg_catalog.pg_attribute AS c WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_UNIQUE_KEYS = """
SELECT pg_catalog.array_agg(a.attname::text)
FROM pg_catalog.pg_index AS x
JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = x.indrelid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])  -- without what it INCLUDEs
WHERE x.indrelid = %s AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL
  AND x.indexprs IS NULL
GROUP BY x.indexrelid
"""
_KINDS = {
    "r": say("other tables inherit from it"),
    "v": say("it is a view"),
    "m": say("it is a materialized view"),
    "f": say("it is a foreign table"),
    "S": say("it is a sequence"),
}


def columns_of(cursor: Cursor, plan: Plan) -> Mapping[str, Column]:
    """The planned table's columns by name, in order. Raises OperatorError unless the plan fits the table.

    It fits when it is an ordinary table without parent or children, or a partitioned one over which the rule's index
    can hold; when it has every column that the plan names, and its primary key is NOT NULL, unique and immediate:
    otherwise "this row" would not mean one row.
    """
    cursor.execute(_RELATION, (plan.schema, plan.table))
    found = cursor.fetchone()
    if found is None:
        raise _unfit(plan, say("there is no such table"), say("the table that the plan names"))
    oid, kind, has_children, parent, rules = found
    if parent is not None:
        raise _unfit(
            plan,
            say("it is a part of {parent}, whose other rows the rule would miss", parent=parent),
            say("a table of its own"),
        )
    if kind not in ("r", "p") or has_children:
        raise _unfit(plan, _KINDS.get(kind, say("it is no table")), say("an ordinary table of its own"))
    if kind == "p" and (why := partitions.obstacle(cursor.connection, plan.schema, plan.table, plan.key)):
        raise _unfit(plan, why, say("a rule whose key has the columns that the table is partitioned by"))
    if rules:
        raise _unfit(
            plan,
            say("it has the rule {rules} (CREATE RULE), which could divert what is written", rules=rules),
            say("no rules"),
        )
    cursor.execute(_ATTRIBUTES, {"table": oid})
    attributes = cursor.fetchall()
    columns = {
        name: Column(name, type_, declared, generated, named, binary)
        for name, type_, declared, generated, _, named, binary in attributes
    }
    percent = [name for name in (plan.schema, plan.table, *columns) if "%" in name]
    if percent:
        raise _unfit(plan, say("the name {percent} holds a percent sign", percent=percent[0]), say("names without one"))
    named = [*plan.primary_key, *plan.key, *(sort.column for sort in plan.keep), *plan.show]
    missing = sorted(set(named) - set(columns))
    if missing:
        raise _unfit(
            plan, say("it has no column {missing}", missing=", ".join(missing)), say("every column that the plan names")
        )
    cursor.execute(_UNIQUE_KEYS, (oid,))
    unique = any(set(names) == set(plan.primary_key) for (names,) in cursor.fetchall())
    nullable = {name for name, *_, not_null, _, _ in attributes if not not_null} & set(plan.primary_key)
    if not unique or nullable:
        raise unidentified(plan)
    return columns


def unidentified(plan: Plan) -> OperatorError:
    """Says that no unique index is there by which the plan's primary key means one row."""
    return _unfit(
        plan,
        say("({primary_key}) does not identify a row", primary_key=", ".join(plan.primary_key)),
        say("the table's own primary key"),
    )


def _unfit(plan: Plan, seen: str, expected: str) -> OperatorError:
    return OperatorError(
        observed("AMO-3103", "{table} of plan {plan_id}: {seen}.", table=table_name(plan), plan_id=plan.id, seen=seen),
        expected=say("{expected}.", expected=expected),
        next_step=say("correct plans/{plan_id}.yml, or the database that this inventory points to.", plan_id=plan.file),
        plan=plan.id,
        table=table_name(plan),
    )
