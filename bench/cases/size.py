"""What grows with the table: the report, the three indexes, the look at them, the backup. In seconds per gigabyte."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from at_most_one import backup, concurrent, duplicates, fence, indexes
from at_most_one.database import Connection, Login, connect

from bench.cleaning import clean_up, opened
from bench.results import Result
from bench.run import Bench, stopwatch
from bench.seed import PLAN, ROWS_PER_SURPLUS, seed
from bench.server import superuser

SIZES = (125_000, 1_000_000)  # surplus rows
TIMEOUT_MS = 3_600_000

REPORT = "the report of surplus rows"
BACKUP = "the backup, made and read again"
BUILD = "the three indexes, built concurrently"
VERIFY = "the look at the catalog, and for duplicates, afterwards"
STEPS = (REPORT, BACKUP, BUILD, VERIFY)


def measure(bench: Bench) -> list[Result]:
    """Each step at both sizes, on tables that fit into memory: what processors take. A disk may take longer."""
    found = []
    for full in SIZES:
        surplus = bench.size(full)
        login = seed(bench.server, "bench_size", surplus)
        gigabytes = _gigabytes(login)
        seconds = _steps(bench, login)
        rows = f"{surplus * ROWS_PER_SURPLUS / 1e6:g} M sessions"
        found.append(bench.result(f"{rows}: sessions and schedules", gigabytes, "GB", repetitions=1))
        found += [
            bench.result(f"{rows}: {step}", seconds[step] / gigabytes, "s per GB", repetitions=1) for step in STEPS
        ]
        bench.server.drop(login.dbname)
    return found


def _gigabytes(login: Login) -> float:
    """The tables that the plan's indexes are on, without any index."""
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_table_size((%s || '.' || name)::regclass)) FROM unnest(%s) AS name",
            (PLAN.schema, sorted({index.table for index in PLAN.indexes})),
        )
        (size,) = cursor.fetchone() or (0,)
    return float(size) / 1e9


def _steps(bench: Bench, login: Login) -> dict[str, float]:
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        with stopwatch() as took:
            yield
        seconds[name] = took[0]
        bench.say(f"{name}: {took[0]:.1f} s")

    def alone(do: Callable[[Connection], object]) -> None:
        with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
            do(connection)

    alone(lambda connection: duplicates.report(connection, PLAN, into=lambda row: None))  # warms what is new
    with step(REPORT):
        alone(lambda connection: duplicates.report(connection, PLAN, into=lambda row: None))
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory, step(BACKUP):
        wanted = backup.Wanted(Path(directory), f"{PLAN.id}.dump", 1, str(bench.server.binaries))
        backup.make(login, PLAN, wanted, lock_timeout_ms=5_000, check_mode=False)
    run_id = opened(login)
    alone(lambda connection: fence.raise_fence(connection, PLAN))
    alone(lambda connection: clean_up(connection, run_id))
    with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
        inspection = indexes.inspect(connection, PLAN)
    with step(BUILD):
        concurrent.build(login, PLAN, inspection, concurrent.Limits(deadline_s=TIMEOUT_MS / 1000))
    with step(VERIFY):
        alone(lambda connection: indexes.require_exact(indexes.inspect(connection, PLAN), PLAN))
    return seconds
