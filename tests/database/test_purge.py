"""Archived rows that are past their time go; what a rollback may yet put back stays, and the journal says which."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Connection, connect
from at_most_one.runs import archive_age, journal, purge, reached

from tests.database.archived_runs import HERE, Service, with_backup
from tests.database.archived_runs import service as service  # a fixture


def purged_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [phase["details"] for phase in run["phases"] if phase["name"] == "purged"]


def test_rows_past_their_time_go_and_the_journal_keeps_the_run_and_says_so(service: Service) -> None:
    old = service.deploy("b" * 40, days=91)
    young = service.deploy("c" * 40, days=89)
    newest = service.deploy("d" * 40, days=88)
    assert service.look() == {newest: "rollback", young: "young", old: ""}
    before = service.journal()

    done = service.purge()
    assert service.rows() == {young: 25, newest: 25}
    after = service.journal()
    (said,) = purged_of(after[old])
    assert (said["rows"], said["by"]) == (25, done.run_id)
    assert said["at"][:11] == after[done.run_id]["started_at"][:11]
    assert {**after[old], "phases": after[old]["phases"][:-1]} == before[old]
    assert (after[done.run_id]["outcome"], after[done.run_id]["who"]) == ("unchanged", "minsu")
    assert [phase["name"] for phase in after[done.run_id]["phases"]] == ["purge"]


def test_a_second_purge_changes_nothing_and_opens_no_run(service: Service) -> None:
    service.deploy("b" * 40, days=91)
    service.deploy("c" * 40)
    service.purge()
    before = (service.rows(), service.journal())
    assert service.purge().run_id == ""
    assert (service.rows(), service.journal()) == before


def test_the_newest_deployment_stays_however_old_it_is_and_after_a_purge_it_is_still_the_one(
    service: Service, plan: Plan
) -> None:
    service.deploy("b" * 40, days=500)
    newest = service.deploy("c" * 40, days=400)
    service.purge()
    assert service.rows() == {newest: 25}
    with connect(service.login) as connection:
        found = reached.read(connection, plan)
    assert (found["runs"], found["purged"]) == ((newest,), [])


def test_an_open_run_stays_and_nothing_is_purged_beside_it(service: Service) -> None:
    old = service.deploy("b" * 40, days=300)
    service.deploy("c" * 40, days=200)
    at_work = service.deploy("d" * 40, days=100, outcome=None)
    assert service.look()[at_work] == "open"
    before = service.rows()
    for check in (True, False):
        with pytest.raises(OperatorError, match=f"held by run {at_work}"):
            service.purge(check=check)
    service.sql("UPDATE at_most_one.run SET lease_until = now() - interval '1 day', controller_process = NULL,"
                " controller_pid = 1 WHERE run_id = %s", at_work)  # fmt: skip
    for check in (True, False):
        with pytest.raises(OperatorError, match=f"Run {at_work} of minsu is dead and not closed") as stop:
            service.purge(check=check)
        assert "rollback.yml" in stop.value.next_step
    assert service.rows() == before
    assert service.rows()[old] == 25
    assert service.journal()[at_work]["outcome"] is None


def test_a_run_that_was_taken_back_stays_until_its_last_row_is_back(service: Service) -> None:
    older = service.deploy("b" * 40, days=300)
    back = service.deploy("c" * 40, days=200)
    service.take_back(back)
    service.sql("UPDATE at_most_one.archived_row SET restored_at = now() WHERE run_id = %s AND mod(id, 2) = 0", back)
    assert service.look() == {back: "left_behind", older: "rollback"}
    service.sql("UPDATE at_most_one.archived_row SET restored_at = now() WHERE run_id = %s", back)
    assert service.look() == {back: "", older: "rollback"}
    service.purge()
    assert service.rows() == {older: 25}


def test_a_rollback_that_stopped_half_way_keeps_what_it_has_not_put_back(service: Service) -> None:
    half = service.deploy("b" * 40, days=300)
    service.sql("UPDATE at_most_one.archived_row SET restored_at = now() WHERE run_id = %s AND mod(id, 2) = 0", half)
    newest = service.deploy("c" * 40, days=200)
    assert service.look() == {newest: "rollback", half: "half_restored"}
    service.purge()
    assert service.rows() == {half: 25, newest: 25}


def test_without_a_deployment_to_take_back_rollback_puts_back_the_rows_of_every_run(
    service: Service, plan: Plan
) -> None:
    lost = service.deploy("b" * 40, days=300)
    service.sql("DELETE FROM at_most_one.step")
    service.sql("DELETE FROM at_most_one.run")
    assert service.look() == {lost: "every_run"}
    with connect(service.login) as connection:
        assert reached.read(connection, plan)["content"]["pending"] == 25
    newest = service.deploy("c" * 40)
    assert service.look() == {newest: "rollback", lost: ""}, "now it is no rollback's, and nobody knows its run"
    service.purge()
    assert service.rows() == {newest: 25}


def test_zero_keeps_everything_and_less_is_refused(service: Service) -> None:
    old = service.deploy("b" * 40, days=9_000)
    newest = service.deploy("c" * 40)
    assert service.look(0) == {newest: "rollback", old: "never"}
    assert service.purge(0).run_id == ""
    with pytest.raises(OperatorError, match="archive_keep_days is -1"):
        service.look(-1)
    assert service.rows() == {old: 25, newest: 25}


def test_a_rollback_of_a_purged_run_names_it_and_restores_nothing(
    service: Service, connection: Connection, plan: Plan, example: Any
) -> None:
    old = service.deploy("b" * 40, rows=False)
    found = surplus_rows.report(connection, plan)
    surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=old)
    service.sql(
        "INSERT INTO at_most_one.repointed_row (run_id, plan_id, constraint_name, table_schema, table_name,"
        " primary_key, before, after) VALUES (%s, %s, 'a', 'b', 'c', '{}', '{}', '{}')",
        *(old, plan.id),
    )
    service.age(old, 300)
    newest = service.deploy("c" * 40)
    service.purge()
    service.take_back(newest)
    with connect(service.login) as connection:
        reached_now = reached.read(connection, plan)
    with connect(service.login) as connection:
        assert restore(connection, plan, run_id=old).rows == []
    (said,) = reached_now["purged"]
    assert (reached_now["runs"], said["run_id"], said["rows"]) == ((old,), old, 25)
    assert service.sql("SELECT count(*) FROM at_most_one.repointed_row") == [(0,)]


KILLED = """
import json, os, signal, socket, sys
from at_most_one import plan
from at_most_one.postgres import connection as database
from at_most_one.runs import journal, purge
from at_most_one.runs.controllers import Controller
login, data = json.load(sys.stdin)
held, batches = journal.holding, []
def holding(run_id):
    def hold(connection):
        batches.append(run_id)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        held(run_id)(connection)
    return hold
