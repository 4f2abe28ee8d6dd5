"""Prisma's own history, read for what it really says, and ``prisma migrate deploy``, judged by exit code and catalog.

What a row of ``_prisma_migrations`` means: finished_at set and rolled_back_at not: applied; neither set: failed, and
every later deploy stops with P3009; rolled_back_at set: as if it had never run, the next deploy applies it again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from psycopg2 import sql
from psycopg2.extras import RealDictCursor

from ..errors import OperatorError
from ..findings import Phrase, filled, observed, say
from ..postgres.connection import Connection
from ..verdicts import word
from .files import Migration

# `migrate deploy` holds this session advisory lock for its whole run; a second one gives up after 10 s with P1002.
ADVISORY_LOCK = 72_707_369


@dataclass(frozen=True)
class Row:
    """One attempt as Prisma recorded it; a migration may have several."""

    id: str
    migration_name: str
    checksum: str
    started_at: datetime
    finished_at: datetime | None
    rolled_back_at: datetime | None
    applied_steps_count: int
    logs: str | None

    @property
    def applied(self) -> bool:
        """Prisma will not run it again."""
        return self.finished_at is not None and self.rolled_back_at is None

    @property
    def failed(self) -> bool:
        """Prisma stops every deploy with P3009 because of it."""
        return self.finished_at is None and self.rolled_back_at is None


@dataclass(frozen=True)
class Built:
    """What the database holds: exactly the planned indexes or not, the planned names that are taken, the duplicates."""

    exact: bool
    existing: tuple[str, ...]
    duplicates: int


@dataclass(frozen=True)
class Verdict:
    """Where the plan's migration stands: one word, its one repair, and what else keeps a deploy from being plain."""

    verdict: str
    repair: Phrase
    pending: tuple[str, ...]  # names that `migrate deploy` would apply, in its order
    failed: tuple[str, ...]  # other migrations that failed: each stops every deploy
    unknown: tuple[str, ...]  # applied migrations that the release does not hold
    row: Row | None  # the last attempt at the plan's migration


# One entry for each verdict; docs/prisma-history.md has the same ones with how each is recognised.
_REPAIRS = {
    "absent_table": say(
        "there is no _prisma_migrations in the plan's schema: check its key schema; a database that was "
        "never managed by Prisma needs a baseline first (`prisma migrate resolve --applied` for each "
        "earlier migration).",
    ),
    "pending": say(
        "none: the migrate phase applies it.",
    ),
    "applied": say(
        "none.",
    ),
    "applied_without_indexes": say(
        "Prisma would say there is nothing to apply: ansible-playbook deploy.yml -l <environment> builds "
        "what is missing, when the migration does nothing else; otherwise ansible-playbook rollback.yml -l "
        "<environment> drops what is left and marks the row rolled back, then deploy again; by hand, only "
        "when none of the planned indexes is there, the row is marked with {mark}",
        mark="{mark}",
    ),
    "failed": say(
        "every deploy by hand stops with P3009; the migrate phase marks the row rolled back by itself once "
        "nothing of the migration is there, then applies it again. By hand: {mark}",
        mark="{mark}",
    ),
    "failed_with_indexes": say(
        "the indexes are there, the history says failed: the migrate phase records it as applied when the "
        "migration does nothing else; otherwise ansible-playbook rollback.yml -l <environment>, then "
        "deploy again; or `prisma migrate resolve --applied` if you know that nothing else of the "
        "migration is missing.",
    ),
    "rolled_back": say(
        "none: the migrate phase applies it again.",
    ),
    "edited": say(
        "migration.sql of this release is not the one that was applied: put the applied file back from "
        "git; a change belongs in a new migration.",
    ),
    "ahead": say(
        "the database has migrations that this release does not hold: deploy the release that brought "
        "them, or one that is newer; `prisma migrate status` may end well until then. Where they were squashed "
        "into another migration on purpose, their rows have to go first.",
    ),
    "earlier_pending": say(
        "apply the earlier migrations with the release they came with; this plan answers for its own.",
    ),
    "earlier_failed": say(
        "every deploy stops with P3009 because of {failed}. Compare its migration.sql with the database. "
        "If nothing of it is there: cd {release} && node_modules/.bin/prisma migrate resolve --rolled-back "
        "{failed}; if all of it is there, the same with --applied in the place of --rolled-back; if a part "
        "is there, complete that part or take it back by hand first. DATABASE_URL has to be set as the "
        "application has it. Then ansible-playbook deploy.yml -l <environment>.",
        failed="{failed}",
        release="{release}",
    ),
}


