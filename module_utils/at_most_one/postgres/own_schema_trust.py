"""Who else has a hand in the schema at_most_one: refused where it could act as us, revoked where it could read.

Whoever may create schemas can create this one first, and a trigger, rule, policy, view or function in it runs with the
rights of the deployer. So nothing in it is used before its owners are known: the session's role, or a superuser, who
needs no trap. Membership in the owner's role is no proof of trust: before PostgreSQL 16 a role can make anybody a
member of itself.
"""

from __future__ import annotations

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import joined, observed, say
from .connection import Connection

_SHOWN = 5

# Each line: what it is, whose it is, and the statement that ends it.
_FOREIGN = """
WITH trusted AS (
    SELECT oid FROM pg_catalog.pg_roles WHERE rolsuper OR rolname = current_user
), ours AS (
    SELECT oid, nspowner, pg_catalog.quote_ident(current_user) AS us FROM pg_catalog.pg_namespace
    WHERE nspname = 'at_most_one'
), relations AS (
    SELECT c.*, pg_catalog.format('at_most_one.%I', c.relname) AS name,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
               WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind
    FROM ours JOIN pg_catalog.pg_class AS c ON c.relnamespace = ours.oid WHERE c.relkind NOT IN ('i', 'I')
), found (position, what, who, remedy) AS (
    SELECT 1, 'the schema', nspowner, 'ALTER SCHEMA at_most_one OWNER TO ' || us
    FROM ours WHERE nspowner NOT IN (SELECT oid FROM trusted)
    UNION ALL
    SELECT 2, pg_catalog.lower(kind) || ' ' || name, relowner,
        pg_catalog.format(CASE kind WHEN 'TABLE' THEN 'ALTER TABLE %2$s OWNER TO %3$s' ELSE 'DROP %1$s %2$s' END,
            kind, name, us)
    FROM relations, ours WHERE relowner NOT IN (SELECT oid FROM trusted)
        AND NOT (relkind = 'S' AND EXISTS ( -- a column's own sequence goes with its table
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = relations.oid
                AND d.deptype IN ('a', 'i')))
    UNION ALL
    SELECT 3, pg_catalog.format('function at_most_one.%I', p.proname), p.proowner,
        'DROP ROUTINE ' || p.oid::pg_catalog.regprocedure
    FROM ours JOIN pg_catalog.pg_proc AS p ON p.pronamespace = ours.oid
    WHERE p.proowner NOT IN (SELECT oid FROM trusted)
    UNION ALL
    SELECT 4, pg_catalog.format('trigger %I on %s', t.tgname, r.name), p.proowner,
        pg_catalog.format('DROP TRIGGER %I ON %s', t.tgname, r.name)
    FROM relations AS r JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    UNION ALL
    SELECT 5, pg_catalog.format('rule %I on %s', w.rulename, r.name), r.relowner,
        pg_catalog.format('DROP RULE %I ON %s', w.rulename, r.name)
    FROM relations AS r JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = r.oid
    WHERE r.relkind NOT IN ('v', 'm')
    UNION ALL
    SELECT 6, pg_catalog.format('policy %I on %s', y.polname, r.name), r.relowner,
        pg_catalog.format('DROP POLICY %I ON %s', y.polname, r.name)
    FROM relations AS r JOIN pg_catalog.pg_policy AS y ON y.polrelid = r.oid
)
SELECT what, pg_catalog.pg_get_userbyid(who)::text, remedy FROM found ORDER BY position, what"""

# The statements that give away what is in the schema, once for each of the owner's grants to others. 0 is PUBLIC.
_GRANTED = """
SELECT DISTINCT CASE o.kind WHEN 'S' THEN 'SEQUENCE' WHEN 'n' THEN 'SCHEMA' ELSE 'TABLE' END, o.name,
       CASE a.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END
FROM (
    SELECT 'n'::"char" AS kind, NULL::text AS name, nspacl AS acl, nspowner AS owner FROM pg_catalog.pg_namespace
    WHERE nspname = 'at_most_one'
    UNION ALL
    SELECT c.relkind, c.relname::text, c.relacl, c.relowner
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'at_most_one' AND c.relkind IN ('r', 'p', 'S')
) AS o, pg_catalog.aclexplode(o.acl) AS a
WHERE a.grantee <> o.owner ORDER BY 1, 2, 3"""


def refuse_foreign(connection: Connection) -> None:
    """Raise OperatorError where anything of the schema is somebody else's, or a table of it runs anything."""
    with connection.cursor() as cursor:
        cursor.execute(_FOREIGN)
        found: list[tuple[str, str, str]] = cursor.fetchall()
    if not found:
        return
    shown = [say("{what} (of {who})", what=what, who=who) for what, who, _ in found[:_SHOWN]]
    more = say(" and {count} more", count=len(found) - _SHOWN) if len(found) > _SHOWN else ""
    raise OperatorError(
        observed(
            "AMO-3115",
            "Somebody else has a hand in the schema at_most_one: {shown}{more}. It would run, or "
            "read the archived rows, with the rights of this role.",
            shown=joined(shown, ", "),
            more=more,
        ),
        expected=say(
            "a schema that is not there yet, or that is with all its tables of this role (or of a "
            "superuser), and neither trigger, rule nor policy on them."
        ),
        next_step=say(
            "read what they are; what is not yours goes by DROP SCHEMA at_most_one CASCADE, as a "
            "superuser, if no run of yours is in it; otherwise, as their owner or a superuser: "
            "{found}; then run this again. Nothing has changed.",
            found="; ".join(row[2] for row in found),
        ),
        foreign=[what for what, *_ in found],
    )


def revoke_grants(connection: Connection) -> None:
    """Take back what default privileges, or PUBLIC, gave others in the schema: the archive holds rows of people."""
    with connection.cursor() as cursor:
        cursor.execute(_GRANTED)
        for kind, name, grantee in cursor.fetchall():
            cursor.execute(
                sql.SQL("REVOKE ALL ON {} {} FROM {} CASCADE").format(
                    sql.SQL(kind),
                    sql.Identifier(*filter(None, ("at_most_one", name))),
                    sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee),
                )
            )
