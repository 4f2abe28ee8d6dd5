"""Cleaning up: how much more than the leanest statement, whether it grows with the size, and the memory it takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from at_most_one.duplicates import surplus_rows
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Connection, Login, connect

from bench import module
from bench.cleaning import Cleaned, clean_up, opened
from bench.results import Result, median, number
from bench.run import Bench, stopwatch
from bench.seed import PLAN, ROWS_PER_SURPLUS, seed

RATIO = f"300,000 surplus of {300_000 * ROWS_PER_SURPLUS / 1e6:.1f} M rows: report and removal / one bare statement"
REMOVAL = "the same, the removal alone / one bare statement"
GROWTH = "dearest surplus row / cheapest, over these sizes"
REMOVAL_GROWTH = "the same, the removal alone"
ONE_GROUP = "a single group of 3 surplus rows: what any report and removal takes"
GROUP = 3
SIZES = {1_000: 9, 10_000: 7, 100_000: 5, 1_000_000: 3}  # surplus rows: repetitions
PAIRS = 5
GUIDE_ROWS = 4_000
GUIDE = f"the guide's way, row by row without archive, at {GUIDE_ROWS:,}: a surplus row"
GUIDE_RATIO = f"the guide's way / ours, at {GUIDE_ROWS:,}"
MEMORY = "peak memory of the module that reports and removes 1,000,000 rows"
MEMORY_LIMIT_MB = 150
TIMEOUT_MS = 600_000

# The leanest that leaves the same behind: one statement, the whole row as jsonb with its hash and its keeper. No
# report, no row locks before the ranking, no check that a row is one of those reviewed, no batches.
_BARE = """
WITH ranked AS (
    SELECT id, row_number() OVER best AS place, first_value(id) OVER best AS keeper
    FROM aedpics.inspection_sessions WHERE status IN ('active', 'paused')
    WINDOW best AS (PARTITION BY equipment_serial ORDER BY started_at DESC NULLS LAST, id)
), removed AS (
    DELETE FROM aedpics.inspection_sessions AS s USING ranked WHERE s.id = ranked.id AND ranked.place > 1
    RETURNING s.id, ranked.keeper, to_jsonb(s) AS row
)
INSERT INTO at_most_one.archived_row
    (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action)
SELECT 'bare', %s, 'aedpics', 'inspection_sessions', jsonb_build_object('id', id), jsonb_build_object('id', keeper),
    row, encode(sha256(convert_to(row::text, 'UTF8')), 'hex'), 'delete'