def read_history(connection: Connection, schema: str) -> tuple[Row, ...] | None:
    """Every row of ``_prisma_migrations``, oldest first; ``None`` when the schema has no such table."""
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(
            "SELECT true FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = '_prisma_migrations' AND c.relkind IN ('r', 'p')",
            (schema,),
        )
        if cursor.fetchone() is None:
            return None
        cursor.execute(
            sql.SQL(
                "SELECT id, migration_name, checksum, started_at, finished_at, rolled_back_at, applied_steps_count,"
                " logs FROM {} ORDER BY started_at, id"
            ).format(sql.Identifier(schema, "_prisma_migrations"))
        )
        return tuple(Row(**row) for row in cursor.fetchall())


# Verdicts that the catalog's indexes have no part in.
BLOCKED_BEFORE = ("absent_table", "ahead", "earlier_pending", "earlier_failed")


# Verdicts that no phase of a deployment repairs: whoever sees one before the first row is removed stops there.
NEEDS_A_PERSON = (*BLOCKED_BEFORE, "edited")


def judge(
    history: Sequence[Row] | None, migrations: Sequence[Migration] | None, name: str, indexes_exact: bool | None
) -> Verdict:
    """The verdict on migration ``name``, from the history, the release's migrations and the catalog's indexes.

    ``indexes_exact`` says whether the catalog holds exactly the planned indexes; ``None``: not known, believe the
    history. Without ``migrations`` nothing can be edited or earlier. Raises OperatorError when the release does not
    hold the migration.
    """
    own_file = next((migration for migration in migrations or () if migration.name == name), None)
    if migrations is not None and own_file is None:
        raise OperatorError(
            observed("AMO-3712", "The release holds no migration {name}.", name=name),
            expected=say(
                "prisma/migrations/{name}/migration.sql among its {count} migrations.", name=name, count=len(migrations)
            ),
            next_step=say("check `migration` in the plan and that the release is the commit that brings it."),
            migration=name,
        )
    rows = history or ()
    applied = {row.migration_name for row in rows if row.applied}
    failed = tuple(sorted({row.migration_name for row in rows if row.failed} - {name}))
    known = tuple(migration.name for migration in migrations) if migrations is not None else (name,)
    pending = tuple(other for other in known if other not in applied)
    unknown = tuple(sorted(applied - set(known))) if migrations is not None else ()
    own = [row for row in rows if row.migration_name == name]
    row = next((r for r in reversed(own) if r.failed), None) or next((r for r in reversed(own) if r.applied), None)
    row = row or (own[-1] if own else None)

    def verdict(word: str) -> Verdict:
        repair = _repair(word, name, indexes_exact)
        return Verdict(word, filled(repair, failed=failed[0]) if failed else repair, pending, failed, unknown, row)

    if history is None:
        return verdict("absent_table")
    if row is not None and row.failed:
        return verdict("failed_with_indexes" if indexes_exact else "failed")
    if row is not None and row.applied:
        if own_file is not None and not own_file.has_checksum(row.checksum):
            return verdict("edited")
        return verdict("applied_without_indexes" if indexes_exact is False else "applied")
    if failed:
        return verdict("earlier_failed")
    if unknown:
        return verdict("ahead")
    if any(other < name for other in pending):
        return verdict("earlier_pending")
    return verdict("rolled_back" if row else "pending")


def _repair(word: str, name: str, indexes_exact: bool | None) -> Phrase:
    if indexes_exact and word in ("pending", "rolled_back"):
        return say(
            "the planned indexes are there already: the migrate phase records the migration as applied when it does "
            "nothing else; otherwise drop them with DROP INDEX CONCURRENTLY, then deploy."
        )
    quoted = name.replace("'", "''")
    mark = (  # for a person's eyes and psql
        "UPDATE _prisma_migrations SET rolled_back_at = now()"  # noqa: S608
        f" WHERE migration_name = '{quoted}' AND rolled_back_at IS NULL;"
    )
    return filled(_REPAIRS[word], mark=mark)


