"""The service's database for tests of every suite: its schema as a template, and the guide's example in it."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from at_most_one.postgres.connection import Connection, Login

from tests.support.postgres import Server, running

TEMPLATE = "guide_schema"
SCHEMA = Path(__file__).with_name("schema.sql")
# Durability is off: nothing here outlives the session.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "max_connections": "60",
    "max_prepared_transactions": "30",
    "deadlock_timeout": "200ms",
}


@contextlib.contextmanager
def running_server(**different: str) -> Iterator[Server]:
    """A server with the schema's template, until the block ends.

    ``different`` are settings that it has instead of those of the session's server.
    """
    login = Login("127.0.0.1", 0, "postgres", "aedpics_admin", "only for tests: p@ss/word'")
    settings = {**_SETTINGS, **different}
    with running(settings, login, more=["--no-sync"]) as server:
        template = replace(server, login=server.create(TEMPLATE))
        template.run(SCHEMA.read_text())
        yield server


@dataclass(frozen=True)
class GuideExample:
    """The ids of the seeded rows, by what must become of them."""

    keep: dict[str, str]  # equipment serial to the session that stays open
    surplus: frozenset[str]  # 25 open sessions
    history: frozenset[str]  # completed rows: never candidates
    never_started: str  # the open session whose started_at is NULL: surplus
    control: str  # an equipment with exactly one open session


def seed_guide_example(connection: Connection) -> GuideExample:
    """Fill and commit the guide's example.

    10 equipments with 35 open sessions (25 surplus) and 32 completed ones, two of which are newer than the open ones on
    their equipment; and a control equipment with one open session and one completed.
    """
    numbers = itertools.count(1)
    keep: dict[str, str] = {}
    surplus: set[str] = set()
    history: set[str] = set()
    inspectors = [f"00000000-0000-4000-a000-{n:012d}" for n in range(1, 4)]
    rows: list[tuple[Any, ...]] = []

    def session(serial: str, status: str, started_at: str | None) -> str:
        number = next(numbers)
        # Ids are not in the order of time, so that "the newest" and "the largest id" are different rows.
        identifier = f"{(number * 7919) % 65536:08x}-0000-4000-8000-{number:012d}"
        note = f"점검 {number}: 'quoted' 100% \\ done"
        data = json.dumps({"step": number, "result": "정상", "ratio": 0.1})
        inspector = inspectors[number % 3]
        rows.append((identifier, serial, inspector, status, started_at, data, note))
        return identifier

    serials = [f"AED-{n:04d}" for n in range(1, 11)]
    control = "AED-0011"
    never_started = ""
    for position, serial in enumerate(serials):
        history.update(session(serial, "completed", f"2025-10-{day:02d} 09:00+09") for day in (1, 2, 3))
        size = 4 if position < 5 else 3  # 5 x 4 + 5 x 3 = 35 open, 25 of them surplus
        for turn in range(size):
            null_start = position == 0 and turn == 1
            started_at = None if null_start else f"2025-11-{3 + turn:02d} 10:{position:02d}:00.123456+09"
            identifier = session(serial, "paused" if turn % 2 else "active", started_at)
            if turn == size - 1:
                keep[serial] = identifier
            else:
                surplus.add(identifier)
            if null_start:
                never_started = identifier
    for serial in serials[-2:]:  # newer than every open session: the guide's script would keep these two instead
        history.add(session(serial, "completed", "2025-11-09 09:00+09"))
    keep[control] = session(control, "active", "2025-11-03 10:00+09")
    history.add(session(control, "completed", "2025-11-08 10:00+09"))

    with connection.cursor() as cursor:
        for number, inspector in enumerate(inspectors, 1):
            cursor.execute(
                "INSERT INTO aedpics.user_profiles VALUES (%s, %s, %s)",
                (inspector, f"inspector{number}@example.test", f"점검원 {number}"),
            )
        for serial in [*serials, control]:
            cursor.execute("INSERT INTO aedpics.aed_data (equipment_serial) VALUES (%s)", (serial,))
        cursor.executemany(
            "INSERT INTO aedpics.inspection_sessions"
            " (id, equipment_serial, inspector_id, status, started_at, step_data, notes)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
        cursor.execute(
            "INSERT INTO aedpics.inspection_schedules (aed_data_id, scheduled_for)"
            " SELECT id, timestamptz '2025-11-10 00:00+09' + id * interval '1 hour' FROM aedpics.aed_data"
        )
    connection.commit()
    return GuideExample(keep, frozenset(surplus), frozenset(history), never_started, control)
