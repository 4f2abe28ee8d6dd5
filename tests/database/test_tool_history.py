"""migrate_adapter command: the tool is believed about its own database alone, and about what it says twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.migration.tool_history import Commands, ToolHistory
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login

from tests.database import migration_tool
from tests.database.index_tools import query, traces, verdicts, wait_for
from tests.database.prisma_release import existing
from tests.database.test_adapters import Adapter, closed, opened
from tests.support.prisma_stand_in import EARLIER, OURS

Module = Callable[..., dict[str, Any]]
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'at-most-one-history%%'"


@pytest.fixture
def adapter(
    login: Login,
    plan: Plan,
    run_module: Module,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    tmp_path: Path,
) -> Adapter:
    common = {"login": login_args, "plan": plan_data}
    history = {"history": migration_tool.install(login, tmp_path)}
    return Adapter(
        login,
        plan,
        run_module,
        common,
        {"adapter": "sql"},
        history,
        lambda: OURS in migration_tool.recorded(login),
    )


@pytest.fixture
def prepared(adapter: Adapter) -> Callable[[], dict[str, Any]]:
    """What prepare hears of the history."""

    def ask() -> dict[str, Any]:
        answer = adapter.module("database_preflight", {**adapter.common, **adapter.build, **adapter.history})
        return {**answer["history"], "complete": answer["complete"]}

    return ask


def test_prepare_asks_the_tool_here_and_where_no_server_is(
    adapter: Adapter, prepared: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    before = traces(adapter.login)
    found = prepared()
    assert (found["verdict"], found["refusal"], found["complete"]) == ("pending", "", False)
    assert (migration_tool.calls(tmp_path), traces(adapter.login)) == (["status", "status"], before)
    assert adapter.present()["changed"]
    assert prepared()["complete"]


@pytest.mark.parametrize(
    ("mode", "identifier", "seen"),
    [
        ("elsewhere", "AMO-3631", "it asks another database than this run"),
        ("leaks", "AMO-3630", "is not known: ./tool status"),
        ("not installed", "AMO-3636", "cannot be started"),
    ],
)
def test_prepare_stops_at_a_tool_that_does_not_answer_about_this_database(
    adapter: Adapter, prepared: Callable[[], dict[str, Any]], tmp_path: Path, mode: str, identifier: str, seen: str
) -> None:
    migration_tool.behave(tmp_path, mode)
    if mode == "not installed":
        (tmp_path / "tool").unlink()
    before = traces(adapter.login)
    found = prepared()
    assert seen in found["refusal"]
    assert identifier in str(found["findings"])
    assert (found["complete"], found["strategy"], traces(adapter.login)) == (False, "none", before)


def test_indexes_that_hold_complete_nothing_while_the_tool_does_not_answer(
    adapter: Adapter, prepared: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    assert adapter.present()["changed"]
    migration_tool.behave(tmp_path, "leaks")
    assert prepared()["complete"] is False


def test_what_the_tool_prints_is_shown_without_its_secrets(adapter: Adapter, tmp_path: Path) -> None:
    migration_tool.behave(tmp_path, "leaks")
    said = str(adapter.present())
    assert "cannot connect to" in said
    for secret in (adapter.login.password, "abracadabra", "p%40ss"):
        assert secret not in said


def test_its_session_is_marked_and_no_process_list_has_the_password(adapter: Adapter) -> None:
    told = adapter.present()["told"]
    assert told == f"./tool applied {OURS}"
    ((session, arguments),) = query(
        adapter.login, "SELECT session, arguments FROM aedpics.tool_history WHERE name = %s", OURS
    )
    assert session.startswith("at-most-one-history-")
    assert arguments.endswith(f" ./tool applied {OURS} ")
    assert adapter.login.password not in arguments


def test_a_tool_that_hangs_is_ended_with_its_child_and_its_session(
    login: Login, plan: Plan, adapter: Adapter, tmp_path: Path
) -> None:
    adapter.history["history"]["timeout_s"] = 3
    migration_tool.behave(tmp_path, "hangs")
    refused = adapter.present()
    assert "did not end within" in refused["seen"]
    wait_for(lambda: query(login, SESSIONS), [(0,)].__eq__, seconds=5)
    wait_for(lambda: not os.path.exists(f"/proc/{(tmp_path / 'child').read_text()}/exe"), seconds=5)
    assert existing(login, plan) == ()


@pytest.mark.parametrize(
    ("mode", "identifier", "seen"),
    [
        ("lies", "AMO-3633", "ended with exit code 0 and has recorded nothing"),
        ("fails", "AMO-3632", "ended with exit code 7. It said: it was told so"),
    ],
)
def test_what_was_not_recorded_is_no_success_and_the_next_call_records_it(
    adapter: Adapter, tmp_path: Path, mode: str, identifier: str, seen: str
) -> None:
    migration_tool.behave(tmp_path, mode)
    refused = adapter.present()
    assert seen in refused["seen"]
    assert refused["findings"][0]["identifier"] == identifier
    assert verdicts(adapter.login, adapter.plan) == ["present"] * 3

    verified = {**adapter.common, **adapter.build, **adapter.history, "state": "verified"}
    assert "says that migration" in adapter.module("index_set", verified)["seen"]
    assert adapter.module("index_set", {**verified, "fail": False})["history"] == "pending"

    migration_tool.behave(tmp_path)
    done = adapter.present()
    assert (done["changed"], done["history"], adapter.applied()) == (True, "applied", True)
    assert adapter.module("index_set", verified)["history"] == "applied"


def test_a_predicted_record_changes_nothing_and_shows_the_command(adapter: Adapter, tmp_path: Path) -> None:
    predicted = adapter.present(check=True)
    assert migration_tool.calls(tmp_path) == ["status"]
    assert predicted["told"] == f"./tool applied {OURS}"
    assert f"{OURS}: not applied" in predicted["diff"]["before"]
    assert f"{OURS}: applied" in predicted["diff"]["after"]


def test_what_was_recorded_before_stays_recorded_when_the_indexes_go(adapter: Adapter) -> None:
    migration_tool.record(adapter.login, OURS)
    run_id = opened(adapter.login, adapter.plan)
    assert adapter.present(run_id=run_id)["told"] == ""
    closed(adapter.login, run_id, "deployed")
    done = adapter.take_back(run_id, run_id=opened(adapter.login, adapter.plan))
    assert (done["told"], existing(adapter.login, adapter.plan), adapter.applied()) == ("", (), True)


def test_a_run_that_was_killed_right_after_the_record_is_known_to_have_made_it(adapter: Adapter) -> None:
    run_id = opened(adapter.login, adapter.plan)
    assert adapter.present(run_id=run_id)["changed"]  # no phase is in the journal
    closed(adapter.login, run_id, "stopped")
    back = adapter.take_back(run_id, run_id=opened(adapter.login, adapter.plan))
    assert (back["told"], adapter.applied()) == (f"./tool not-applied {OURS}", False)


def test_under_later_migrations_nothing_is_taken_back(adapter: Adapter, tmp_path: Path) -> None:
    run_id = adapter.deploy()
    migration_tool.record(adapter.login, migration_tool.LATER)
    assert adapter.present()["changed"] is False, "applied all the same"
    back = opened(adapter.login, adapter.plan)
    before = traces(adapter.login)
    refused = adapter.take_back(run_id, run_id=back)
    assert "later migrations" in refused["seen"]
    assert (traces(adapter.login), len(existing(adapter.login, adapter.plan))) == (before, 3)
    assert migration_tool.recorded(adapter.login) == [EARLIER, OURS, migration_tool.LATER]


def test_a_broken_tool_stops_a_rollback_first_and_that_of_a_failed_run_last(adapter: Adapter, tmp_path: Path) -> None:
    run_id = adapter.deploy()
    back = opened(adapter.login, adapter.plan)
    migration_tool.behave(tmp_path, "leaks")
    assert "is not known" in adapter.take_back(run_id, run_id=back)["seen"]
    assert len(existing(adapter.login, adapter.plan)) == 3

    assert "is not known" in adapter.take_back(run_id, run_id=back, failed_run=run_id)["seen"]
    assert (existing(adapter.login, adapter.plan), adapter.applied()) == ((), True)

    migration_tool.behave(tmp_path)
    assert adapter.take_back(run_id, run_id=back)["changed"]
    assert not adapter.applied()


def test_the_environment_is_filled_and_nothing_of_libpq_is_inherited(
    login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICE", "another")
    place = replace(login, host="::1", dbname="a b", sslmode="verify-full", sslrootcert="system")
    given = {"URL": "postgresql+psycopg://{address}", "NAME": "{dbname} {migration} {schema} {else}"}
    history = ToolHistory(place, "0002", Commands(str(tmp_path), given, 1, (), (), ()), "shop")
    found = history._environment(place, "mark")
    assert found["URL"].endswith(f"@[::1]:{login.port}/a%20b?sslmode=verify-full&sslrootcert=system")
    assert found["URL"].startswith("postgresql+psycopg://aedpics_admin:only%20for")
    assert found["NAME"] == "a b 0002 shop {else}"
    assert (found["PGHOST"], found["PGSSLROOTCERT"], found["PGAPPNAME"]) == ("::1", "system", "mark")
    assert "PGSERVICE" not in found
