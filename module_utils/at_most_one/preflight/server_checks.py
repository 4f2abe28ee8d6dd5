"""What must be true of the server before anything is changed: reads only, and names every obstacle at once."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from typing import Any

from ..errors import OperatorError
from ..findings import Finding, observed, say
from ..plan import Plan
from ..postgres import partitions, publications
from ..postgres.connection import Connection, Login, connect
from ..postgres.partitions import tree
from ..system.strict_zip import strict_zip

OLDEST_SERVER = 130000  # server_version_num
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
# At once, besides the one that asks: for the work, for Prisma or pg_dump, to renew the lease, and to try whether the
# server still answers.
CONNECTIONS = 4
_ROUNDS = 3  # one tells when nobody else uses the pool; others may take a backend and bring it back in between


@dataclass(frozen=True)
class Limits:
    """When the server counts as too busy. Seconds."""

    transaction_age_s: int
    replication_lag_s: int


def read(connection: Connection, plan: Plan, limits: Limits) -> dict[str, Any]:
    """The server's facts. Raises OperatorError with every obstacle found, not only the first.

    Ends the connection's transaction, if it is in one, and opens a second connection for an instant.
    """
    connection.rollback()  # a transaction sees the sessions that there were at its first look
    left = _connections_left(connection)  # the second connection is counted for a moment after it was closed
    facts = {
        "pooled": _pooled(connection),
        **_server(connection),
        "connections_left": left,
        "tables": _tables(connection, plan),
        "long_transactions": _long_transactions(connection, limits.transaction_age_s),
    }
    obstacles = [*_server_obstacles(facts, limits), *_table_obstacles(connection, facts["tables"], plan)]
    obstacles += publications.obstacles(connection, plan)
    if obstacles:
        raise OperatorError.of(obstacles, facts=facts)
    return facts


def _pooled(connection: Connection) -> bool:
    """Whether statements reach the server through a pooler in transaction mode, and one that passes settings on.

    Such a pooler gives a backend to whoever sends the next statement, be it the one that came back last or the one that
    has rested longest. So of two connections that rest in between, one sees the other's backend, or its own changes as
    soon as it asks twice in a row. A direct connection keeps its own, and so does a pooler in session mode.
    """
    connection.rollback()
    info = connection.info
    tls = {name: info.dsn_parameters[name] for name in _TLS if name in info.dsn_parameters}
    with connect(Login(info.host, info.port, info.dbname, info.user, info.password, **tls)) as other:
        asked = [connection, other, other] * _ROUNDS
        seen = {(one is other, _backend(one)) for one in asked}
    return len(seen) > 2 or len({backend for _, backend in seen}) < 2


def weak_tls(login: Login) -> Finding | None:
    """A finding where the connection leaves this machine, and whoever answers there is believed."""
    if login.sslmode == "verify-full" or not login.host or login.host.startswith("/"):
        return None
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(login.host).is_loopback:
            return None
    if login.host == "localhost":
        return None
    return Finding(
        "tls",
        observed(
            "AMO-2345",
            "The connection to {host} does not prove which server it is: database_sslmode is {sslmode}.",
            host=login.host,
            sslmode=login.sslmode,
        ),
        say("verify-full, since the password and the rows go over a network."),
        say(
            "put the certificate of the provider's authority on the gateway host, name it in database_sslrootcert, set "
            "database_sslmode to verify-full, and try: psql 'host={host} port={port} dbname={dbname} user={user} "
            "sslmode=verify-full sslrootcert=FILE' -c 'SELECT 1'",
            **{name: getattr(login, name) for name in ("host", "port", "dbname", "user")},
        ),
    )


def _backend(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
    connection.rollback()  # rests from here
    return int(pid)


def _server(connection: Connection) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                   pg_catalog.pg_is_in_recovery(),
                   coalesce(pg_catalog.has_schema_privilege(to_regnamespace('at_most_one'), 'CREATE'), false)
                       OR pg_catalog.has_database_privilege(current_database(), 'CREATE'),
                   pg_catalog.has_database_privilege(current_database(), 'TEMPORARY'),
                   pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'),
                   current_setting('default_transaction_read_only') = 'on' AND NOT pg_catalog.pg_is_in_recovery(),
                   (SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float FROM pg_catalog.pg_stat_replication)
            """
        )
        row = cursor.fetchone()
    assert row is not None  # noqa: S101  (a SELECT without FROM has exactly one row)
    return {
        "version_num": row[0],
        "version": row[1],
        "in_recovery": row[2],
        "may_create_schema": row[3],
        "may_create_temporary": row[4],
        # Without pg_read_all_stats other roles' transactions and replicas are not shown: unknown, not none.
        "sees_other_roles": row[5],
        "user": connection.info.user,
        "writes_forbidden": row[6],  # on a primary; a standby is one whatever the setting says
        "replication_lag_s": round(row[7], 1) if row[5] else None,
    }


