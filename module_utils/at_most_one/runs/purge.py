"""Remove archived rows that are past their time, under the lock of a run, in batches, each recorded as it commits.

A run's row in the journal stays, and gets the phase ``purged``: when, how many rows, by which run. Killed between two
batches, the next purge goes on: what is gone is recorded, the rest is found again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from ..postgres import own_schema
from ..postgres.connection import Connection, Hold, Login, connect
from ..system import files, recorded_files
from ..system.recorded_files import RecordedFile
from ..system.redaction import redact
from ..verdicts import word
from . import journal, undo
from .archive_age import KeptRun, kept_runs, require_days

BATCH = 5_000  # rows of one transaction: half a second on a busy machine, and little to do again

# Behind the last batch: what that one deleted is not read again.
_DELETE = """
WITH gone AS (
    DELETE FROM {table} WHERE id IN (
        SELECT id FROM {table} WHERE plan_id = %s AND run_id = %s AND id > %s ORDER BY id LIMIT %s)
    RETURNING id)
SELECT count(*), coalesce(max(id), %s) FROM gone"""
# The phase grows with each batch.
_GROW = """
UPDATE at_most_one.step SET finished_at = clock_timestamp(), details = details || pg_catalog.jsonb_build_object(
    'rows', (details ->> 'rows')::bigint + %(rows)s, 'repointed', (details ->> 'repointed')::bigint + %(repointed)s,
    'by', %(by)s::text, 'at', to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
WHERE run_id = %(run_id)s AND phase = 'purged'"""
_BEGIN = """
INSERT INTO at_most_one.step (run_id, position, phase, status, started_at, finished_at, details)
SELECT r.run_id, (SELECT coalesce(max(s.position), 0) + 1 FROM at_most_one.step AS s WHERE s.run_id = r.run_id),
    'purged', 'ok', clock_timestamp(), clock_timestamp(), pg_catalog.jsonb_build_object('rows', %(rows)s,
    'repointed', %(repointed)s, 'by', %(by)s::text, 'at', to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
FROM at_most_one.run AS r WHERE r.run_id = %(run_id)s"""


@dataclass(frozen=True)
class Found:
    """What is kept of the plan's runs, and the backups of those that are past their time."""

    runs: list[KeptRun]
    backups: list[RecordedFile]

    @property
    def changes(self) -> bool:
        """Whether anything would go."""
        return any(one.goes for one in self.runs) or any(not one.why for one in self.backups)

    def past(self, environment: str) -> list[str]:
        """The runs of ``environment`` that are past their time."""
        return _past(self.runs, environment)


@dataclass(frozen=True)
class Purged:
    """What was found, and, unless it was only looked at, the run that removed it."""

    found: Found
    run_id: str = ""


def look(connection: Connection, plan_id: str, environment: str, keep_days: int) -> Found:
    """What a purge would remove, and what stays and why. Writes nothing.

    Rows go of every environment that the journal knows. A file goes only where its run is one of ``environment``: the
    journal of a copied database names runs whose files another environment still needs.
    """
    require_days(keep_days)
    if not own_schema.has_archive(connection):
        return Found([], [])
    kept = kept_runs(connection, plan_id, keep_days)
    ours = _past(kept, environment)
    recorded = journal.read(connection, plan_id=plan_id, limit=10_000)
    backups = (_backup(plan_id, run) for run in recorded if run["run_id"] in ours)
    return Found(kept, [one for one in backups if one])


def _past(runs: Iterable[KeptRun], environment: str) -> list[str]:
    return [one.run_id for one in runs if not one.why and one.environment == environment]


def purge(
    login: Login, opening: journal.Opening, keep_days: int, *, takeover: bool, check: bool, timeouts: Mapping[str, Any]
) -> Purged:
    """Remove what is past its time. Without anything to remove, no run is opened.

    Raises OperatorError where another run holds the plan, or has died and left something to a rollback.
    """
    place = (opening.plan.id, opening.environment, keep_days)
    with connect(login, **timeouts) as connection:
        if not check and own_schema.exists(connection):
            own_schema.ensure(connection)  # an older release's archive is upgraded, as by every run
        found = look(connection, *place)
        if not found.changes:
            return Purged(found)
        if check:
            _require_purge(journal.look(connection, opening, takeover=takeover))
            return Purged(found)
        opened = journal.open_run(connection, opening, takeover=takeover)
        _require_purge(opened)
        journal.record(connection, opened.run_id, undo.PURGE, "ok", {"keep_days": keep_days})
    with (
        journal.kept_alive(login, opened.run_id),
        _closed(login, opened.run_id, timeouts),
        connect(login, **timeouts) as connection,
    ):
        found = look(connection, *place)  # again, now that no other run can change it
        connection.commit()
        hold = journal.holding(opened.run_id)
        for run in (one for one in found.runs if one.goes):
            _rows(connection, run, opened.run_id, hold)
        hold(connection)
        for backup in found.backups:
            recorded_files.remove(backup)
    return Purged(found, opened.run_id)


def _require_purge(opened: journal.Opened) -> None:
    """Raise OperatorError where the run that was taken over is no purge: what it has left is a person's decision."""
    dead = opened.took_over
    if dead and dead["phase"] != undo.PURGE:
        raise OperatorError(
            observed(
                "AMO-2208",
                "Run {run_id} of {who} is dead and not closed; last finished phase: {phase}. A rollback "
                "may need what it has archived.",
                run_id=dead["run_id"],
                who=dead["who"],
                phase=word(dead["phase"] or "none"),
            ),
            expected=say("no unfinished run of this plan."),
            next_step=say(
                "end that run first: ansible-playbook deploy.yml -l <environment> goes on from it, "
                "ansible-playbook rollback.yml -l <environment> takes it back; then run the purge again."
            ),
            run_id=dead["run_id"],
        )


@contextlib.contextmanager
def _closed(login: Login, run_id: str, timeouts: Mapping[str, Any]) -> Iterator[None]:
    """Close the run however the block ends. Where that fails, its lease ends, and the next purge takes it over."""
    try:
        yield
    except (OperatorError, psycopg2.Error, OSError) as stop:
        with contextlib.suppress(OperatorError, psycopg2.Error), connect(login, **timeouts) as connection:
            journal.close_run(connection, run_id, "stopped", failed_phase=undo.PURGE, error=_shown(stop))
        raise
    with connect(login, **timeouts) as connection:
        journal.close_run(connection, run_id, "unchanged")


def _shown(stop: Exception) -> str:
    """What the journal keeps of an error: what PostgreSQL says may have a row's values in it."""
    return redact(str(stop)) if isinstance(stop, OperatorError) else type(stop).__name__


def _rows(connection: Connection, run: KeptRun, by: str, hold: Hold) -> None:
    """Delete the archived rows of a run, a batch in each transaction, together with the count in the journal."""
    last = {"rows": 0, "repointed": 0}
    while True:
        hold(connection)
        with connection.cursor() as cursor:
            gone = {}
            for name, table in (("rows", "archived_row"), ("repointed", "repointed_row")):
                statement = sql.SQL(_DELETE).format(table=sql.Identifier("at_most_one", table))
                cursor.execute(statement, (run.plan_id, run.run_id, last[name], BATCH, last[name]))
                ((gone[name], last[name]),) = cursor.fetchall()
            if any(gone.values()):
                values = {"run_id": run.run_id, **gone, "by": by}
                cursor.execute(_GROW, values)
                if not cursor.rowcount:
                    cursor.execute(_BEGIN, values)
        connection.commit()
        if not any(gone.values()):
            return


def _backup(plan_id: str, run: Mapping[str, Any]) -> RecordedFile | None:
    """The backup that the run has recorded, where it still is."""
    made: dict[str, Any] = next(
        (phase["details"]["backup"] for phase in run["phases"] if (phase["details"] or {}).get("backup")), {}
    )
    path = Path(made.get("path") or "")
    if path.name != f"{plan_id}-{run['run_id']}.dump":
        return None

    def is_as_recorded(at: Path) -> bool:
        if at.stat().st_size != made.get("bytes"):
            return False
        return not made.get("sha256") or files.sha256(at) == made["sha256"]

    return recorded_files.examine(run["run_id"], path, is_as_recorded)
