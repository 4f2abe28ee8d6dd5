"""What the journal does not record itself: whether an unfinished run is dead, and where the rows of a run are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2.extras import RealDictCursor

from ..postgres.connection import Connection
from . import run_error
from .controllers import proven_alive, proven_dead

_ROWS = """
SELECT run_id, count(*) FILTER (WHERE restored_at IS NULL)::integer AS archived,
       count(restored_at)::integer AS restored,
       to_char(max(restored_at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS restored_at
FROM at_most_one.archived_row WHERE run_id = ANY(%s) GROUP BY run_id
"""


def why_dead(run: Mapping[str, Any]) -> str | None:
    """Why an unfinished run may be taken over; ``None`` while its process is alive or its lease runs."""
    if run["lease_expired"] and not proven_alive(run["controller_process"], run["controller_pid"]):
        return run_error.lease_ended(run["lease_until"])
    if proven_dead(run["controller_process"], run["controller_pid"]):
        return run_error.process_gone(run["controller_pid"], run["controller"])
    return None


def dead_since(run: Mapping[str, Any]) -> str | None:
    """Since when an unfinished run is dead: the end of its lease, or before that its last sign of life."""
    if run["outcome"] is not None or why_dead(run) is None:
        return None
    return str(run["lease_until"] if run["lease_expired"] else run["last_sign_at"])


def purged(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """When purge.yml removed this run's archived rows, and how many; ``None`` when it has not."""
    for phase in run["phases"]:
        if phase["name"] == "purged":
            return {"run_id": run["run_id"], "at": phase["details"]["at"], "rows": phase["details"]["rows"]}
    return None


def rows_of(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How many rows each of these runs archived that are not back, how many are back, and when the last one came."""
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute("SELECT pg_catalog.to_regclass('at_most_one.archived_row') IS NOT NULL AS there")
        if not (cursor.fetchone() or {"there": False})["there"]:
            return {}
        cursor.execute(_ROWS, (list(run_ids),))
        return {row["run_id"]: {key: row[key] for key in ("archived", "restored", "restored_at")} for row in cursor}
