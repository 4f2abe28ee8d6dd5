"""What grows with the table: seconds per gigabyte of each step, and the write-ahead log that replicas follow."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from at_most_one.duplicates import surplus_rows
from at_most_one.fence import write_fence
from at_most_one.indexes import build_concurrently, verification
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import backup

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
REMOVAL = "the removal, archive included"


@dataclass(frozen=True)
class Taken:
    """What a step took: seconds, and megabytes of write-ahead log."""

    seconds: float
    logged: float


def measure(bench: Bench) -> list[Result]:
    """Each step at both sizes, on tables that fit into memory: what processors take. A disk may take longer."""
    found = []
    for full in SIZES:
        surplus = bench.size(full)
        login = seed(bench.server, "bench_size", surplus)
        gigabytes = _gigabytes(login)
        steps = _steps(bench, login)
        rows = f"{surplus * ROWS_PER_SURPLUS / 1e6:.2g} M sessions"  # whole groups: a little more or less

        def figure(what: str, value: float, unit: str, rows: str = rows) -> Result:
            return bench.result(f"{rows}: {what}", value, unit, repetitions=1)

        found.append(figure("sessions and schedules", gigabytes, "GB"))
        found += [figure(name, steps[name].seconds / gigabytes, "s per GB") for name in STEPS]
        found.append(figure(f"write-ahead log of {BUILD}", steps[BUILD].logged / gigabytes, "MB per GB"))
        found.append(figure(f"write-ahead log of {REMOVAL}", steps[REMOVAL].logged * 1e3 / surplus, "kB per row"))
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


def _steps(bench: Bench, login: Login) -> dict[str, Taken]:
    steps: dict[str, Taken] = {}

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        before = _logged(login)
        with stopwatch() as took:
            yield
        steps[name] = Taken(took[0], _logged(login) - before)
        bench.say(f"{name}: {took[0]:.1f} s, {steps[name].logged:.1f} MB of write-ahead log")

    def alone(do: Callable[[Connection], object]) -> None:
        with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
            do(connection)

    alone(lambda connection: surplus_rows.report(connection, PLAN, into=lambda row: None))  # warms what is new
    with step(REPORT):
        alone(lambda connection: surplus_rows.report(connection, PLAN, into=lambda row: None))
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory, step(BACKUP):
        wanted = backup.Wanted(Path(directory), f"{PLAN.id}.dump", 1, str(bench.server.binaries))
        backup.make(login, PLAN, wanted, lock_timeout_ms=5_000, check_mode=False)
    run_id = opened(login)
    with step(REMOVAL):
        alone(lambda connection: clean_up(connection, run_id))
    alone(lambda connection: write_fence.raise_fence(connection, PLAN))
    with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
        inspection = verification.inspect(connection, PLAN)
    with step(BUILD):
        build_concurrently.build(login, PLAN, inspection, build_concurrently.Limits(deadline_s=TIMEOUT_MS / 1000))
    with step(VERIFY):
        alone(lambda connection: verification.require_exact(verification.inspect(connection, PLAN), PLAN))
    return steps


def _logged(login: Login) -> float:
    """Where the write-ahead log is, in megabytes."""
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (pg_current_wal_insert_lsn() - '0/0') / 1e6")
        (megabytes,) = cursor.fetchone() or (0,)
    return float(megabytes)