# Autovacuum's workers have no user. reserved_connections came with PostgreSQL 16. No limit stops a superuser.
_CONNECTIONS_LEFT = """
WITH sessions AS (
    SELECT datid, usesysid FROM pg_catalog.pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL)
SELECT r.rolconnlimit - (SELECT pg_catalog.count(*) FROM sessions WHERE usesysid = r.oid),
    d.datconnlimit - (SELECT pg_catalog.count(*) FROM sessions WHERE datid = d.oid),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int
        - (SELECT pg_catalog.count(*) FROM sessions),
    r.rolconnlimit < 0, d.datconnlimit < 0
FROM pg_catalog.pg_roles AS r, pg_catalog.pg_database AS d
WHERE r.rolname = session_user AND NOT r.rolsuper AND d.datname = current_database()"""


def _connections_left(connection: Connection) -> dict[str, int]:
    """How many more connections the role, the database and the server take; without those that have no limit."""
    with connection.cursor() as cursor:
        cursor.execute(_CONNECTIONS_LEFT)
        row = cursor.fetchone()
    if row is None:
        return {}
    of_role, of_database, of_server, any_of_role, any_of_database = row
    left = {"role": None if any_of_role else of_role, "database": None if any_of_database else of_database}
    return {name: int(count) for name, count in {**left, "server": of_server}.items() if count is not None}


PARTITIONED = say("partitioned table")
_KINDS = {
    "r": "table",
    "p": PARTITIONED,
    "v": "view",
    "m": say("materialized view"),
    "f": say("foreign table"),
}
_TABLE_FACTS = (
    "kind",
    "rows",
    "bytes",
    "owned",
    "parent",
    "has_children",
    "published",
    "identified",
    "columns",
    "policed",
)


def _tables(connection: Connection, plan: Plan) -> dict[str, dict[str, Any]]:
    """By name, each table of the plan: kind, estimated rows, bytes, columns, and whether this role owns it."""
    names = sorted({plan.table, *(index.table for index in plan.indexes)})
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.relname, c.relkind,
                   (SELECT coalesce(sum(greatest(t.reltuples, 0)), 0)::bigint FROM pg_catalog.pg_class t
                     WHERE t.oid IN {tree} AND t.relkind <> 'p'),
                   (SELECT sum(pg_catalog.pg_total_relation_size(t.oid))::bigint FROM unnest(ARRAY{tree}) AS t (oid)),
                   pg_catalog.pg_has_role(c.relowner, 'MEMBER'),
                   (SELECT p.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
                     WHERE i.inhrelid = c.oid LIMIT 1),
                   EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
                   ARRAY(SELECT DISTINCT p.pubname::text
                           FROM pg_catalog.pg_publication_tables l JOIN pg_catalog.pg_publication p USING (pubname)
                           JOIN pg_catalog.pg_class t ON t.relname = l.tablename
                           JOIN pg_catalog.pg_namespace s ON s.oid = t.relnamespace AND s.nspname = l.schemaname
                          WHERE t.oid IN {tree}
                            AND CASE %(action)s WHEN 'delete' THEN p.pubdelete ELSE p.pubupdate END ORDER BY 1),
                   NOT EXISTS (SELECT FROM pg_catalog.pg_class t WHERE t.oid IN {tree} AND t.relkind = 'r'
                       AND t.relreplident <> 'f' AND NOT EXISTS (
                           SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = t.oid AND x.indisvalid
                              AND x.indimmediate
                              AND CASE t.relreplident WHEN 'd' THEN x.indisprimary ELSE x.indisreplident END)),
                   ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
                   pg_catalog.row_security_active(c.oid)
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
            """.replace("{tree}", tree("c.oid")),
            {"schema": plan.schema, "names": names, "action": plan.surplus.action},
        )
        found = {name: dict(strict_zip(_TABLE_FACTS, (_KINDS[kind], *row))) for name, kind, *row in cursor}
    return {name: found.get(name, {}) for name in names}


def _long_transactions(connection: Connection, older_than_s: int) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT pid, usename::text, application_name, state, extract(epoch FROM clock_timestamp() - xact_start)::int
              FROM pg_catalog.pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_catalog.pg_backend_pid()
               AND backend_type = 'client backend'
               AND xact_start < clock_timestamp() - make_interval(secs => %s)
             ORDER BY xact_start
            """,
            (older_than_s,),
        )
        return [dict(strict_zip(("pid", "user", "application", "state", "age_s"), row)) for row in cursor.fetchall()]


