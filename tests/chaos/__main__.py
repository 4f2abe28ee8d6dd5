"""Strike deploy.yml and rollback.yml at every point, or at a fixed sample, and say how many end as they must.

    python -m tests.chaos [--sample N | --essential] [--workers N] [--again] [--minutes N] [--only TEXT]...

Each point is put back, struck and run once more. What a point has shown stands in .lab/chaos/results.jsonl: a run that
was interrupted goes on from there, unless --again is given or the code has changed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.chaos import apart
from tests.chaos.points import Course, Point, alternating, essential, every, sample
from tests.chaos.statements import Drill, calls_of
from tests.chaos.strike import FALSE_SUCCESS, Range
from tests.chaos.world import ROOT, World

DIRECTORY = ROOT / ".lab/chaos"
RESULT = ROOT / ".lab/chaos.json"
WAYS = ("deploy", "concurrent", "rollback")
STATEMENTS_OF = {"all": 1, "sample": 16}  # of so many statements one is struck


def code_digest() -> str:
    """What the results are about: the product, and what strikes it."""
    digest = hashlib.sha256()
    parts = (
        "playbooks",
        "roles",
        "library",
        "module_utils",
        "plans",
        "filter_plugins",
        "action_plugins",
        "tests/chaos",
    )
    for file in sorted(file for part in parts for file in (ROOT / part).rglob("*") if file.is_file()):
        if file.suffix != ".pyc":
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


class Results:
    """What each point has shown, kept as it comes."""

    def __init__(self, path: Path, code: str, *, forget: bool) -> None:
        self.path, self.code, self.lock, self.started = path, code, threading.Lock(), time.monotonic()
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() and not forget else []
        self.faults: dict[str, list[str]] = {line["point"]: line["faults"] for line in lines if line["code"] == code}

    def add(self, point: str, faults: list[str]) -> None:
        with self.lock, self.path.open("a") as file:
            self.faults[point] = faults
            file.write(json.dumps({"point": point, "faults": faults, "code": self.code}, ensure_ascii=False) + "\n")
            word = "ok" if not faults else f"FAILED: {'; '.join(faults)}"
            print(f"{len(self.faults)} {time.monotonic() - self.started:.0f} s {point}: {word}", flush=True)


def is_wanted(given: argparse.Namespace, name: str) -> bool:
    """Whether the point is among those that were asked for by name."""
    return not given.only or any(text in name for text in given.only)


def make_range(number: int, given: argparse.Namespace) -> Range:
    """One world, up."""
    world = World(DIRECTORY / f"world{number}", number, apart=not given.essential)
    world.make()
    logs = DIRECTORY / "logs"
    logs.mkdir(exist_ok=True)
    return Range(world, logs)


def courses_of(range_: Range, drilled: set[str], results: Results, given: argparse.Namespace) -> dict[str, Course]:
    """The undisturbed runs. After each of those ``drilled``, before anything changes, its statements are struck."""
    found = {}
    for way in ("concurrent", "deploy", "rollback"):
        found[way] = range_.course(way)
        if way == "deploy":
            range_.world.keep_as_deployed()
        if way in drilled:
            step = STATEMENTS_OF["sample" if given.sample else "all"]
            calls = calls_of(way, found[way])
            calls = [call for call in calls if is_wanted(given, f"{way} | statement | {call.name}")]
            for name, faults in Drill(range_.world).strike_all(calls, set(results.faults), step):
                results.add(name, faults)
    return {way: found[way] for way in WAYS}


def strike_all(ranges: list[Range], points: list[Point], results: Results, minutes: float) -> None:
    """Every point once, on whichever world is free."""
    free: queue.SimpleQueue[Range] = queue.SimpleQueue()
    for range_ in ranges:
        free.put(range_)

    def one(point: Point) -> None:
        range_ = free.get()
        try:
            if time.monotonic() - results.started < 60 * minutes:
                results.add(point.id, range_.strike(point))
        except Exception as failure:  # a world that cannot be put back is a fault of this point
            results.add(point.id, [f"{type(failure).__name__}: {failure}"])
        finally:
            free.put(range_)

    with concurrent.futures.ThreadPoolExecutor(len(ranges)) as pool:
        list(pool.map(one, points))


def strike(given: argparse.Namespace) -> dict[str, Any]:
    """The whole; what is to be told."""
    results = Results(DIRECTORY / "results.jsonl", code_digest(), forget=given.again)
    ranges: list[Range] = []
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            ranges = list(pool.map(make_range, range(1, given.workers + 1), itertools.repeat(given)))
            drilled = [set() if given.essential else set(WAYS[n :: given.workers]) for n in range(given.workers)]
            told = [pool.submit(courses_of, *pair, results, given) for pair in zip(ranges, drilled, strict=True)]
            courses = [future.result() for future in told]
        everything = every(courses[0])
        if given.essential:
            chosen = essential(everything)
        else:
            chosen = sample(everything, given.sample) if given.sample else everything
        points = alternating([p for p in chosen if is_wanted(given, p.id)])
        statements = len(results.faults.keys() - {point.id for point in everything})
        boundaries = sum(len(point.covers) for point in everything if point.blow == "kill")
        kills = sum(point.blow == "kill" for point in everything)
        print(f"{statements} statements struck. {boundaries} boundaries between tasks make {kills} states of the world;"
              f" with the points of no return and the blows in each phase {len(everything)} points, of which"
              f" {len(points)} are wanted.", flush=True)  # fmt: skip
        strike_all(ranges, [p for p in points if p.id not in results.faults], results, given.minutes)
    finally:
        for range_ in ranges:
            range_.world.end()
    wanted = {point.id for point in points}
    struck = {name: faults for name, faults in results.faults.items() if name in wanted or "| statement |" in name}
    return {
        "boundaries": boundaries,
        "points": len(wanted) + statements,
        "struck": len(struck),
        "converged": sum(not faults for faults in struck.values()),
        "false": sum(any(fault.startswith(FALSE_SUCCESS) for fault in faults) for faults in struck.values()),
        "failed": [{"point": name, "faults": faults} for name, faults in struck.items() if faults],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Strike deploy.yml and rollback.yml, and run them once more.")
    parser.add_argument("--sample", type=int, default=0, help="how many points; all without it")
    parser.add_argument("--essential", action="store_true", help="only the points that cost rows or requests")
    parser.add_argument("--workers", type=int, default=2, help="how many worlds stand side by side")
    parser.add_argument("--again", action="store_true", help="do not believe earlier results")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no further point after this time")
    parser.add_argument("--only", action="append", default=[], help="points whose name holds this text, or another one")
    given = parser.parse_args()
    if not given.essential:
        apart.enter()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    summary = strike(given)
    RESULT.write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    for entry in summary["failed"]:
        print(f"{entry['point']}\n    {'; '.join(entry['faults'])}")
    print(f"{summary['false']} runs have called themselves well ended where it was not true")
    missing = summary["points"] - summary["struck"]
    print(f"{summary['converged']} of {summary['points']}" + (f", {missing} not struck yet" if missing else ""))
    return int(summary["converged"] < summary["points"])


if __name__ == "__main__":
    sys.exit(main())
