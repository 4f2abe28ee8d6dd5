"""rollback.yml brings back what was, the next deploy.yml really builds again, and there is no rollback of nothing."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import PLANNED, ROOT, Lab, run_playbook


@pytest.mark.thorough  # test_browser.py goes back, test_automatic_rollback.py goes back and forward again
def test_forward_back_forward(fresh: Lab) -> None:
    sessions = fresh.sessions()
    catalog = fresh.catalog()
    forward = run_playbook("deploy.yml")
    assert forward.code == 0, forward.output

    back = run_playbook("rollback.yml")

    assert back.code == 0, back.output
    assert back.report["outcome"] == "rolled_back"
    assert fresh.indexes() == {}
    assert [row for row in fresh.catalog() if row[0] != "at_most_one"] == catalog, "catalog, fence included, as before"
    assert {id_: row for id_, row in fresh.sessions().items() if id_ in sessions} == sessions, "every row is back"
    assert fresh.served(20) == {fresh.values["commit_before"]}
    assert fresh.link.endswith(fresh.values["commit_before"])
    assert fresh.value(
        "SELECT rolled_back_at IS NOT NULL FROM aedpics._prisma_migrations ORDER BY started_at DESC LIMIT 1"
    )

    taken_back = ROOT / "artifacts/local" / forward.report["run_id"]
    assert json.loads((taken_back / "report.json").read_text())["taken_back_by"] == back.report["run_id"]
    for name in ("report.html", "report.md"):
        assert f"실행 {back.report['run_id']}이(가) 이미 되돌렸습니다." in (taken_back / name).read_text()
        assert "ansible-playbook rollback.yml" not in (taken_back / name).read_text()

    for arguments in ([], ["-e", "rollback_restore_rows=false"]):
        again = run_playbook("rollback.yml", *arguments)
        assert again.code != 0
        assert "nothing to roll back" in " ".join(again.failures)

    forward = run_playbook("deploy.yml")
    assert forward.code == 0, forward.output
    assert forward.report["outcome"] == "deployed"
    assert forward.report["cleanup"]["removed"] == 25
    assert fresh.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert fresh.duplicate_groups() == 0


@pytest.mark.thorough  # of the runs that went before; tests/unit/test_history_table.py holds what is told of each
def test_history_tells_what_the_journal_holds(lab: Lab) -> None:
    history = run_playbook("history.yml", "-e", "report_language=en")
    assert history.code == 0, history.output
    assert history.changed == 0
    kept = json.loads((ROOT / "artifacts/local/history.json").read_text())
    journal = lab.rows("SELECT run_id, outcome, who, commit_after FROM at_most_one.run ORDER BY started_at DESC")
    assert [(run["run_id"], run["outcome"], run["who"], run["commit_after"]) for run in kept] == journal
    assert len(journal) >= 3, "forward, back, forward went before"
    before, after = lab.values["commit_before"], lab.values["commit_after"]
    assert {(run["outcome"], run["commit_after"]) for run in kept if run["outcome"] in ("deployed", "rolled_back")} == {
        ("deployed", after),
        ("rolled_back", before),
    }
    assert all(run_id in history.output for run_id, *_ in journal)
    assert "rolled back" in history.output
    assert "25 rows removed | 25 put back at 20" in history.output