def _server_obstacles(facts: dict[str, Any], limits: Limits) -> list[Finding]:
    obstacles = []
    if facts["version_num"] < OLDEST_SERVER:
        obstacles.append(
            Finding(
                "version",
                observed("AMO-2319", "The server is PostgreSQL {version}.", version=facts["version"]),
                say("PostgreSQL 13 or later."),
                say("upgrade the server first."),
            )
        )
    if facts["pooled"]:
        obstacles.append(
            Finding(
                "pooler",
                observed(
                    "AMO-2320",
                    "This connection goes through a pooler in transaction mode: changing backends answer its "
                    "statements.",
                ),
                say("a connection to the server itself: locks and settings of a session must stay with it."),
                say("give database_host and database_port the server's own address; the application keeps its pooler."),
            )
        )
    if facts["in_recovery"]:
        obstacles.append(
            Finding(
                "standby",
                observed("AMO-2321", "The server is a standby (in recovery)."),
                say("the primary."),
                say("point database_host at the primary."),
            )
        )
    if facts["writes_forbidden"]:
        obstacles.append(
            Finding(
                "read_only",
                observed(
                    "AMO-2354",
                    "default_transaction_read_only is on in the sessions of {user}, so that a run could write nothing.",
                    user=facts["user"],
                ),
                say("off, PostgreSQL's default, where a run is to write."),
                say(
                    "ask who has set it: it says that nobody shall write. Then see where it is set, and reset it: psql "
                    "-c '\\drds'; ALTER ROLE {user} RESET default_transaction_read_only, or ALTER DATABASE the same; "
                    "where neither has it, postgresql.conf or a login event trigger (psql -c '\\dy') does. Then run "
                    "the same again.",
                    user=facts["user"],
                ),
            )
        )
    if not facts["may_create_schema"]:
        obstacles.append(
            Finding(
                "schema_privilege",
                observed("AMO-2322", "This role may not create a schema in the database."),
                say("the CREATE privilege on the database, for the schema at_most_one (journal, archive, fence)."),
                say(
                    "as the database's owner: GRANT CREATE ON DATABASE to it, or create the schema with it "
                    "as the owner."
                ),
            )
        )
    if not facts["may_create_temporary"]:
        obstacles.append(
            Finding(
                "temporary_privilege",
                observed("AMO-2347", "This role may not create temporary tables in the database."),
                say("the TEMPORARY privilege: the list of the rows that leave is kept in such a table."),
                say("as the database's owner: GRANT TEMPORARY ON DATABASE to it."),
            )
        )
    whose = {"role": say("the role"), "database": say("the database"), "server": say("the server")}
    obstacles += [
        Finding(
            f"connections:{name}",
            observed(
                "AMO-2346",
                "Of {whose}, {left} more connections are allowed at the moment.",
                whose=whose[name],
                left=max(0, left),
            ),
            say(
                "{needed} at least: for the work, for Prisma or pg_dump, to renew the run's lease, and to try whether "
                "the server still answers. In the middle of a run, a refused one would stop it.",
                needed=CONNECTIONS,
            ),
            say(
                "end sessions that nobody needs, or give the application's pool fewer while it is deployed; otherwise "
                "raise the limit (ALTER ROLE or ALTER DATABASE ... CONNECTION LIMIT, max_connections)."
            ),
        )
        for name, left in facts["connections_left"].items()
        if left < CONNECTIONS
    ]
    if (facts["replication_lag_s"] or 0) > limits.replication_lag_s:
        obstacles.append(
            Finding(
                "replication_lag",
                observed(
                    "AMO-2323",
                    "A replica lags {replication_lag_s} s behind.",
                    replication_lag_s=facts["replication_lag_s"],
                ),
                say("at most {replication_lag_s} s.", replication_lag_s=limits.replication_lag_s),
                say("wait until the replica has caught up, then run again."),
            )
        )
    obstacles += [
        Finding(
            f"transaction:{t['pid']}",
            observed(
                "AMO-2324",
                "A transaction of {user} (pid {pid}, {state}) has been open for {age_s} s.",
                user=t["user"],
                pid=t["pid"],
                state=t["state"],
                age_s=t["age_s"],
            ),
            say(
                "none older than {transaction_age_s} s: locks and index builds wait for it.",
                transaction_age_s=limits.transaction_age_s,
            ),
            say("let it end, or ask its owner; then run again."),
        )
        for t in facts["long_transactions"]
    ]
    return obstacles


