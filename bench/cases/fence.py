"""What the write fence costs those who write under it: bulk statements, single ones, sessions closed and opened again.

Copies of one database in which the surplus rows still are: without a fence, under the fence, and cleaned up under the
planned unique index, which is what writers are to live with afterwards. The same is written to two of them, in turns.
"""

from __future__ import annotations

import contextlib
import io
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.errors
from at_most_one.fence import write_fence
from at_most_one.postgres.connection import Connection, Login, connect

from bench.cleaning import fenced_clean_up, opened
from bench.results import Result, median, number
from bench.run import Bench, stopwatch
from bench.seed import MIGRATION, PLAN, seed
from bench.server import superuser

Way = Callable[[Login], None]

SURPLUS = 300
BULK_ROWS = 1_000_000
BULK_ROUNDS = 3
BULK_GOAL = 1.2
LOCKS_GOAL = 64
SINGLE_ROUNDS = 40
SINGLE_ROWS = 100  # of each round
SINGLE_GOAL = 1.15
WRITERS = 8
REOPENED = 50  # equipments that they share
REOPEN_S = 6.0
REOPEN_ROUNDS = 5
REOPEN_GOAL = 0.8
TIMEOUT_MS = 600_000
INSPECTOR = "00000000-0000-4000-a000-000000000001"

_BULK = " rows: under the fence / under the planned index"
_TABLE = "aedpics.inspection_sessions"
_SINGLE = f"INSERT INTO {_TABLE} (equipment_serial, inspector_id, status) VALUES (%s, '{INSPECTOR}', 'active')"
_OPEN = f"{_SINGLE} RETURNING id::text"
# A service closes the session that it has. Where it looks for it by the key, only the planned index finds it.
_CLOSE = f"UPDATE {_TABLE} SET status = 'completed' WHERE id = %s AND status IN ('active', 'paused')"
_CLOSE_BY_KEY = (
    f"UPDATE {_TABLE} SET status = 'completed' WHERE equipment_serial = %s AND status IN ('active', 'paused')"
)
# What a bulk statement touches: every row of it has an entry in the fence, and then in the planned index.
_INSERT = (
    f"INSERT INTO {_TABLE} (equipment_serial, inspector_id, status)"
    f" SELECT 'insert-' || n, '{INSPECTOR}', 'active' FROM generate_series(1, {{rows}}) AS n"
)
_UPDATE = f"UPDATE {_TABLE} SET status = 'paused' WHERE equipment_serial LIKE 'insert-%'"


def measure(bench: Bench) -> list[Result]:
    """Every figure of this file."""
    template = seed(bench.server, "bench_fence", bench.size(SURPLUS, least=3), schedules=False)
    found = [*_bulk(bench, template), *_single(bench, template), *_reopened(bench, template)]
    bench.server.drop(template.dbname)
    return found


def _nothing(_login: Login) -> None:
    """As it was."""


def _fenced(login: Login) -> None:
    with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
        write_fence.raise_fence(connection, PLAN)


def _planned(login: Login) -> None:
    """Cleaned up, and the unique index alone: the fence stands in for no other."""
    with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
        fenced_clean_up(connection, opened(login))
        with contextlib.closing(superuser(login)) as owner, owner.cursor() as cursor:
            cursor.execute(MIGRATION)
            for index in PLAN.indexes:
                if not index.unique:
                    cursor.execute(f"DROP INDEX {PLAN.schema}.{index.name}")
        write_fence.lower_fence(connection, PLAN)


def _bulk(bench: Bench, template: Login) -> list[Result]:
    rows = bench.size(BULK_ROWS)
    seconds: dict[Way, dict[str, list[float]]] = {_fenced: {}, _planned: {}}
    locks: dict[Way, int] = {}
    for turn in range(BULK_ROUNDS):
        for way in (_fenced, _planned) if turn % 2 else (_planned, _fenced):
            with bench.server.copy(template, "bench_copy") as login:
                way(login)
                taken, locks[way] = _written(login, rows)
            bench.say(f"{way.__name__.strip('_')}: {taken}, {locks[way]} locks")
            for what, one in taken.items():
                seconds[way].setdefault(what, []).append(one)
    found = []
    for what, fenced in seconds[_fenced].items():
        ratios = [one / other for one, other in zip(fenced, seconds[_planned][what], strict=True)]
        found.append(
            bench.result(bulk_name(what, rows), median(ratios), "ratio", goal=BULK_GOAL, repetitions=BULK_ROUNDS)
        )
    more = locks[_fenced] - locks[_planned]
    return [*found, bench.result(LOCKS, more, "locks", goal=LOCKS_GOAL, repetitions=1)]


def bulk_name(what: str, rows: int) -> str:
    """The figure for one bulk statement."""
    return f"{what} of {rows:,}{_BULK}"


LOCKS = "locks that the three take in one transaction: more under the fence than under the planned index"
SINGLE = "INSERT of one session: under the fence / without"
_REOPEN = f"close and open again, {WRITERS} writers, {REOPENED} equipments"
REOPEN = f"{_REOPEN}: commits under the planned index / under the fence"
BY_KEY = f"{_REOPEN}, the open one looked for by its key: commits without a fence / under it"
FOUND_BY_INDEX = "the same: commits under the planned index, which finds it, / under the fence"


