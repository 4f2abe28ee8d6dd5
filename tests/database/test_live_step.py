"""Who waits at a terminal for rows and indexes sees how far they are, and the server is asked no more for nobody."""

from __future__ import annotations

import pytest
from at_most_one.indexes import build_concurrently
from at_most_one.plan import Plan
from at_most_one.postgres.checkpoint import Place
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.postgres.locks import Watch
from at_most_one.runs import journal, requests
from at_most_one.runs.control import Checkpoints
from at_most_one.runs.controllers import Controller
from at_most_one.system.live_step import Record

from tests.database.index_tools import in_thread, inspect, old_snapshot, verdicts, wait_for


def ask(login: Login, plan: Plan, action: str) -> None:
    with connect(login) as connection:
        requests.ask(connection, plan.id, action, "jiwoo", "laptop", check=False)


def test_steps_are_told_at_each_checkpoint_and_what_a_run_waits_for(
    login: Login, plan: Plan, live_record: Record
) -> None:
    opening = journal.Opening(plan, "production", "minsu", Controller("gateway-2", 1), reads_requests=True)
    with connect(login) as connection:
        run_id = journal.open_run(connection, opening).run_id
    at, told = Checkpoints(run_id, 0.02), {"unit": "rows", "done": 5, "total": 25, "waits_for": ""}
    with connect(login, autocommit=True) as connection:
        at(connection, Place("cleanup", "rows", 5, 25))
        assert live_record.read() == told
        ask(login, plan, "pause")
        with in_thread(lambda: at(connection, Place("cleanup", "rows", 10, 25))):
            wait_for(live_record.read, lambda read: read == {**told, "done": 10, "waits_for": "resume"})
            ask(login, plan, "resume")
        assert live_record.read() == {**told, "done": 10}


def test_a_build_is_told_in_the_server_s_own_words(login: Login, plan: Plan, live_record: Record) -> None:
    limits = build_concurrently.Limits(60)
    with old_snapshot(login) as reader:
        with in_thread(lambda: build_concurrently.build(login, plan, inspect(login, plan), limits)) as results:
            wait_for(live_record.read, lambda read: read.get("detail") == "waiting for old snapshots")
            reader.rollback()
        (built,) = results
    assert len(built.statements) == 3
    assert verdicts(login, plan) == ["present"] * 3


def test_nobody_is_told_where_nobody_watches(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Watch] = []
    monkeypatch.setattr(Watch, "_tell_progress", asked.append)
    connection.autocommit = True
    Watch(connection, "aedpics", ["inspection_sessions"]).sample()
    assert asked == []
