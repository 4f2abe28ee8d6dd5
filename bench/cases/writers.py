"""How long a writer waits while the rule is deployed: from the fence to verify, and for the guide's way."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
from at_most_one.fence import write_fence
from at_most_one.indexes import build_concurrently, verification, write_pause
from at_most_one.migration import build as building
from at_most_one.postgres.connection import Connection, Login, connect

from bench import release
from bench.cleaning import clean_up, fenced_clean_up, opened
from bench.results import Result, factor, median, number, percentile
from bench.run import Bench
from bench.seed import MIGRATION, PLAN, groups, seed
from bench.server import superuser

SURPLUS = 125_000  # of a million rows
WRITERS = 8
PERIOD_S = 0.025  # of each writer: 320 visits a second together
REPETITIONS = 5
LOCK_TIMEOUT_MS = 5_000
PRISMA_START_S = 1.0  # between the clean-up and the build: what Prisma's start takes
FLOOR_FACTOR = 3
FORECAST_FACTOR = 2
TIMEOUT_MS = 600_000

WORDS = {
    "control": "nothing deployed (the floor)",
    "concurrent": "fence to verify, built concurrently",
    "plain": "fence to verify, built by the migration alone",
    "guide": "the guide's way, no fence, no timeouts",
}
P999, LONGEST = "p99.9 of a visit: ", "longest visit: "
STALL = "p99.9 of a visit, fence to verify, built concurrently / the floor"
REFUSED = "the guide's way: builds refused because of a duplicate committed after the clean-up"
PREDICTED = "write pause of a plain build, predicted"
MEASURED = "write pause of a plain build, measured by the writers"
FACTOR = "prediction and measurement apart"
WRONG = "wrong choices of auto, limit at half and at twice the measured pause"


@dataclass
class Writers:
    """The processes, and afterwards every visit as (due, seconds until it was done), and what came of them."""

    processes: list[subprocess.Popen[str]]
    visits: list[tuple[float, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def latencies_ms(self, begin: float, end: float) -> list[float]:
        """Of the visits that were under way at some moment between the two, sorted."""
        return sorted(1000 * took for due, took in self.visits if due + took >= begin and due <= end)


@contextlib.contextmanager
def writing(login: Login, equipments: int) -> Iterator[Writers]:
    """Visits at a fixed rate while the block runs; what they met is there after it."""
    writers = Writers([_start(login, equipments, number) for number in range(WRITERS)])
    try:
        for process in writers.processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("a writer did not start")
        time.sleep(0.5)
        yield writers
        for process in writers.processes:
            met = json.loads(process.communicate(timeout=120)[0])
            if met["error"]:
                raise RuntimeError(f"a writer met an error that the service would not: {met['error']}")
            writers.visits += [(due, took) for due, took in met["visits"]]
            for what in ("inserted", "updated", "refused"):
                writers.counts[what] = writers.counts.get(what, 0) + met[what]
    finally:
        for process in writers.processes:
            process.kill()
            process.wait()


def _start(login: Login, equipments: int, number: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.writer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    where = {"host": login.host, "port": login.port, "dbname": login.dbname}
    account = {"user": login.user, "password": login.password}
    orders = {"login": {**where, **account}, "seed": number, "period_s": PERIOD_S, "equipments": equipments}
    process.stdin.write(json.dumps(orders) + "\n")
    process.stdin.flush()
    return process


@dataclass
class Spans:
    """When what began and ended, on the monotonic clock that the writers share; and what was foretold or went wrong."""

    whole: tuple[float, float] = (0.0, 0.0)
    build: tuple[float, float] = (0.0, 0.0)
    predicted_ms: float = 0.0
    built: bool = True


def _control(_: Login) -> Spans:
    """Nobody deploys anything: what the machine alone does to the writers."""
    begin = time.monotonic()
    time.sleep(10)
    return Spans(whole=(begin, time.monotonic()))


def _deployed(login: Login, build: Callable[[Login, Connection, Spans], None]) -> Spans:
    """Fence, clean-up, build, verify, as the roles do them."""
    spans = Spans()
    run_id = opened(login)
    begin = time.monotonic()
    with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
        fenced_clean_up(connection, run_id)
        start = time.monotonic()
        build(login, connection, spans)
        spans.build = (start, time.monotonic())
        verification.require_exact(verification.inspect(connection, PLAN), PLAN)
        connection.commit()
        write_fence.lower_fence(connection, PLAN)
    spans.whole = (begin, time.monotonic())
    return spans


def _concurrently(login: Login) -> Spans:
    def build(login: Login, connection: Connection, _: Spans) -> None:
        inspection = verification.inspect(connection, PLAN)
        connection.commit()  # an open snapshot would stall the build
        build_concurrently.build(login, PLAN, inspection, build_concurrently.Limits(deadline_s=TIMEOUT_MS / 1000))

    return _deployed(login, build)


def _plainly(login: Login) -> Spans:
    def build(login: Login, connection: Connection, spans: Spans) -> None:
        spans.predicted_ms = write_pause.write_pause(connection, PLAN).write_pause_ms
        connection.commit()
        _migrate(login, lock_timeout_ms=LOCK_TIMEOUT_MS)

    return _deployed(login, build)


def _as_the_guide_says(login: Login) -> Spans:
    """No fence and no timeouts. Its own clean-up, row by row, would take minutes: ours stands in for it."""
    spans = Spans()
    run_id = opened(login)
    begin = time.monotonic()
    with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
        clean_up(connection, run_id)
    time.sleep(PRISMA_START_S)
    start = time.monotonic()
    try:
        _migrate(login, lock_timeout_ms=0)
    except psycopg2.errors.UniqueViolation:
        spans.built = False
    spans.build = (start, time.monotonic())
    spans.whole = (begin, time.monotonic())
    return spans


def _migrate(login: Login, *, lock_timeout_ms: int) -> None:
    """What Prisma sends: the file as one string, which the server runs as one transaction."""
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {lock_timeout_ms}")
        for attempt in range(1, 11):
            try:
                cursor.execute(MIGRATION)
                return
            except psycopg2.errors.LockNotAvailable:
                if attempt == 10:
                    raise
                time.sleep(0.2)


WAYS: dict[str, Callable[[Login], Spans]] = {
    "control": _control,
    "concurrent": _concurrently,
    "plain": _plainly,
    "guide": _as_the_guide_says,
}


def measure(bench: Bench) -> list[Result]:
    """Every way in turn, over and over, each on a copy of its own."""
    surplus = bench.size(SURPLUS, least=3)
    template = seed(bench.server, "bench_writers", surplus)
    equipments = 2 * groups(surplus)
    wrong: list[int] = []
    runs: dict[str, list[tuple[Spans, Writers]]] = {name: [] for name in WAYS}
    for _ in range(REPETITIONS):
        for name, way in WAYS.items():
            with bench.server.copy(template, "bench_copy") as login:
                with writing(login, equipments) as writers:
                    spans = way(login)
                runs[name].append((spans, writers))
                _tell(bench, name, spans, writers)
                if name == "plain":
                    wrong.append(_wrong_choices(login, equipments, _pause_ms(spans, writers)))
    bench.server.drop(template.dbname)
    return [*_stalls(bench, runs), *_forecasts(bench, runs["plain"], sum(wrong))]


def _tell(bench: Bench, name: str, spans: Spans, writers: Writers) -> None:
    latencies = writers.latencies_ms(*spans.whole)
    built = spans.build[1] - spans.build[0]
    bench.say(
        f"{name}: {len(latencies)} visits in {spans.whole[1] - spans.whole[0]:.1f} s (build {built:.1f} s), p99.9"
        f" {percentile(latencies, 99.9):.1f} ms, longest {latencies[-1]:.1f} ms, predicted {spans.predicted_ms:.0f} ms,"
        f" built {spans.built}, {writers.counts}"
    )


def _stalls(bench: Bench, runs: dict[str, list[tuple[Spans, Writers]]]) -> list[Result]:
    """Per run first, then the median of the runs: a run that was disturbed counts once."""
    found, slow = [], {}
    for name, words in WORDS.items():
        latencies = [writers.latencies_ms(*spans.whole) for spans, writers in runs[name]]
        slow[name] = [percentile(run, 99.9) for run in latencies]
        longest = median(run[-1] for run in latencies)
        found.append(bench.result(P999 + words, median(slow[name]), "ms", repetitions=REPETITIONS))
        found.append(bench.result(LONGEST + words, longest, "ms", repetitions=REPETITIONS))
    stalls = [one / floor for one, floor in zip(slow["concurrent"], slow["control"], strict=True)]
    refused = sum(not spans.built for spans, _ in runs["guide"])
    return [
        *found,
        bench.result(STALL, median(stalls), "ratio", goal=FLOOR_FACTOR, repetitions=REPETITIONS),
        bench.result(REFUSED, refused, "builds", repetitions=REPETITIONS),
    ]


def _pause_ms(spans: Spans, writers: Writers) -> float:
    """The longest that a visit took of those that met the build."""
    return writers.latencies_ms(*spans.build)[-1]


def _wrong_choices(login: Login, equipments: int, pause_ms: float) -> int:
    """What auto would choose now, the indexes gone again, with a limit below and with one above what was measured."""
    limits = {pause_ms / FORECAST_FACTOR: "concurrent", pause_ms * FORECAST_FACTOR: "prisma"}
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
        path = release.lay_out(Path(directory))
        release.record(login, path)
        with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
            for index in PLAN.indexes:
                cursor.execute(f"DROP INDEX {PLAN.schema}.{index.name}")
        with connect(login) as connection:
            fenced_clean_up(connection, opened(login))
        with writing(login, equipments):
            return sum(
                building.decide(login, PLAN, path, _auto(limit)).strategy != right for limit, right in limits.items()
            )


def _auto(limit_ms: float) -> building.Options:
    return building.Options(
        strategy="auto",
        max_write_pause_ms=round(limit_ms),
        attempts=1,
        deadline_s=60,
        prisma_timeout_s=60,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
        statement_timeout_ms=TIMEOUT_MS,
    )


def _forecasts(bench: Bench, runs: list[tuple[Spans, Writers]], wrong: int) -> list[Result]:
    measured = [_pause_ms(spans, writers) for spans, writers in runs]
    predicted = [spans.predicted_ms for spans, _ in runs]
    factors = [factor(*pair) for pair in zip(predicted, measured, strict=True)]
    return [
        bench.result(PREDICTED, median(predicted), "ms", repetitions=REPETITIONS),
        bench.result(MEASURED, median(measured), "ms", repetitions=REPETITIONS),
        bench.result(FACTOR, median(factors), "ratio", goal=FORECAST_FACTOR, repetitions=REPETITIONS),
        bench.result(WRONG, wrong, "choices", goal=0, repetitions=2 * REPETITIONS),
    ]


def draw(panel: Any, results: dict[str, Result]) -> None:
    """What one visit in a thousand exceeds, by way, on a logarithmic axis with the goal: so many times the floor."""
    names = [P999 + words for words in WORDS.values()]
    values = [results[name].value for name in names]
    bars = panel.barh(
        [name.removeprefix(P999) for name in names], values, color=["#9aa5b1", "#2b7a4b", "#d9a441", "#b5483a"]
    )
    panel.bar_label(bars, [f"{number(value)} ms" for value in values], padding=3)
    panel.set_xscale("log")
    panel.axvline(FLOOR_FACTOR * values[0], color="black", linestyle=":", linewidth=1)
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.set_title("Wait of a writer, p99.9, the rule deployed to a million rows (ms)", loc="left")