def repair_in(verdict: Verdict, release: str | Path | None) -> str:
    """The verdict's repair with the directory in which Prisma's own commands are to be run."""
    return filled(verdict.repair, release=release or "<release>")


def require_deployable(verdict: Verdict, name: str, *also: str, release: str | Path | None = None) -> None:
    """Raise an OperatorError with the repair unless the migration may be applied now; ``also`` names more verdicts."""
    if verdict.verdict not in ("pending", "rolled_back", *also):
        raise OperatorError(
            observed(
                "AMO-3713",
                "Prisma's history says {verdict} of migration {name}{failed}{unknown}.",
                verdict=word(verdict.verdict),
                name=name,
                failed=say("; failed before: {names}", names=", ".join(verdict.failed)) if verdict.failed else "",
                unknown=say("; not in this release: {names}", names=", ".join(verdict.unknown))
                if verdict.unknown
                else "",
            ),
            expected=say("pending or rolled_back, so that the migration is applied by this deployment."),
            next_step=repair_in(verdict, release),
            cause="history",
            history=verdict.verdict,
            pending=list(verdict.pending),
            failed=list(verdict.failed),
            unknown=list(verdict.unknown),
        )


def require_applied(verdict: Verdict, name: str, *, release: str | Path | None = None) -> None:
    """Raise an OperatorError with the repair unless the history agrees with the catalog, which holds the indexes."""
    if verdict.verdict != "applied":
        raise OperatorError(
            observed(
                "AMO-3717",
                "The indexes hold, but Prisma's history of {name} is {verdict}.",
                name=name,
                verdict=word(verdict.verdict),
            ),
            expected=say("applied."),
            next_step=repair_in(verdict, release),
            cause="history",
            history=verdict.verdict,
        )


def mark_statement(schema: str) -> sql.Composed:
    """What :func:`mark_rolled_back` runs, with the migration's name as its parameter."""
    return sql.SQL("UPDATE {} SET rolled_back_at = now() WHERE migration_name = %s AND rolled_back_at IS NULL").format(
        sql.Identifier(schema, "_prisma_migrations")
    )


def mark_rolled_back(connection: Connection, schema: str, name: str, existing: Sequence[str]) -> int:
    """Set rolled_back_at on the migration's rows, so that the next deploy applies it again; return how many changed.

    This is what Prisma itself writes for a failed migration; its CLI refuses it for one that succeeded. Refuses while
    any planned index exists (``existing``), since applying again would then fail, and while a deploy is running.
    """
    if existing:
        raise OperatorError(
            observed(
                "AMO-3718",
                "Migration {name} cannot be marked rolled back while its indexes are there: {existing}.",
                name=name,
                existing=", ".join(existing),
            ),
            expected=say("none of the planned indexes."),
            next_step=say("ansible-playbook rollback.yml -l <environment> drops them and then marks it."),
            migration=name,
            existing=list(existing),
        )
    hold(connection)
    with connection.cursor() as cursor:
        cursor.execute(mark_statement(schema), (name,))
        return int(cursor.rowcount)


