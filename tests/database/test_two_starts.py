"""Starts at once, from real processes that are all alive: one wins; every other says who, since when, from where."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal

ROUNDS, STARTERS = 100, 4
AHEAD_S = 0.01  # enough for every starter to have read its order and to wait for the same moment

# Each starter is connected before the moment comes, and opens as a deployment does. CLOCK_MONOTONIC is the machine's.
STARTER = """
import json, os, socket, sys, time
from at_most_one import plan
from at_most_one.errors import OperatorError
from at_most_one.postgres import connection as database
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
login, data, who = json.loads(sys.stdin.readline())
login = database.Login(**login)
opening = journal.Opening(plan.parse(data), "production", who, Controller(socket.gethostname(), os.getpid()))
for order in sys.stdin:
    try:
        with database.connect(login) as connection:
            print("ready", flush=True)
            moment = float(sys.stdin.readline())
            while time.monotonic() < moment:
                pass
            answer = {"run_id": journal.open_run(connection, opening).run_id}
    except OperatorError as refused:
        answer = {"refused": refused.seen, "holder": refused.details.get("holder")}
    print(json.dumps({**answer, "who": who, "pid": os.getpid()}), flush=True)
"""


class Starter:
    """One process that opens a run each time it is told to."""

    def __init__(self, login: Login, plan_data: dict[str, Any], who: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.tell([vars(login), plan_data, who])

    def tell(self, order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(order)}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def starters(login: Login, plan_data: dict[str, Any]) -> Iterator[list[Starter]]:
    with contextlib.ExitStack() as ending:
        started = []
        for number in range(STARTERS):
            starter = Starter(login, plan_data, f"person {number}")
            ending.callback(starter.process.wait)
            ending.callback(starter.process.kill)
            started.append(starter)
        yield started


def test_one_of_the_starts_wins_in_each_round(
    login: Login, starters: list[Starter], record_property: Callable[[str, object], None]
) -> None:
    """In every tenth round there is no journal yet, so that its creation is part of the race."""
    here = re.escape(socket.gethostname())
    winners: list[str] = []
    for number in range(ROUNDS):
        if number % 10 == 0:
            with connect(login) as connection, connection.cursor() as cursor:
                cursor.execute("DROP SCHEMA IF EXISTS at_most_one CASCADE")
        for starter in starters:
            starter.tell("connect")
        assert [starter.hear() for starter in starters] == ["ready"] * STARTERS
        moment = time.monotonic() + AHEAD_S
        for starter in starters:
            starter.tell(moment)
        answers = [json.loads(starter.hear()) for starter in starters]

        won = [answer for answer in answers if "run_id" in answer]
        assert len(won) == 1, f"round {number}: {answers}"
        winner = won[0]
        with connect(login) as connection:
            (run,) = (run for run in journal.read(connection) if run["outcome"] is None)
            journal.close_run(connection, winner["run_id"], "stopped")
        assert (run["run_id"], run["who"], run["controller_pid"]) == (winner["run_id"], winner["who"], winner["pid"])
        since = f"{run['started_at'][:19]}Z"
        says = (
            rf"Plan {run['plan_id']} is held by run {winner['run_id']}: {winner['who']}, since {since} "
            rf"\(0 min \d+ s ago\), from {here} \(pid {winner['pid']}\), no phase finished yet\."
        )
        for answer in answers:
            if answer is not winner:
                assert re.fullmatch(says, answer["refused"]), f"round {number}: {answer['refused']}"
                assert answer["holder"]["run_id"] == winner["run_id"]
        winners.append(winner["who"])
    assert len(set(winners)) > 1, "it was no race: the same one always came first"
    record_property("summary", f"starts at once: one winner of {STARTERS} in {len(winners)} of {ROUNDS} rounds")
