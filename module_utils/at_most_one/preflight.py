"""What must be true of the server before anything is changed: reads only, and names every obstacle at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .database import Connection
from .errors import OperatorError
from .plan import Plan

OLDEST_SERVER = 140000  # server_version_num; the write fence needs it


@dataclass(frozen=True)
class Limits:
    """When the server counts as too busy. Seconds."""

    transaction_age_s: int
    replication_lag_s: int


def read(connection: Connection, plan: Plan, limits: Limits) -> dict[str, Any]:
    """The server's facts. Raises OperatorError with every obstacle found, not only the first."""
    facts = {
        **_server(connection),
        "tables": _tables(connection, plan),
        "long_transactions": _long_transactions(connection, limits.transaction_age_s),
    }
    obstacles = [*_server_obstacles(facts, limits), *_table_obstacles(facts["tables"], plan)]
    if obstacles:
        raise OperatorError(
            " ".join(seen for seen, _, _ in obstacles),
            expected=" ".join(expected for _, expected, _ in obstacles),
            next_step=" ".join(dict.fromkeys(step for _, _, step in obstacles)),
            facts=facts,
        )
    return facts


def _server(connection: Connection) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                   pg_catalog.pg_is_in_recovery(),
                   coalesce(pg_catalog.has_schema_privilege(to_regnamespace('at_most_one'), 'CREATE'), false)
                       OR pg_catalog.has_database_privilege(current_database(), 'CREATE'),
                   pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'),
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
        # Without pg_read_all_stats other roles' transactions and replicas are not shown: unknown, not none.
        "sees_other_roles": row[4],
        "replication_lag_s": round(row[5], 1) if row[4] else None,
    }


def _tables(connection: Connection, plan: Plan) -> dict[str, dict[str, Any]]:
    """By name, each table of the plan: kind, estimated rows, bytes, columns, and whether this role owns it."""
    names = sorted({plan.table, *(index.table for index in plan.indexes)})
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.relname, c.relkind, greatest(c.reltuples, 0)::bigint, pg_catalog.pg_total_relation_size(c.oid),
                   pg_catalog.pg_has_role(c.relowner, 'MEMBER'),
                   ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = %s AND c.relname = ANY (%s) AND c.relkind IN ('r', 'p')
            """,
            (plan.schema, names),
        )
        found = {
            name: {"kind": kind, "rows": rows, "bytes": size, "owned": owned, "columns": columns}
            for name, kind, rows, size, owned, columns in cursor
        }
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
        return [
            dict(zip(("pid", "user", "application", "state", "age_s"), row, strict=True)) for row in cursor.fetchall()
        ]


_Obstacle = tuple[str, str, str]  # seen, expected, next step


def _server_obstacles(facts: dict[str, Any], limits: Limits) -> list[_Obstacle]:
    obstacles = []
    if facts["version_num"] < OLDEST_SERVER:
        obstacles.append(
            (f"The server is PostgreSQL {facts['version']}.", "PostgreSQL 14 or later.", "upgrade the server first.")
        )
    if facts["in_recovery"]:
        obstacles.append(
            ("The server is a standby (in recovery).", "the primary.", "point database_host at the primary.")
        )
    if not facts["may_create_schema"]:
        obstacles.append(
            (
                "This role may not create a schema in the database.",
                "the CREATE privilege on the database, for the schema at_most_one (journal, archive, fence).",
                "as the database's owner: GRANT CREATE ON DATABASE to it, or create the schema with it as the owner.",
            )
        )
    if (facts["replication_lag_s"] or 0) > limits.replication_lag_s:
        obstacles.append(
            (
                f"A replica lags {facts['replication_lag_s']} s behind.",
                f"at most {limits.replication_lag_s} s.",
                "wait until the replica has caught up, then run again.",
            )
        )
    obstacles += [
        (
            f"A transaction of {t['user']} (pid {t['pid']}, {t['state']}) has been open for {t['age_s']} s.",
            f"none older than {limits.transaction_age_s} s: locks and index builds wait for it.",
            "let it end, or ask its owner; then run again.",
        )
        for t in facts["long_transactions"]
    ]
    return obstacles


def _table_obstacles(tables: dict[str, dict[str, Any]], plan: Plan) -> list[_Obstacle]:
    obstacles: list[_Obstacle] = []
    fix = f"correct plans/{plan.id}.yml or database_name; no other schema was looked at."
    for name, table in tables.items():
        if not table:
            obstacles.append((f"There is no table {plan.schema}.{name}.", "every table of the plan.", fix))
            continue
        if not table["owned"]:
            obstacles.append(
                (
                    f"This role does not own {plan.schema}.{name}.",
                    "a member of the owning role: only an owner may create indexes and triggers.",
                    "use the owner's login as database_user.",
                )
            )
    if table := tables[plan.table]:
        needed = {*plan.primary_key, *plan.key, *plan.show, *(k.column for k in plan.keep), *plan.surplus.values}
        if missing := sorted(needed - set(table["columns"])):
            obstacles.append(
                (f"{plan.schema}.{plan.table} has no column {', '.join(missing)}.", "every column of the plan.", fix)
            )
    return obstacles