def _written(login: Login, rows: int) -> tuple[dict[str, float], int]:
    """The seconds of each bulk statement, all in one transaction, and the locks that it holds at its end."""
    lines = "".join(f"copy-{number}\t{INSPECTOR}\tactive\n" for number in range(rows))
    statements: dict[str, Callable[[Any], None]] = {
        "INSERT": lambda cursor: cursor.execute(_INSERT.format(rows=rows)),
        "COPY": lambda cursor: cursor.copy_expert(
            f"COPY {_TABLE} (equipment_serial, inspector_id, status) FROM STDIN", io.StringIO(lines)
        ),
        "UPDATE": lambda cursor: cursor.execute(_UPDATE),
    }
    taken = {}
    with contextlib.closing(superuser(login)) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            for what, run in statements.items():
                with stopwatch() as seconds:
                    run(cursor)
                if cursor.rowcount != rows:
                    raise RuntimeError(f"{what} wrote {cursor.rowcount} rows of {rows}: nothing to compare")
                taken[what] = round(seconds[0], 2)
            cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
            (locks,) = cursor.fetchone() or (0,)
        connection.commit()
    return taken, int(locks)


def _single(bench: Bench, template: Login) -> list[Result]:
    """One row and one transaction each, as the service writes them: rounds on two copies in turns."""
    with (
        bench.server.copy(template, "bench_without") as without,
        bench.server.copy(template, "bench_under") as under,
    ):
        _fenced(under)
        with contextlib.closing(superuser(without)) as plain, contextlib.closing(superuser(under)) as fenced:
            ratios = []
            for turn in range(SINGLE_ROUNDS):
                order = (fenced, plain) if turn % 2 else (plain, fenced)
                taken = {id(connection): _inserted(connection, turn) for connection in order}
                ratios.append(taken[id(fenced)] / taken[id(plain)])
    return [bench.result(SINGLE, median(ratios), "ratio", goal=SINGLE_GOAL, repetitions=SINGLE_ROUNDS)]


def _inserted(connection: Connection, turn: int) -> float:
    with stopwatch() as seconds, connection.cursor() as cursor:
        for row in range(SINGLE_ROWS):
            cursor.execute(_SINGLE, (f"single-{turn}-{row}",))
    return seconds[0]


def _reopened(bench: Bench, template: Login) -> list[Result]:
    by_row: list[dict[Way, int]] = []
    by_key: list[dict[Way, int]] = []
    for turn in range(REOPEN_ROUNDS):
        for close, rounds, ways in (
            (_CLOSE, by_row, (_planned, _fenced)),
            (_CLOSE_BY_KEY, by_key, (_nothing, _planned, _fenced)),
        ):
            commits: dict[Way, int] = {}
            for way in ways[::-1] if turn % 2 else ways:
                with bench.server.copy(template, "bench_copy") as login:
                    way(login)
                    commits[way] = _reopening(login, close)
                bench.say(f"{way.__name__.strip('_')}: {commits[way]} times closed and opened again")
            rounds.append(commits)

    def ratio(name: str, rounds: list[dict[Way, int]], other: Way, goal: float | None) -> Result:
        found = median([commits[other] / commits[_fenced] for commits in rounds])
        return bench.result(name, found, "ratio", goal=goal, repetitions=REOPEN_ROUNDS)

    return [
        ratio(REOPEN, by_row, _planned, 1 / REOPEN_GOAL),
        ratio(BY_KEY, by_key, _nothing, 1 / REOPEN_GOAL),
        ratio(FOUND_BY_INDEX, by_key, _planned, None),
    ]


def _reopening(login: Login, close: str) -> int:
    """How often the writers have closed a session and opened another one in one transaction."""
    over, counts = threading.Event(), [0] * WRITERS
    serials = [f"reopened-{equipment}" for equipment in range(REOPENED)]
    sessions: dict[str, str] = {}  # of each equipment the open one, as the writer that opened it tells the others
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        for serial in serials:
            cursor.execute(_OPEN, (serial,))
            ((sessions[serial],),) = cursor.fetchall()

    def write(number: int) -> None:
        chance = random.Random(number)
        with contextlib.closing(superuser(login)) as connection:
            connection.autocommit = False
            while not over.is_set():
                serial = chance.choice(serials)
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(close, (sessions[serial] if close == _CLOSE else serial,))
                        cursor.execute(_OPEN, (serial,))
                        ((opened_now,),) = cursor.fetchall()
                    connection.commit()
                except (psycopg2.errors.UniqueViolation, psycopg2.errors.DeadlockDetected):
                    connection.rollback()
                else:
                    sessions[serial] = opened_now
                    counts[number] += 1

    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    time.sleep(REOPEN_S)
    over.set()
    for writer in writers:
        writer.join()
    return sum(counts)


def draw(panel: Any, results: dict[str, Result]) -> None:
    """Each ratio and its goal."""
    # The rows of a bulk statement are as many as the scale of the run says.
    names = {name: name.partition(" ")[0] for name in results if name.endswith(_BULK)}
    names |= {SINGLE: "a single INSERT", REOPEN: "close, open again", BY_KEY: "the same, by its key"}
    bars = panel.barh(list(names.values()), [results[name].value for name in names], color="#2b7a4b")
    panel.bar_label(bars, [number(results[name].value) for name in names], padding=3)
    panel.plot([results[name].goal for name in names], range(len(names)), "k|", markersize=14)
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.set_title("Writing under the fence: times what it takes otherwise (| the goal)", loc="left")