def hold(connection: Connection) -> None:
    """Take Prisma's migration lock to the end of the transaction: no deploy can start between a look and a write.

    Only ever tried, never waited for. Raises OperatorError that names the holder.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        if cursor.fetchone() != (True,):
            refuse_lock(advisory_holder(connection))


def refuse_lock(holder: Mapping[str, Any] | None, *, waited_s: float = 0.0) -> NoReturn:
    """Raise the OperatorError about Prisma's lock being held: by a migration, or by a session that has forgotten it.

    A migration is at work, or was a moment ago. A session that has been idle for longer than ``waited_s`` and a second
    has leaked the lock: a pooler keeps such a session when its client was killed.
    """
    if holder is not None and holder["state"] == "idle" and holder["idle_s"] >= max(1.0, waited_s):
        raise OperatorError(
            observed(
                "AMO-3719",
                "Prisma's migration lock {advisory_lock} has leaked: pid {pid} ({user} from {client}, "
                "{application}) holds it and has been idle since {idle_since}.",
                advisory_lock=ADVISORY_LOCK,
                pid=holder["pid"],
                user=holder["user"],
                client=holder["client"],
                application=holder["application"] or "unnamed",
                idle_since=holder["idle_since"],
            ),
            expected=say("the lock to be free, or held by a migration that is at work."),
            next_step=say(
                "if nobody sits at a `prisma migrate` there, end that session: SELECT "
                "pg_terminate_backend({pid}); and give Prisma a direct connection: through a pooler its "
                "lock outlives it. Then start again; nothing was applied.",
                pid=holder["pid"],
            ),
            cause="leaked_lock",
            holder=dict(holder),
        )
    raise OperatorError(
        observed(
            "AMO-3720",
            "Another `prisma migrate` is running: {holder}.",
            holder=describe_holder(holder),
        ),
        expected=say("one migration at a time, and none while the history is corrected."),
        next_step=say("wait until it has ended, or find out whose it is, then start again; nothing was applied."),
        cause="migration_lock",
        holder=dict(holder) if holder else None,
    )


def record_statement(schema: str) -> sql.Composed:
    """What :func:`record_applied` runs, with id, checksum, name and the start as its parameters."""
    return sql.SQL(
        "INSERT INTO {} (id, checksum, migration_name, started_at, finished_at, applied_steps_count)"
        " VALUES (%s, %s, %s, %s, clock_timestamp(), 1)"
    ).format(sql.Identifier(schema, "_prisma_migrations"))


def record_applied(connection: Connection, schema: str, migration: Migration, started_at: datetime) -> None:
    """Record a migration as Prisma records one that it has applied: one row, one step, no logs, no rollback.

    Rows of attempts that failed are marked rolled back. The caller has made sure that nothing of it is missing; between
    its look and this call the history may change, so it is read again under Prisma's lock, which is held to the end of
    the transaction. Raises OperatorError when the migration is recorded already, or the lock is not free.
    """
    hold(connection)
    rows = [row for row in read_history(connection, schema) or () if row.migration_name == migration.name]
    if any(row.applied for row in rows):
        raise OperatorError(
            observed(
                "AMO-3721",
                "Migration {migration} was recorded as applied by somebody else meanwhile.",
                migration=migration.name,
            ),
            expected=say("nobody else to apply it."),
            next_step=say("run again: it then finds it applied."),
            cause="history",
        )
    with connection.cursor() as cursor:
        if any(row.failed for row in rows):
            cursor.execute(mark_statement(schema), (migration.name,))
        values = (str(uuid.uuid4()), migration.sha256, migration.name, started_at)
        cursor.execute(record_statement(schema), values)


def advisory_holder(connection: Connection) -> dict[str, Any] | None:
    """The session that holds Prisma's migration lock in this database, or ``None``; takes no lock itself."""
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(
            "SELECT l.pid, a.usename AS \"user\", a.application_name AS application, coalesce(a.state, '') AS state,"
            " coalesce(host(a.client_addr), 'local') AS client,"
            " coalesce(round(extract(epoch FROM clock_timestamp() - a.backend_start)), 0)::integer AS age_s,"
            " coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float AS idle_s,"
            " to_char(a.state_change, 'YYYY-MM-DD HH24:MI:SS \"UTC\"') AS idle_since"
            " FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 0 AND l.objid = %s"
            " AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())",
            (ADVISORY_LOCK,),
        )
        row = cursor.fetchone()
        return dict(row) if row else None


def describe_holder(holder: Mapping[str, Any] | None) -> str:
    """The holder of Prisma's lock as a phrase."""
    if holder is None:
        return say("nobody holds Prisma's migration lock any more")
    return say(
        "pid {pid} ({user} from {client}, connected for {age_s} s) holds Prisma's migration lock {advisory_lock}",
        pid=holder["pid"],
        user=holder["user"],
        client=holder["client"],
        age_s=holder["age_s"],
        advisory_lock=ADVISORY_LOCK,
    )
