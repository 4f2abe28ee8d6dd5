"""The guide's example from end to end: what must have gone, what must have stayed, and who says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import PLANNED, ROOT, Lab, Run, forgetting, reset, run_playbook
from tests.support.executions import Executions

Before = dict[str, Any]
# The most starts of Python for a module: a first deployment with its build, and one with nothing to do.
FIRST, NOTHING_TO_DO = 20, 11


@pytest.fixture(scope="module")
def executions(tmp_path_factory: pytest.TempPathFactory) -> Executions:
    return Executions(tmp_path_factory.mktemp("executions"))


@pytest.fixture(scope="module")
def deployed(lab: Lab, executions: Executions) -> tuple[Lab, Before, Run]:
    reset(lab)
    before = {"sessions": lab.sessions(), "images": lab.images(), "pids": lab.pids(), "commits": lab.served()}
    before["open"] = dict(lab.rows("SELECT id::text, status::text FROM aedpics.inspection_sessions"))
    return lab, before, run_playbook("deploy.yml", *executions.arguments, *unfinished(lab))


def unfinished(lab: Lab) -> tuple[str, ...]:
    """Take the marker off a release that is built, so that it is checked out and finished once more."""
    marker = Path(f"{lab.values['app_path']}.releases/{lab.values['commit_after']}/.at-most-one.json")
    if not marker.is_file():
        return ()
    marker.unlink()
    return "-e", "{prepare_build_commands: [['true']]}"


def kept_ticket(report: dict[str, Any]) -> str:
    return Path(ROOT, "artifacts/local", report["run_id"], "report.md").read_text()


def test_reports_what_it_did(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, run = deployed
    report = run.report

    assert run.code == 0, run.output
    assert report["outcome"] == "deployed"
    assert report["failed_phase"] is None
    assert report["error"] is None
    assert report["environment"] == "local"
    assert report["plan"]["id"] == "one-active-inspection-session"
    assert len(report["plan"]["sha256"]) == 64
    assert report["commit"] == {"before": lab.values["commit_before"], "after": lab.values["commit_after"]}
    assert [phase["name"] for phase in report["phases"]] == [
        *("prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck"),
    ]
    assert all(phase["seconds"] >= 0 and phase["status"] in ("ok", "unchanged") for phase in report["phases"])
    assert report["cleanup"] == {"groups": 10, "planned": 25, "removed": 25, "archived": 25, "unarchived": []}
    assert {index["name"]: index["verdict"] for index in report["indexes"]} == dict.fromkeys(PLANNED, "present")
    assert report["duplicates_left"] == 0
    assert report["traffic"]["requests"] > 100
    assert f"되돌리는 실행: {report['run_id']}. {report['commit']['after'][:12]} 대신" in kept_ticket(report)
    assert "ansible-playbook rollback.yml -i inventories/local -l local" in kept_ticket(report)
    assert (ROOT / "artifacts/local/latest/report.html").is_file()
    assert len(json.loads((ROOT / "artifacts/local/latest/cleanup_plan.json").read_text())["rows"]) == 25


def test_no_duplicate_is_left_and_exactly_the_planned_indexes_hold(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, _ = deployed
    assert lab.duplicate_groups() == 0
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert lab.fences() == 0, "the fence is lowered"


def test_surplus_rows_went_and_are_archived_byte_for_byte(deployed: tuple[Lab, Before, Run]) -> None:
    lab, before, run = deployed
    gone = {id_: row for id_, row in before["images"].items() if id_ not in lab.sessions()}
    archived = dict(
        lab.rows(
            "SELECT primary_key->>'id', \"row\" FROM at_most_one.archived_row WHERE run_id = %s", run.report["run_id"]
        )
    )

    assert len(gone) == 25
    assert archived == gone
    assert {before["open"][id_] for id_ in gone} <= {"active", "paused"}


def test_every_other_row_is_untouched(deployed: tuple[Lab, Before, Run]) -> None:
    lab, before, _ = deployed
    after = lab.sessions()
    completed = {id_ for id_, status in before["open"].items() if status == "completed"}

    assert len(completed) >= 32
    assert completed <= set(after)
    assert {id_: before["sessions"][id_] for id_ in after if id_ in before["sessions"]} == {
        id_: row for id_, row in after.items() if id_ in before["sessions"]
    }
    # What the health check itself opened on the canary, it has cancelled.
    new = set(after) - set(before["sessions"])
    statuses = lab.rows(
        "SELECT DISTINCT status::text FROM aedpics.inspection_sessions WHERE id::text = ANY (%s)", list(new)
    )
    assert statuses == [("cancelled",)]


def test_the_row_that_was_never_started_is_not_the_one_that_stayed(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, _ = deployed
    assert lab.value("SELECT count(*) FROM at_most_one.archived_row WHERE \"row\"->>'started_at' IS NULL") == 1


def test_every_instance_is_new_and_serves_the_wanted_commit(deployed: tuple[Lab, Before, Run]) -> None:
    lab, before, run = deployed
    pids = lab.pids()

    assert len(pids) == 2
    assert not set(pids) & set(before["pids"])
    assert sorted(instance["new_pid"] for instance in run.report["instances"]) == pids
    assert sorted(instance["old_pid"] for instance in run.report["instances"]) == before["pids"]
    assert before["commits"] == {lab.values["commit_before"]}
    assert lab.served(20) == {lab.values["commit_after"]}
    releases = lab.values["app_path"] + ".releases"
    for pid in pids:
        assert str(Path(f"/proc/{pid}/cwd").resolve()) == f"{releases}/{lab.values['commit_after']}"


def test_the_in_place_checkout_was_adopted_behind_the_link(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, _ = deployed
    releases = Path(lab.values["app_path"] + ".releases")
    assert lab.link == str(releases / lab.values["commit_after"])
    assert (releases / lab.values["commit_before"] / ".next/BUILD_ID").is_file()


def test_a_second_run_changes_nothing_and_says_so(deployed: tuple[Lab, Before, Run], executions: Executions) -> None:
    lab, _, _ = deployed
    pids, catalog = lab.pids(), lab.catalog()
    first = executions.counted()

    run = run_playbook("deploy.yml", *executions.arguments)

    assert run.code == 0, run.output
    assert first <= FIRST
    assert executions.counted() <= NOTHING_TO_DO
    assert run.report["outcome"] == "unchanged"
    assert run.changed == 0
    assert run.report["cleanup"] == {"groups": 0, "planned": 0, "removed": 0, "archived": 0, "unarchived": []}
    assert "rollback.yml" not in kept_ticket(run.report), "it would take back the deployment before"
    assert lab.pids() == pids
    assert lab.catalog() == catalog


def test_the_journal_has_both_runs(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, run = deployed
    outcomes = lab.rows("SELECT run_id, outcome FROM at_most_one.run ORDER BY started_at")
    assert (run.report["run_id"], "deployed") in outcomes
    assert outcomes[-1][1] == "unchanged"


def test_a_run_whose_journal_has_lost_a_phase_ends_as_no_success(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, _ = deployed
    pids, catalog, archived = lab.pids(), lab.catalog(), lab.archived()

    with forgetting(lab, "verify", "ok"):
        run = run_playbook("deploy.yml")

    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("stopped", "verify")
    for words in (
        "cannot be closed: phase verify is not in its journal",
        "Expected:",
        "Next:",
        "the same command again",
    ):
        assert words in run.report["error"]
    assert (lab.pids(), lab.catalog(), lab.archived()) == (pids, catalog, archived)


def test_no_secret_is_in_any_artifact_or_in_the_output(deployed: tuple[Lab, Before, Run]) -> None:
    lab, _, run = deployed
    secrets = [value for name, value in lab.values.items() if name.endswith(("password", "token"))]
    directory = ROOT / "artifacts/local" / run.report["run_id"]
    texts = [run.output, *(path.read_text(errors="replace") for path in directory.rglob("*") if path.is_file())]
    assert secrets
    for secret in secrets:
        digest = hashlib.sha256(secret.encode()).hexdigest()[:8]
        assert not any(secret in text for text in texts), f"the secret with SHA-256 {digest}... was printed or kept"
