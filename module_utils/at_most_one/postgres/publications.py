"""Logical replication: publications that would refuse our changes, or break the subscribers of our own tables."""

from __future__ import annotations

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import Finding, observed, say
from ..plan import Plan
from .connection import Connection
from .partitions import tree

_NEWER = 150000  # row filters, column lists and publications of schemas came with PostgreSQL 15
_SLOTS = "pg_catalog.pg_replication_slots"

# A subscriber stops at the first change of a table that it does not have. Without a slot nobody is told of changes.
_CARRYING_OURS = """
SELECT p.pubname::text, p.puballtables FROM pg_catalog.pg_publication AS p
WHERE (p.pubinsert OR p.pubupdate) AND (p.puballtables OR {in_schema})
    AND EXISTS (SELECT FROM {slots} AS s WHERE s.slot_type = 'logical' AND s.database = pg_catalog.current_database())
ORDER BY 1"""
_IN_SCHEMA = """p.oid IN (
    SELECT n.pnpubid FROM pg_catalog.pg_publication_namespace AS n
    WHERE n.pnnspid = pg_catalog.to_regnamespace('at_most_one'))"""

# https://www.postgresql.org/docs/current/sql-createpublication.html: with UPDATE or DELETE published, the columns of a
# row filter must be in the replica identity, and a column list must cover it; under REPLICA IDENTITY FULL there may be
# none. Only the filter's own tree tells its columns: pg_depend holds those of the list as well.
_NARROWED = f"""
WITH planned AS (
    SELECT c.oid, c.relreplident = 'f' AS whole, (
        SELECT x.indkey::int2[] FROM pg_catalog.pg_index AS x WHERE x.indrelid = c.oid
            AND CASE c.relreplident WHEN 'd' THEN x.indisprimary ELSE x.indisreplident END) AS identity
    FROM pg_catalog.pg_class AS c
    WHERE c.oid IN {tree("pg_catalog.to_regclass(%(table)s)::oid")} AND c.relreplident <> 'n'),
narrowed AS (
    SELECT p.pubname::text, r.prattrs IS NOT NULL AND (t.whole OR NOT t.identity <@ r.prattrs::int2[]) AS by_list,
        NOT t.whole AND EXISTS (
            SELECT FROM pg_catalog.regexp_matches(r.prqual::text, ':varattno ([0-9]+)', 'g') AS filtered
            WHERE filtered[1]::int2 <> ALL (t.identity)) AS by_filter
    FROM planned AS t JOIN pg_catalog.pg_publication_rel AS r ON r.prrelid = t.oid
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
    WHERE CASE %(action)s WHEN 'delete' THEN p.pubdelete ELSE p.pubupdate END)
SELECT pubname, CASE WHEN by_list THEN 'column list' ELSE 'row filter' END FROM narrowed
WHERE by_list OR by_filter ORDER BY 1"""  # noqa: S608  (the part is a constant)


def obstacles(connection: Connection, plan: Plan) -> list[Finding]:
    """What publications of the database bar."""
    found = _carrying(connection, plan)
    if connection.server_version >= _NEWER:
        with connection.cursor() as cursor:
            table = sql.Identifier(plan.schema, plan.table).as_string(cursor)
            values = {"table": table, "action": plan.surplus.action}
            cursor.execute(_NARROWED, values)
            found += [_narrowed(plan, *row) for row in cursor.fetchall()]
    return found


def refuse_carrying(connection: Connection, plan: Plan) -> None:
    """Stop before the journal is created, whose first row would stop a subscriber already."""
    if found := _carrying(connection, plan):
        raise OperatorError.of(found)


def _carrying(connection: Connection, plan: Plan) -> list[Finding]:
    in_schema = _IN_SCHEMA if connection.server_version >= _NEWER else "false"
    with connection.cursor() as cursor:
        cursor.execute(_CARRYING_OURS.format(in_schema=in_schema, slots=_SLOTS))
        return [_ours(plan, *row) for row in cursor.fetchall() if row[0] not in plan.surplus.publications]


def _ours(plan: Plan, name: str, everything: bool) -> Finding:
    how = "FOR ALL TABLES" if everything else "FOR TABLES IN SCHEMA at_most_one"
    return Finding(
        f"publication:{name}",
        observed(
            "AMO-3116",
            "Publication {name} is {how}: it carries the journal and the archive, and a subscriber "
            "that lacks their tables stops at their first row.",
            name=name,
            how=how,
        ),
        say("a publication without the schema at_most_one, or subscribers that have its tables."),
        say(
            "publish the service's own schema instead (CREATE PUBLICATION service FOR TABLES IN "
            "SCHEMA {schema}, or before PostgreSQL 15 FOR TABLE and its tables; on every subscriber "
            "ALTER SUBSCRIPTION ... SET PUBLICATION service; then DROP PUBLICATION {name}); or "
            "create the tables on every subscriber (.venv/bin/python scripts/subscriber_tables.py | "
            "psql ...) and add to surplus in plans/{plan_id}.yml: publications: [{name}].",
            schema=plan.schema,
            name=name,
            plan_id=plan.file,
        ),
    )


def _narrowed(plan: Plan, name: str, what: str) -> Finding:
    table = f"{plan.schema}.{plan.table}"
    return Finding(
        f"publication:{name}",
        observed(
            "AMO-3117",
            "The {what} of publication {name} does not fit the replica identity of {table}: "
            "PostgreSQL refuses each {action} of a row with 42P10.",
            what=what,
            name=name,
            table=table,
            action=plan.surplus.action,
        ),
        say(
            "a row filter over columns of the replica identity, and a column list that covers it "
            "(under REPLICA IDENTITY FULL: none)."
        ),
        say(
            "for a row filter ALTER TABLE {table} REPLICA IDENTITY FULL; for a column list add the "
            "columns of the replica identity to it, or leave it out (ALTER PUBLICATION {name} SET "
            "TABLE ...); then run again.",
            table=table,
            name=name,
        ),
    )
