"""Replicas that must not fall behind while many rows change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from psycopg2 import sql

from ..errors import OperatorError
from ..findings import observed, say
from .catalog import Cursor

_POLL_S = 0.5
_BEHIND_UNKNOWN = 64 * 2**20  # bytes that an idle, healthy replica is never behind

# Name, seconds, bytes behind; all NULL but the name without the privileges of pg_monitor. A replica that has replayed
# everything and got nothing new for a while has no replay_lag either: the bytes tell it from one that does not replay.
LAGS = sql.SQL("""(SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
        coalesce(nullif(r.application_name, ''), 'pid ' || r.pid), extract(epoch FROM r.replay_lag),
        pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn))), '[]')
    FROM pg_catalog.pg_stat_replication AS r WHERE r.state IS NULL OR r.state IN ('streaming', 'catchup'))""")

Lags = Sequence[Sequence[Any]]


def wait(cursor: Cursor, lags: Lags, max_lag_s: float, max_wait_s: float, told: Sequence[str]) -> list[str]:
    """Wait until no replica is more than ``max_lag_s`` behind, ``max_wait_s`` at most, then stop with its name.

    Returns what was not told yet: replicas whose lag nobody tells us.
    """
    deadline = time.monotonic() + max_wait_s
    while slow := [(name, seconds) for name, seconds, _ in lags if seconds is not None and seconds > max_lag_s]:
        name, seconds = max(slow, key=lambda one: one[1])
        if time.monotonic() > deadline:
            raise OperatorError(
                observed(
                    "AMO-3118",
                    "Replica {name} is {seconds} s behind and did not come back within {max_wait_s} s.",
                    name=name,
                    seconds=f"{seconds:.0f}",
                    max_wait_s=f"{max_wait_s:g}",
                ),
                expected=say("every replica at most {max_lag_s} s behind.", max_lag_s=f"{max_lag_s:g}"),
                next_step=say("see what the replica is busy with; then the same command again: it goes on from here."),
                replica=name,
                lag_s=seconds,
            )
        time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic()) + 0.001))
        cursor.execute(sql.SQL("SELECT {}").format(LAGS))
        ((lags,),) = cursor.fetchall()
    unknown = [
        name for name, seconds, behind in lags if seconds is None and (behind is None or behind > _BEHIND_UNKNOWN)
    ]
    return [
        note
        for name in dict.fromkeys(unknown)
        if (
            note := say(
                "How far replica {name} is behind is unknown: it does not say, or this role may not see it.", name=name
            )
        )
        not in told
    ]
