"""The whole deployment against the guide's own commands, and what a deployment with nothing to do takes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg2
import yaml

from bench.playbooks import Played, play
from bench.results import Result, median
from bench.run import Bench, stopwatch
from bench.seed import PLAN
from bench.server import ROOT

PAIRS = 3
REPEATS = 5
RATIO_GOAL = 1.5
ADDED_GOAL_S = 20.0
CALLS_GOAL = 12  # with nothing to do
FLOOR_FACTOR, FLOOR_MARGIN_S = 1.3, 3.0
FLOOR_CALLS = 12

OURS = "a whole deployment: deploy.yml"
GUIDE = "a whole deployment: the guide's commands, corrected, as a shell script"
RATIO = "deploy.yml / the guide's commands"
ADDED = "deploy.yml - the guide's commands"
NOTHING = "a deployment with nothing to do"
FLOOR = f"its floor: a playbook of {FLOOR_CALLS} tasks that call ansible.builtin.stat"
NOTHING_RATIO = "nothing to do / its floor"
CALLS = "module calls of a deployment with nothing to do"
FIRST_CALLS = "module calls of a whole deployment"

# What users lose while a busy machine deploys is measured elsewhere; here it must not end a run.
PATIENCE = {"healthcheck_max_failed_percent": 100, "healthcheck_max_gap_ms": 600_000, "app_instance_timeout_s": 300}


def measure(bench: Bench) -> list[Result]:
    """Both ways in turns, each on the lab as reset; then the last deployment again and again."""
    _make("lab-up")
    pairs, repeats = (max(1, round(full * bench.scale)) for full in (PAIRS, REPEATS))
    ours: list[float] = []
    guide: list[float] = []
    calls = 0
    for pair in range(pairs):
        # The last way is ours: what it leaves is what the deployments with nothing to do begin with.
        for way in (OURS, GUIDE) if (pairs - pair) % 2 == 0 else (GUIDE, OURS):
            _make("lab-reset")
            if way is GUIDE:
                guide.append(_guide(_lab()))
            else:
                played = _deploy()
                ours.append(played.seconds)
                calls = played.calls
            _require_deployed(_lab())
            bench.say(f"{way}: {(guide if way is GUIDE else ours)[-1]:.1f} s")
    ratios = [our / theirs for our, theirs in zip(ours, guide, strict=True)]
    added = [our - theirs for our, theirs in zip(ours, guide, strict=True)]
    return [
        bench.result(OURS, median(ours), "s", repetitions=pairs),
        bench.result(GUIDE, median(guide), "s", repetitions=pairs),
        bench.result(RATIO, median(ratios), "ratio", goal=RATIO_GOAL, repetitions=pairs),
        bench.result(ADDED, median(added), "s", goal=ADDED_GOAL_S, repetitions=pairs),
        bench.result(FIRST_CALLS, calls, "calls", repetitions=pairs),
        *_nothing_to_do(bench, repeats),
    ]


def _nothing_to_do(bench: Bench, repeats: int) -> list[Result]:
    """deploy.yml and its floor right after one another, over and over."""
    runs, floors = [], []
    for _ in range(repeats):
        runs.append(_deploy())
        floors.append(_floor())
        bench.say(
            f"again: {runs[-1].seconds:.1f} s, {runs[-1].calls} calls; floor: {floors[-1].seconds:.1f} s,"
            f" {floors[-1].calls} calls"
        )
    floor = median(one.seconds for one in floors)
    goal = FLOOR_FACTOR * floor + FLOOR_MARGIN_S
    ratios = [one.seconds / least.seconds for one, least in zip(runs, floors, strict=True)]
    return [
        bench.result(NOTHING, median(one.seconds for one in runs), "s", goal=round(goal, 6), repetitions=repeats),
        bench.result(FLOOR, floor, "s", repetitions=repeats),
        bench.result(NOTHING_RATIO, median(ratios), "ratio", repetitions=repeats),
        bench.result(CALLS, max(one.calls for one in runs), "calls", goal=CALLS_GOAL, repetitions=repeats),
    ]


def _guide(lab: dict[str, Any]) -> float:
    environment = {name.upper(): str(value) for name, value in lab.items()}
    with stopwatch() as seconds:
        done = subprocess.run(
            [f"{ROOT}/bench/guide.sh"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode:
        raise RuntimeError(f"bench/guide.sh ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4_000:]}")
    return seconds[0]


def _deploy() -> Played:
    return play("deploy.yml", "inventories/local", "-l", "local", "-e", json.dumps(PATIENCE))


def _floor() -> Played:
    """The least that as many calls take: each reads one directory of the lab's host."""
    tasks = [{"name": f"Call {number}", "ansible.builtin.stat": {"path": "/"}} for number in range(1, FLOOR_CALLS + 1)]
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
        path = Path(directory) / "floor.yml"
        path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
        return play(path, "inventories/local", "-l", "local", bare=True)


def _require_deployed(lab: dict[str, Any]) -> None:
    """Both ways must have done it: every answer is the new build's, and the indexes are valid."""
    commits = set()
    for _ in range(8):
        with urlopen(f"{lab['app_url']}/", timeout=30) as answer:
            page = answer.read().decode()
            commits |= {
                commit for commit in (lab["commit_before"], lab["commit_after"]) if f'\\"b\\":\\"{commit}\\"' in page
            }
    with contextlib.closing(psycopg2.connect(lab["database_url"])) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indisvalid AND relname = ANY (%s)",
            ([index.name for index in PLAN.indexes],),
        )
        (valid,) = cursor.fetchone() or (0,)
    if commits != {lab["commit_after"]} or valid != len(PLAN.indexes):
        raise RuntimeError(
            f"not deployed: {commits} answer, {valid} of {len(PLAN.indexes)} indexes: nothing to compare"
        )


def _lab() -> dict[str, Any]:
    return dict(json.loads((ROOT / ".lab/lab.json").read_text(encoding="utf-8")))


def _make(target: str) -> None:
    subprocess.run(["make", "--no-print-directory", target], cwd=ROOT, check=True, capture_output=True, text=True)
