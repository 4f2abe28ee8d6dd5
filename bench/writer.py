"""One visitor after another, in a process of its own: look for the open session, take a moment, write.

A visit is due at a fixed rate, whether the one before has ended or not. Its latency counts from when it was due:
while a writer is held up, every visit that should have begun meanwhile waits too, and each of them is counted.

Reads its orders from standard input, works until that ends, then prints what it met. It dies with who started it.
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extensions import connection as Connection

TABLE = "aedpics.inspection_sessions"
HOT = 20  # equipments that every writer comes back to
HOT_SHARE = 0.1
CLOSING = 0.3
THINK_S = 0.002  # between the look and the write, at most


def main() -> None:
    """Work until standard input ends."""
    orders = json.loads(sys.stdin.readline())
    chance = random.Random(orders["seed"])
    met: dict[str, Any] = {"visits": [], "refused": 0, "inserted": 0, "updated": 0, "error": None}
    connection = psycopg2.connect(**orders["login"])
    connection.autocommit = True
    print("ready", flush=True)
    due = time.monotonic() + chance.uniform(0, orders["period_s"])
    try:
        while not _told_to_stop(due):
            what, thought_s = visit(connection, chance, orders["equipments"])
            met["visits"].append((due, time.monotonic() - due - thought_s))
            met[what] += 1
            due += orders["period_s"]
    except psycopg2.Error as failure:
        met["error"] = str(failure)
    print(json.dumps(met))


def _told_to_stop(due: float) -> bool:
    """Wait until the visit is due. Standard input becomes readable when it ends."""
    return bool(select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0])


def visit(connection: Connection, chance: random.Random, equipments: int) -> tuple[str, float]:
    """One visit to the service: what became of it, and the seconds it was its own to take."""
    equipment = chance.randrange(HOT if chance.random() < HOT_SHARE else equipments)
    serial = f"11-{equipment:07d}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {TABLE} WHERE equipment_serial = %s AND status IN ('active', 'paused')"
            " ORDER BY started_at DESC NULLS LAST LIMIT 1",
            (serial,),
        )
        session = cursor.fetchone()
        begin = time.monotonic()
        time.sleep(chance.uniform(0, THINK_S))
        thought_s = time.monotonic() - begin
        if session:
            change = "status = 'completed', completed_at = now()" if chance.random() < CLOSING else "current_step = 3"
            cursor.execute(f"UPDATE {TABLE} SET {change}, updated_at = now() WHERE id = %s", session)
            return "updated", thought_s
        try:
            cursor.execute(
                f"INSERT INTO {TABLE} (equipment_serial, inspector_id, step_data)"
                " VALUES (%s, '00000000-0000-4000-a000-000000000001', '{\"step\": 0}')",
                (serial,),
            )
        except psycopg2.errors.UniqueViolation:
            return "refused", thought_s
        return "inserted", thought_s


if __name__ == "__main__":
    main()
