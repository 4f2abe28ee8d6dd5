"""Duplicates that are being written all the time: clean-up, the pause of Prisma's start, index build, verification.

Eight writers do what the application does: look for an open session, take a moment, insert one; now and then close one.
With the fence the index builds at the first attempt, every time, and nothing is left. Without it the same procedure
fails: the control.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one import duplicates, fence
from at_most_one.database import Connection, Login, connect
from at_most_one.plan import Plan

TABLE = "aedpics.inspection_sessions"
INSPECTOR = "00000000-0000-4000-a000-000000000001"
WRITERS = 8
EQUIPMENTS = 20
CLOSING = 0.1  # how often a visitor closes the open session it finds
GAP_S = (
    0.25  # between clean-up and build; Prisma needs four times as long to start, the control shows that this is enough
)
RUNS = 20


@dataclass
class Writers:
    """What the writers met. ``refused`` counts the unique violations by the constraint's name."""

    login: Login
    refused: Counter[str | None] = field(default_factory=Counter)
    inserted: int = 0
    unexpected: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self, seed: int) -> None:
        chance = random.Random(seed)
        try:
            with connect(self.login, autocommit=True) as connection:
                while not self.stop.is_set():
                    self.visit(connection, f"AED-W{chance.randrange(EQUIPMENTS)}", chance)
        except BaseException as failure:
            self.unexpected.append(failure)

    def visit(self, connection: Connection, serial: str, chance: random.Random) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id FROM {TABLE} WHERE equipment_serial = %s AND status IN ('active', 'paused') LIMIT 1",
                (serial,),
            )
            session = cursor.fetchone()
            time.sleep(chance.uniform(0, 0.004))
            if session:
                if chance.random() < CLOSING:
                    cursor.execute(f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", session)
                return
            try:
                cursor.execute(
                    f"INSERT INTO {TABLE} (equipment_serial, inspector_id) VALUES (%s, %s)", (serial, INSPECTOR)
                )
                self.inserted += 1
            except psycopg2.errors.UniqueViolation as stop:
                self.refused[stop.diag.constraint_name] += 1


@contextmanager
def writing(login: Login) -> Iterator[Writers]:
    writers = Writers(login)
    threads = [threading.Thread(target=writers.work, args=(seed,)) for seed in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        writers.stop.set()
        for thread in threads:
            thread.join()
    assert writers.unexpected == []


@pytest.fixture
def connection(login: Login, seed_guide_example: Callable[[Connection], Any]) -> Iterator[Connection]:
    """The guide's example is there; the writers work on equipments of their own, so its 25 surplus rows wait for us."""
    with connect(login) as opened:
        seed_guide_example(opened)
        yield opened


def clean_up(connection: Connection, plan: Plan) -> int:
    found = duplicates.report(connection, plan)
    removal = duplicates.remove(
        connection,
        plan,
        rows=found.rows,
        digest=found.digest,
        run_id="run-1",
        max_rows=10_000,
        expected_groups=10_000,
        expected_rows=10_000,
    )
    return removal.removed


def build(connection: Connection, plan: Plan) -> bool:
    """What Prisma's migration does. False: a duplicate was in the way."""
    statement = f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}"
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.errors.UniqueViolation:
        return False
    return True


def wait_for_duplicates(connection: Connection, plan: Plan, more_than: int) -> None:
    """Until the writers have added some."""
    deadline = time.monotonic() + 10
    while duplicates.report(connection, plan).row_count <= more_than:
        assert time.monotonic() < deadline, "the writers write no duplicates: the test would prove nothing"


@pytest.mark.parametrize("attempt", range(1, RUNS + 1))
def test_with_the_fence_the_index_builds_at_the_first_attempt(
    login: Login, connection: Connection, plan: Plan, attempt: int
) -> None:
    with writing(login) as writers:
        wait_for_duplicates(connection, plan, 25)
        fence.raise_fence(connection, plan)
        assert clean_up(connection, plan) >= 25
        time.sleep(GAP_S)
        assert writers.refused[plan.rule_index.name] > 0, "the fence had nothing to do: the test would prove nothing"
        assert build(connection, plan)
        fence.lower_fence(connection, plan)
        before, refused_by_fence = writers.inserted, writers.refused.total()
        deadline = time.monotonic() + 10
        while writers.refused.total() == refused_by_fence or writers.inserted == before:
            assert time.monotonic() < deadline, "under the index alone the service goes on"
            time.sleep(0.01)
    assert set(writers.refused) == {plan.rule_index.name}
    assert duplicates.report(connection, plan).row_count == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid AND indisready AND indislive FROM pg_catalog.pg_index WHERE indexrelid ="
                       " pg_catalog.to_regclass(%s)", (f"aedpics.{plan.rule_index.name}",))  # fmt: skip
        assert cursor.fetchall() == [(True,)]


def test_control_without_the_fence_the_same_procedure_fails(login: Login, connection: Connection, plan: Plan) -> None:
    built: list[bool] = []
    with writing(login):
        for old in (25, *[0] * (RUNS - 1)):
            wait_for_duplicates(connection, plan, old)
            clean_up(connection, plan)
            time.sleep(GAP_S)
            built.append(build(connection, plan))
            if not built[-1]:
                break  # once is enough; measured: 20 builds of 20 fail
            with connection, connection.cursor() as cursor:
                cursor.execute(f"DROP INDEX aedpics.{plan.rule_index.name}")
    assert not all(built), f"{len(built)} builds of {len(built)} succeeded without a fence"