FROM removed"""


def measure(bench: Bench) -> list[Result]:
    """Every figure of this file."""
    return [*_against_bare(bench), *_by_size(bench), *_guide(bench)]


def size_name(surplus: int) -> str:
    """The figure for one size."""
    return f"a surplus row of {surplus:,}"


def _ours(connection: Connection, run_id: str) -> Cleaned:
    return clean_up(connection, run_id)


def _bare(connection: Connection, _run_id: str) -> Cleaned:
    began = time.perf_counter()
    with connection.cursor() as cursor:
        own_schema.ensure(connection)
        cursor.execute(_BARE, (PLAN.id,))
        removed = cursor.rowcount
    connection.commit()
    return Cleaned(removed, time.perf_counter() - began)


def _row_by_row(connection: Connection, _run_id: str) -> Cleaned:
    """A look for each group, then a statement for each row, each its own transaction; only of open sessions."""
    removed, began = 0, time.perf_counter()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT equipment_serial FROM aedpics.inspection_sessions WHERE status IN ('active', 'paused')"
            " GROUP BY equipment_serial HAVING count(*) > 1"
        )
        for (serial,) in cursor.fetchall():
            cursor.execute(
                "SELECT * FROM aedpics.inspection_sessions WHERE equipment_serial = %s"
                " AND status IN ('active', 'paused') ORDER BY started_at DESC",
                (serial,),
            )
            for session in cursor.fetchall()[1:]:
                cursor.execute("DELETE FROM aedpics.inspection_sessions WHERE id = %s", session[:1])
                removed += 1
    return Cleaned(removed, time.perf_counter() - began)


def _timed(
    bench: Bench, template: Login, way: Callable[[Connection, str], Cleaned], surplus: int
) -> tuple[float, float]:
    """Seconds of the whole and of the removal, on a copy of its own; it must have removed exactly the surplus."""
    with bench.server.copy(template, "bench_copy") as login:
        run_id = opened(login)
        with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection:
            surplus_rows.report(connection, PLAN, into=lambda row: None)  # a service's table is warm, a new copy is not
        with connect(login, statement_timeout_ms=TIMEOUT_MS) as connection, stopwatch() as seconds:
            cleaned = way(connection, run_id)
    name = way.__name__.strip("_")
    if cleaned.removed != surplus:
        raise RuntimeError(f"{name} removed {cleaned.removed} rows of {surplus}: nothing to compare")
    bench.say(f"{name}: {surplus:,} rows in {seconds[0]:.2f} s, of which removal {cleaned.removal_s:.2f} s")
    return seconds[0], cleaned.removal_s


def _against_bare(bench: Bench) -> list[Result]:
    surplus = bench.size(300_000)
    template = seed(bench.server, "bench_cleanup", surplus, schedules=False)
    whole, removal = [], []
    for pair in range(PAIRS):
        order = [_ours, _bare] if pair % 2 else [_bare, _ours]
        seconds = {way: _timed(bench, template, way, surplus) for way in order}
        whole.append(seconds[_ours][0] / seconds[_bare][0])
        removal.append(seconds[_ours][1] / seconds[_bare][0])
    bench.server.drop(template.dbname)
    return [
        bench.result(RATIO, median(whole), "ratio", goal=1.4, repetitions=PAIRS),
        bench.result(REMOVAL, median(removal), "ratio", repetitions=PAIRS),
    ]


def _by_size(bench: Bench) -> list[Result]:
    """What a row costs at each size, its share of what every clean-up costs included; and how large that is."""
    template = seed(bench.server, "bench_size", GROUP, schedules=False)
    alone = median(_timed(bench, template, _ours, GROUP)[0] for _ in range(PAIRS))
    bench.server.drop(template.dbname)
    found, removals = [], []
    for full, repetitions in SIZES.items():
        surplus = bench.size(full, least=GROUP)
        template = seed(bench.server, "bench_size", surplus, schedules=False)
        runs = [_timed(bench, template, _ours, surplus) for _ in range(repetitions)]
        whole, removal = (median(seconds) / surplus * 1e6 for seconds in zip(*runs, strict=True))
        found.append(bench.result(size_name(full), whole, "µs", repetitions=repetitions))
        removals.append(removal)
        if full == max(SIZES):
            memory = _memory(bench, template, surplus)
        bench.server.drop(template.dbname)
    values, fewest = [result.value for result in found], min(SIZES.values())
    return [
        *found,
        bench.result(GROWTH, max(values) / min(values), "ratio", goal=2, repetitions=fewest),
        bench.result(REMOVAL_GROWTH, max(removals) / min(removals), "ratio", repetitions=fewest),
        bench.result(ONE_GROUP, alone * 1000, "ms", repetitions=PAIRS),
        memory,
    ]


def _memory(bench: Bench, template: Login, surplus: int) -> Result:
    """The module itself, in both phases: the file is all that one knows of the other."""
    with bench.server.copy(template, "bench_copy") as login, tempfile.TemporaryDirectory() as directory:
        path, limits = f"{directory}/cleanup_plan.json", ("max_rows", "expected_groups", "expected_rows")
        arguments = {"path": path, "statement_timeout_ms": TIMEOUT_MS}
        _, reporting = module.run("duplicate_rows", login, state="reported", **arguments)
        arguments |= {"state": "removed", "run_id": opened(login), **dict.fromkeys(limits, surplus)}
        removal, removing = module.run("duplicate_rows", login, **arguments)
    if removal["removed"] != surplus:
        raise RuntimeError(f"the module removed {removal['removed']} rows of {surplus}")
    return bench.result(MEMORY, max(reporting, removing) * 1.024 / 1000, "MB", goal=MEMORY_LIMIT_MB, repetitions=1)


def _guide(bench: Bench) -> list[Result]:
    surplus = bench.size(GUIDE_ROWS, least=GROUP)
    template = seed(bench.server, "bench_guide", surplus, schedules=False)
    theirs, ours = [], []
    for _ in range(PAIRS):
        theirs.append(_timed(bench, template, _row_by_row, surplus)[0])
        ours.append(_timed(bench, template, _ours, surplus)[0])
    bench.server.drop(template.dbname)
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return [
        bench.result(GUIDE, median(theirs) / surplus * 1e6, "µs", repetitions=PAIRS),
        bench.result(GUIDE_RATIO, median(ratios), "ratio", repetitions=PAIRS),
    ]


def draw(panel: Any, results: dict[str, Result]) -> None:
    """What a surplus row costs, by the number of them, and the guide's way beside it."""
    names = {size_name(full): f"{full:,} surplus rows" for full in SIZES}
    names[GUIDE] = f"the guide's way, {GUIDE_ROWS:,}"
    values = [results[name].value for name in names]
    bars = panel.barh(list(names.values()), values, color=["#2b7a4b"] * len(SIZES) + ["#b5483a"])
    panel.bar_label(bars, [f"{number(value)} µs" for value in values], padding=3)
    panel.set_xscale("log")
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.set_title("Archive and remove: time of one surplus row (µs)", loc="left")
