"""Prisma's own history, read for what it really says, and ``prisma migrate deploy``, judged by exit code and catalog.

What a row of ``_prisma_migrations`` means: finished_at set and rolled_back_at not: applied; neither set: failed, and
every later deploy stops with P3009; rolled_back_at set: as if it had never run, the next deploy applies it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg2 import sql
from psycopg2.extras import RealDictCursor

from .database import Connection
from .errors import OperatorError

# `migrate deploy` holds this session advisory lock for its whole run; a second one gives up after 10 s with P1002.
ADVISORY_LOCK = 72_707_369


@dataclass(frozen=True)
class Migration:
    """A migration of a release: its directory's name and the SHA-256 of its migration.sql, Prisma's checksum."""

    name: str
    sha256: str


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
    repair: str
    pending: tuple[str, ...]  # names that `migrate deploy` would apply, in its order
    failed: tuple[str, ...]  # other migrations that failed: each stops every deploy
    row: Row | None  # the last attempt at the plan's migration


_REPAIRS = {
    "absent_table": "there is no _prisma_migrations in the plan's schema: check its key schema; a database that was "
    "never managed by Prisma needs a baseline first (`prisma migrate resolve --applied` for each earlier migration).",
    "pending": "none: the migrate phase applies it.",
    "applied": "none.",
    "applied_without_indexes": "Prisma would say there is nothing to apply: mark the row rolled back (prisma_history "
    "with state=rolled_back, once index_set with state=absent has removed what is left), then deploy again.",
    "failed": "every deploy stops with P3009: mark the row rolled back (prisma_history with state=rolled_back), then "
    "deploy again.",
    "failed_with_indexes": "the indexes are there, the history says failed: index_set with state=absent, then "
    "prisma_history with state=rolled_back, then deploy again; or `prisma migrate resolve --applied` if you know that "
    "nothing else of the migration is missing.",
    "rolled_back": "none: the migrate phase applies it again.",
    "edited": "migration.sql of this release is not the one that was applied: put the applied file back from git; a "
    "change belongs in a new migration.",
    "earlier_pending": "apply the earlier migrations with the release they came with; this plan answers for its own.",
    "earlier_failed": "every deploy stops with P3009: resolve that migration by its own plan or with `prisma migrate "
    "resolve`, then start again.",
}


def read_migrations(release: str | Path, *, may_be_unbuilt: bool = False) -> tuple[Migration, ...] | None:
    """The migrations of a release in Prisma's order. Raises OperatorError when the release holds none.

    ``may_be_unbuilt``: in check mode the release may not be there yet; its migrations are then not known (``None``).
    """
    if may_be_unbuilt and not Path(release).exists():
        return None
    directory = Path(release) / "prisma" / "migrations"
    files = sorted(directory.glob("*/migration.sql"), key=lambda file: file.parent.name)
    if not files:
        raise OperatorError(
            f"{directory} holds no migration.",
            expected="one directory with a migration.sql for each migration.",
            next_step="check release_path: it must be the directory that holds prisma/ and node_modules/.",
        )
    return tuple(Migration(file.parent.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files)


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
BLOCKED_BEFORE = ("absent_table", "earlier_pending", "earlier_failed")


def judge(
    history: Sequence[Row] | None, migrations: Sequence[Migration] | None, name: str, indexes_exact: bool | None
) -> Verdict:
    """The verdict on migration ``name``, from the history, the release's migrations and the catalog's indexes.

    ``indexes_exact`` says whether the catalog holds exactly the planned indexes; ``None``: not known, believe the
    history. Without ``migrations`` nothing can be edited or earlier. Raises OperatorError when the release does not
    hold the migration.
    """
    checksum = {migration.name: migration.sha256 for migration in migrations or ()}.get(name)
    if migrations is not None and checksum is None:
        raise OperatorError(
            f"The release holds no migration {name}.",
            expected=f"prisma/migrations/{name}/migration.sql among its {len(migrations)} migrations.",
            next_step="check `migration` in the plan and that the release is the commit that brings it.",
            migration=name,
        )
    rows = history or ()
    applied = {row.migration_name for row in rows if row.applied}
    failed = tuple(sorted({row.migration_name for row in rows if row.failed} - {name}))
    known = (migration.name for migration in migrations) if migrations is not None else (name,)
    pending = tuple(other for other in known if other not in applied)
    own = [row for row in rows if row.migration_name == name]
    row = next((r for r in reversed(own) if r.failed), None) or next((r for r in reversed(own) if r.applied), None)
    row = row or (own[-1] if own else None)

    def verdict(word: str) -> Verdict:
        return Verdict(word, _repair(word, indexes_exact), pending, failed, row)

    if history is None:
        return verdict("absent_table")
    if row is not None and row.failed:
        return verdict("failed_with_indexes" if indexes_exact else "failed")
    if row is not None and row.applied:
        if indexes_exact is False:
            return verdict("applied_without_indexes")
        return verdict("applied" if checksum in (None, row.checksum) else "edited")
    if failed:
        return verdict("earlier_failed")
    if any(other < name for other in pending):
        return verdict("earlier_pending")
    return verdict("rolled_back" if row else "pending")


def _repair(word: str, indexes_exact: bool | None) -> str:
    if indexes_exact and word in ("pending", "rolled_back"):
        return (
            "the planned indexes are there already: record the migration with `prisma migrate resolve --applied`, or "
            "remove them with index_set state=absent and deploy."
        )
    return _REPAIRS[word]


def require_deployable(verdict: Verdict, name: str) -> None:
    """Raise an OperatorError with the repair unless ``migrate deploy`` is the right next step for migration name."""
    if verdict.verdict not in ("pending", "rolled_back"):
        raise OperatorError(
            f"Prisma's history says {verdict.verdict} of migration {name}"
            + (f"; failed before: {', '.join(verdict.failed)}." if verdict.failed else "."),
            expected="pending or rolled_back, so that `prisma migrate deploy` applies it.",
            next_step=verdict.repair,
            cause="history",
            history=verdict.verdict,
            pending=list(verdict.pending),
            failed=list(verdict.failed),
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
            f"Migration {name} cannot be marked rolled back while its indexes are there: {', '.join(existing)}.",
            expected="none of the planned indexes.",
            next_step="index_set with state=absent removes them; then mark it again.",
            migration=name,
            existing=list(existing),
        )
    with connection.cursor() as cursor:
        # Held to the end of the transaction: no deploy can start between the look and the mark.
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        if cursor.fetchone() != (True,):
            raise OperatorError(
                f"A `prisma migrate` is running: {describe_holder(advisory_holder(connection))}.",
                expected="no migration to run while the history is corrected.",
                next_step="wait until it has ended, then start again.",
                holder=advisory_holder(connection),
            )
        cursor.execute(mark_statement(schema), (name,))
        return int(cursor.rowcount)


def advisory_holder(connection: Connection) -> dict[str, Any] | None:
    """The session that holds Prisma's migration lock in this database, or ``None``; takes no lock itself."""
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(
            "SELECT l.pid, a.usename AS \"user\", a.application_name AS application, coalesce(a.state, '') AS state,"
            " coalesce(a.client_addr::text, 'local') AS client,"
            " coalesce(round(extract(epoch FROM clock_timestamp() - a.backend_start)), 0)::integer AS age_s"
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
        return "nobody holds Prisma's migration lock any more"
    return (
        f"pid {holder['pid']} ({holder['user']} from {holder['client']}, connected for {holder['age_s']} s) holds "
        f"Prisma's migration lock {ADVISORY_LOCK}"
    )
