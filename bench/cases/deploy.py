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

from bench import bare
from bench.playbooks import Played, play
from bench.results import Result, median
from bench.run import Bench, stopwatch
from bench.seed import PLAN
from bench.server import ROOT

PAIRS = 3
REPEATS = 5
FLOOR_FACTOR = 1.3
ENOUGH_S = 10.0

OURS = "a whole deployment: deploy.yml"
GUIDE = "a whole deployment: the guide's commands, corrected, as a shell script"
RATIO = "deploy.yml / the guide's commands"
ADDED = "deploy.yml - the guide's commands"
NOTHING = "a deployment with nothing to do"
FLOOR = "its floor: the same module calls from a bare playbook, in check mode"
NOTHING_RATIO = "nothing to do / its floor"
CALLS = "module calls of a deployment with nothing to do"

# What users lose while a busy machine deploys is measured elsewhere; here it must not end a run.
PATIENCE = {"healthcheck_max_failed_percent": 100, "healthcheck_max_gap_ms": 600_000, "app_instance_timeout_s": 300}


def measure(bench: Bench) -> list[Result]:
    """Both ways in turns, each on the lab as reset; then the last deployment again and again."""
    _make("lab-up")
    pairs, repeats = (max(1, round(full * bench.scale)) for full in (PAIRS, REPEATS))
    ours: list[float] = []
    guide: list[float] = []
    for pair in range(pairs):
        # The last way is ours: what it leaves is what the deployments with nothing to do begin with.
        for way in (_guide, _ours) if (pairs - pair) % 2 else (_ours, _guide):
            _make("lab-reset")
            seconds = way(_lab())
            _require_deployed(_lab())
            bench.say(f"{way.__name__.strip('_')}: {seconds:.1f} s")
            (ours if way is _ours else guide).append(seconds)
    ratios = [our / theirs for our, theirs in zip(ours, guide, strict=True)]
    added = [our - theirs for our, theirs in zip(ours, guide, strict=True)]
    return [
        bench.result(OURS, median(ours), "s", repetitions=pairs),
        bench.result(GUIDE, median(guide), "s", repetitions=pairs),
        bench.result(RATIO, median(ratios), "ratio", goal=1.15, repetitions=pairs),
        bench.result(ADDED, median(added), "s", repetitions=pairs),
        *_nothing_to_do(bench, repeats),
    ]


def _nothing_to_do(bench: Bench, repeats: int) -> list[Result]:
    """deploy.yml and its floor right after one another, over and over."""
    seconds, floors, count = [], [], 0
    for _ in range(repeats):
        again = _deploy()
        floor = _floor(again)
        count = bare.calls(again)
        bench.say(
            f"again: {again.seconds:.1f} s, {count} calls; floor: {floor.seconds:.1f} s, {bare.calls(floor)} calls"
        )
        seconds.append(again.seconds)
        floors.append(floor.seconds)
    goal = max(ENOUGH_S, FLOOR_FACTOR * median(floors))
    ratios = [one / floor for one, floor in zip(seconds, floors, strict=True)]
    return [
        bench.result(NOTHING, median(seconds), "s", goal=round(goal, 6), repetitions=repeats),
        bench.result(FLOOR, median(floors), "s", repetitions=repeats),
        bench.result(NOTHING_RATIO, median(ratios), "ratio", repetitions=repeats),
        bench.result(CALLS, count, "calls", repetitions=repeats),
    ]


def _ours(_lab: dict[str, Any]) -> float:
    return _deploy().seconds


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


def _floor(played: Played) -> Played:
    """The same calls, bare, in check mode: the journal, the receipt and the report stay as the run has left them."""
    lab = _lab()
    login = {name: lab[f"database_{name}"] for name in ("host", "port", "user", "password")}
    known = {
        "login": {**login, "dbname": lab["database_name"]},
        "credentials": {"email": lab["inspector_email"], "password": lab["inspector_password"]},
        "admin_credentials": {"email": lab["admin_email"], "password": lab["admin_password"]},
        "controller_pid": os.getpid(),
    }
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
        path = Path(directory) / "bare.yml"
        path.write_text(yaml.safe_dump(bare.playbook(played, known, {}, "lab"), sort_keys=False), encoding="utf-8")
        inventory = Path(directory) / "hosts.yml"
        connection = {"ansible_connection": "local", "ansible_pipelining": True}
        connection |= {"ansible_python_interpreter": f"{ROOT}/.venv/bin/python"}
        inventory.write_text(
            yaml.safe_dump({"all": {"hosts": {"lab": connection}, "vars": connection}}), encoding="utf-8"
        )
        return play(path, inventory, "--check", bare=True)


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