def _partition_obstacles(connection: Connection, tables: dict[str, dict[str, Any]], plan: Plan) -> list[Finding]:
    """Unique indexes of the plan that PostgreSQL cannot have over all partitions of their table."""
    found = []
    for index in plan.indexes:
        if not index.unique or tables[index.table].get("kind") != PARTITIONED:
            continue
        key = [key.column for key in index.keys if key.column]
        if why := partitions.obstacle(connection, plan.schema, index.table, key):
            found.append(
                Finding(
                    f"partitions:{index.name}",
                    observed(
                        "AMO-2353",
                        "No unique index {index} can hold over all of {schema}.{table}: {why}.",
                        index=index.name,
                        schema=plan.schema,
                        table=index.table,
                        why=why,
                    ),
                    say("a key that has every column by which the table and its partitions are partitioned."),
                    say(
                        "add those columns to the key in plans/{plan_id}.yml if the rule may be meant so; otherwise "
                        "the table has to be partitioned by columns of the key. Nothing was changed.",
                        plan_id=plan.file,
                    ),
                )
            )
    return found


def _table_obstacles(connection: Connection, tables: dict[str, dict[str, Any]], plan: Plan) -> list[Finding]:
    obstacles: list[Finding] = []
    fix = say("correct plans/{plan_id}.yml or database_name; no other schema was looked at.", plan_id=plan.file)
    for name, table in tables.items():
        if not table:
            obstacles.append(
                Finding(
                    f"table:{name}",
                    observed("AMO-2325", "There is no table {schema}.{name}.", schema=plan.schema, name=name),
                    say("every table of the plan."),
                    fix,
                )
            )
            continue
        if not table["owned"]:
            obstacles.append(
                Finding(
                    f"owner:{name}",
                    observed("AMO-2326", "This role does not own {schema}.{name}.", schema=plan.schema, name=name),
                    say("a member of the owning role: only an owner may create indexes and triggers."),
                    say("use the owner's login as database_user."),
                )
            )
        elif table["policed"]:
            obstacles.append(
                Finding(
                    f"row_security:{name}",
                    observed(
                        "AMO-2348",
                        "Row level security of {schema}.{name} is forced on its owner too, so that this role may not "
                        "see every row.",
                        schema=plan.schema,
                        name=name,
                    ),
                    say("a role that sees every row: what it does not see is not counted, archived or backed up."),
                    say(
                        "use a login with BYPASSRLS as database_user; or, as the owner: ALTER TABLE {schema}.{name} NO "
                        "FORCE ROW LEVEL SECURITY.",
                        schema=plan.schema,
                        name=name,
                    ),
                )
            )
        if table["kind"] not in ("table", PARTITIONED):
            obstacles.append(
                Finding(
                    f"table:{name}",
                    observed(
                        "AMO-2327", "{schema}.{name} is a {kind}.", schema=plan.schema, name=name, kind=table["kind"]
                    ),
                    say("an ordinary or a partitioned table."),
                    fix,
                )
            )
    obstacles += _partition_obstacles(connection, tables, plan)
    if table := tables[plan.table]:
        obstacles += _rule_table_obstacles(table, plan, fix)
    return obstacles


def _rule_table_obstacles(table: dict[str, Any], plan: Plan, fix: str) -> list[Finding]:
    """Of the table that the rule is about: relatives, replication, columns."""
    name = f"{plan.schema}.{plan.table}"
    obstacles: list[Finding] = []
    if table["parent"] and table["kind"] == "table":
        obstacles.append(
            Finding(
                "parent",
                observed("AMO-2328", "{name} is a part of {parent}.", name=name, parent=table["parent"]),
                say("a table whose rows are all of the rule's."),
                fix,
            )
        )
    if table["has_children"] and table["kind"] == "table":
        obstacles.append(
            Finding(
                "children",
                observed("AMO-2329", "Other tables inherit from {name}.", name=name),
                say("a table whose rows are all its own."),
                fix,
            )
        )
    if table["published"] and not table["identified"]:
        obstacles.append(
            Finding(
                "replica_identity",
                observed(
                    "AMO-2330",
                    "{name} is published ({published}) and has no replica identity: PostgreSQL refuses each "
                    "{action} of a row with 55000.",
                    name=name,
                    published=", ".join(table["published"]),
                    action=plan.surplus.action,
                ),
                say("a replica identity, or no publication of it."),
                say("give it one (ALTER TABLE ... REPLICA IDENTITY USING INDEX, or FULL), then run again."),
            )
        )
    needed = {*plan.primary_key, *plan.key, *plan.show, *(k.column for k in plan.keep), *plan.surplus.values}
    if missing := sorted(needed - set(table["columns"])):
        obstacles.append(
            Finding(
                "columns",
                observed("AMO-2331", "{name} has no column {missing}.", name=name, missing=", ".join(missing)),
                say("every column of the plan."),
                fix,
            )
        )
    return obstacles