purge.BATCH, journal.holding = 5, holding
opening = journal.Opening(plan.parse(data), "production", "first", Controller(socket.gethostname(), os.getpid()))
limits = {"lock_timeout_ms": 3000, "statement_timeout_ms": 60000}
purge.purge(database.Login(**login), opening, 90, takeover=False, check=False, timeouts=limits)
"""


def test_killed_between_two_batches_the_next_purge_goes_on(service: Service, plan_data: dict[str, Any]) -> None:
    old = service.deploy("b" * 40, days=300)
    newest = service.deploy("c" * 40)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED],
        input=json.dumps([vars(service.login), plan_data]),
        text=True,
        env=environment,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL
    assert service.rows() == {old: 15, newest: 25}
    (said,) = purged_of(service.journal()[old])
    assert said["rows"] == 10, "the journal says what is gone, not more"
    (killed,) = [one for one in service.journal().values() if one["outcome"] is None]

    done = service.purge()
    assert service.rows() == {newest: 25}
    runs = service.journal()
    (said,) = purged_of(runs[old])
    assert (said["rows"], said["by"]) == (25, done.run_id)
    assert (runs[killed["run_id"]]["outcome"], runs[killed["run_id"]]["taken_over_by"]) == ("abandoned", done.run_id)
    with connect(service.login) as connection:
        assert reached.read(connection, service.plan)["runs"] == (newest,), "a purge is nothing to take back"


def test_a_purge_that_another_run_has_taken_over_removes_nothing_more(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = service.deploy("b" * 40, days=300)
    newest = service.deploy("c" * 40)
    held, batches = journal.holding, []

    def holding(run_id: str | None) -> Any:
        def hold(connection: Connection) -> None:
            batches.append(run_id)
            if len(batches) == 2:
                with connect(service.login) as other:
                    journal.open_run(other, service.opening(), takeover=True)
            held(run_id)(connection)

        return hold

    monkeypatch.setattr(journal, "holding", holding)
    monkeypatch.setattr(purge, "BATCH", 5)
    with pytest.raises(OperatorError, match="was closed as abandoned by run"):
        service.purge()
    assert service.rows() == {old: 20, newest: 25}


def test_an_error_closes_the_run_as_stopped_and_the_rest_goes_the_next_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = service.deploy("b" * 40, days=300)
    newest = service.deploy("c" * 40)
    with monkeypatch.context() as patched:
        patched.setattr(purge, "BATCH", 5)
        patched.setattr(purge, "_GROW", "SELECT 1 / 0")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            service.purge()
    (stopped,) = [one for one in service.journal().values() if one["outcome"] == "stopped"]
    assert (stopped["failed_phase"], stopped["error"]) == ("purge", "DivisionByZero")
    assert service.rows() == {old: 25, newest: 25}, "what is not recorded has not gone"
    service.purge()
    assert service.rows() == {newest: 25}


@pytest.fixture
def archive_purge(
    service: Service,
    run_module: Callable[..., dict[str, Any]],
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
) -> Callable[..., dict[str, Any]]:
    def call(*, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "keep_days": 90, "environment": "production", "who": "minsu"}
        args |= {"controller": HERE.host, "controller_pid": HERE.pid}
        return run_module("archive_purge", {**args, **options}, check=check)

    return call


@pytest.mark.parametrize("confirmed", [False, True])
def test_where_nothing_was_ever_deployed_there_is_nothing_and_nothing_is_made(
    service: Service, archive_purge: Callable[..., dict[str, Any]], confirmed: bool
) -> None:
    done = archive_purge(confirmed=confirmed)
    assert (done["changed"], done["runs"], done["files"], done["purge_run"]) == (False, [], [], "")
    refused = archive_purge(confirmed=confirmed, keep_days=-1)
    assert "archive_keep_days is -1" in refused["seen"], "a wrong value is named before there is anything to keep"
    with connect(service.login) as connection:
        assert not own_schema.exists(connection)


def test_the_module_lists_first_and_removes_rows_and_backups_once_confirmed(
    service: Service, archive_purge: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    old = service.deploy("b" * 40, days=300)
    newest = service.deploy("c" * 40, days=200)
    backups = [with_backup(service, one, tmp_path / "backups") for one in (old, newest)]
    before = (service.rows(), service.journal())

    listed = archive_purge()
    predicted = archive_purge(check=True, confirmed=True)
    assert (listed["changed"], listed["removed"], predicted["changed"]) == (False, 25, True)
    assert (listed["diff"], predicted["diff"]["before"].count("\n")) == ({}, 2)
    assert [(one["run_id"], one["rows"], one["why"]) for one in listed["runs"]] == [
        (newest, 25, "rollback"),
        (old, 25, ""),
    ]
    (goes,) = [one for one in listed["runs"] if not one["why"]]
    assert (goes["plan_id"], goes["environment"], round(goes["age_days"])) == (service.plan.id, "production", 300)
    assert goes["bytes"] > 1_000
    (file,) = listed["files"]
    assert (file["path"], file["bytes"], file["why"]) == (str(backups[0]), 14, "")
    assert (service.rows(), service.journal()) == before

    done = archive_purge(confirmed=True)
    assert (done["changed"], done["diff"], done["removed"]) == (True, predicted["diff"], 25)
    assert [path.exists() for path in backups] == [False, True]
    assert service.rows() == {newest: 25}
    again = archive_purge(confirmed=True)
    assert (again["changed"], again["removed"], again["purge_run"], again["files"]) == (False, 0, "", [])


def test_a_backup_that_is_not_as_its_run_recorded_it_is_left_and_named(
    service: Service, archive_purge: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    cases = dict.fromkeys(("changed", "size", "link", "writable", "directory", "elsewhere", "staging"), "")
    files: dict[str, Path] = {}
    for number, case in enumerate(cases):
        environment = "staging" if case == "staging" else "production"
        cases[case] = service.deploy(f"{number}" * 40, days=300, rows=False, environment=environment)
        recorded: dict[str, dict[str, Any]] = {"changed": {"sha256": "0" * 64}, "size": {"bytes": 13}}
        files[case] = with_backup(service, cases[case], tmp_path / case, **recorded.get(case, {}))
    newest = service.deploy("f" * 40, days=200)
    files["link"].rename(tmp_path / "target")
    files["link"].symlink_to(tmp_path / "target")
    files["writable"].chmod(0o660)
    files["directory"].parent.chmod(0o777)
    other = tmp_path / "elsewhere" / "passwords"
    files["elsewhere"].rename(other)
    service.sql(
        "UPDATE at_most_one.step SET details = jsonb_set(details, '{backup,path}', to_jsonb(%s::text))"
        " WHERE run_id = %s AND phase = 'prepare'",
        *(str(other), cases["elsewhere"]),
    )
    done = archive_purge(confirmed=True)
    named = {one["run_id"]: one["why"] for one in done["files"]}
    assert named == {
        cases["changed"]: "changed",
        cases["size"]: "changed",
        cases["link"]: "not_a_file",
        cases["writable"]: "writable",
        cases["directory"]: "writable",
    }, "a name that no backup has is not even looked at, nor another environment's"
    assert not done["changed"]
    assert (tmp_path / "target").exists()
    assert other.exists()
    assert files["staging"].exists()
    assert service.rows() == {newest: 25}


def test_a_file_of_another_account_is_left_and_named(
    service: Service, archive_purge: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.fail("The suite runs as root where it can make a file of somebody else.")
    old = service.deploy("b" * 40, days=300, rows=False)
    service.deploy("c" * 40)
    path = with_backup(service, old, tmp_path / "backups", sha256="")
    os.chown(path, 12_345, -1)
    assert [one["why"] for one in archive_purge(confirmed=True)["files"]] == ["owner"]
    assert path.exists()


def test_the_summary_counts_what_a_purge_would_remove(
    service: Service, run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any]
) -> None:
    def read(**options: Any) -> dict[str, Any]:
        return run_module("deploy_run_info", {"login": login_args, **options})

    assert read(keep_days=90)["archive"] is None
    assert "archive" not in read()
    service.deploy("b" * 40, days=300)
    service.deploy("c" * 40, days=200)
    kept = read(keep_days=90)["archive"]
    assert (kept["rows"], round(kept["oldest_days"]), kept["keep_days"]) == (50, 300, 90)
    assert kept["overdue"] == [{"plan_id": service.plan.id, "rows": 25, "runs": 1}]
    assert kept["bytes"] > 8_192
    assert read(keep_days=0)["archive"]["overdue"] == []
    with connect(service.login) as connection:
        assert archive_age.summary(connection, 400) == {**kept, "keep_days": 400, "overdue": []}
