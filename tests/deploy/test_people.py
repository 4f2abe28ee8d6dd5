"""What people are told and shown around a deployment: messages, the first hour, every day. One lab, in this order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.conftest import PLANNED, ROOT, SESSIONS, Lab, Run, make, run_playbook
from tests.support.listener import Listener, listening

# What people are told loses neither rows nor requests; tests/notify, tests/dashboard and tests/service hold each rule.
pytestmark = pytest.mark.thorough

RULE = "idx_inspection_sessions_active_session_per_equipment"
QUICK = ("-e", "{watch_minutes: 0.02, watch_round_s: 1, watch_baseline_s: 2, watch_min_latency_ms: 5000}")
TITLE = "장비당 진행 중(active/paused) 점검 세션은 최대 1개"
ENGLISH = ("-e", "report_language=en")
Told = list[dict[str, Any]]


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[Listener]:
    """The lab at the guide's example, and who listens to it."""
    make("lab-reset")
    with listening() as server:
        os.environ["LAB_NOTIFY_WEBHOOK_URL"] = f"{server.url}/webhook"
        os.environ["LAB_NOTIFY_SLACK_URL"] = f"{server.url}/slack"
        try:
            yield server
        finally:
            del os.environ["LAB_NOTIFY_WEBHOOK_URL"], os.environ["LAB_NOTIFY_SLACK_URL"]


def heard(server: Listener, playbook: str, *options: str) -> tuple[Run, Told]:
    """Run a front door; what the webhook got. Slack must have got the same messages."""
    server.messages.clear()
    run = run_playbook(playbook, *options)
    told = server.bodies("/webhook")
    assert [body["text"] for body in server.bodies("/slack")] == [body["title"] for body in told]
    for body in told:
        body.pop("at")
    return run, told


def message(lab: Lab, run: Run, event: str, title: str, *facts: str, **data: Any) -> dict[str, Any]:
    """What a program must get of a run, whole."""
    report = run.report
    who = lab.value("SELECT who FROM at_most_one.run WHERE run_id = %s", report["run_id"])
    wanted = lab.values["commit_after"]
    first, last = report["commit"]["before"], wanted if event == "start" else report["commit"]["after"]
    common = [f"계획: {TITLE}", f"커밋: {first[:12]} -> {last[:12]}", f"실행자: {who}", f"실행 ID: {report['run_id']}"]
    artifacts = ROOT / "artifacts/local" / report["run_id"]
    ends = [f"보고서: {artifacts}/report.html"] if event != "start" else []
    return {
        "event": event,
        "title": f"{title}: local | aedpics",
        "text": "\n".join([f"{title}: local | aedpics", "", *common, *facts, *ends]),
        "environment": "local",
        "application": "aedpics",
        "language": "ko",
        "run_id": report["run_id"],
        "plan": report["plan"],
        "commit": {"before": first, "after": last},
        "outcome": None if event == "start" else report["outcome"],
        "failed_phase": report["failed_phase"] if event != "start" else None,
        "report": f"{artifacts}/report.json" if event != "start" else None,
        "findings": [],
        **data,
    }


def test_a_stop_is_told_with_what_to_do(lab: Lab, server: Listener) -> None:
    run, told = heard(server, "deploy.yml", "-e", "cleanup_ceiling=24")

    assert run.code != 0
    started, stopped = told
    assert started == message(lab, run, "start", "배포 시작")
    (finding,) = stopped["findings"]
    assert finding["seen"].startswith("25행이 aedpics.inspection_sessions에서 나갈 예정인데, 상한은 24행입니다.")
    assert finding["expected"] == "한 번의 실행에서 최대 24행이어야 합니다."
    assert finding["next_step"]
    facts = ("중단된 단계: 중복 정리", "정리한 행: 0", "계획된 인덱스: 0 / 3")
    expected = message(lab, run, "stop", "배포 중단", *facts, findings=[finding])
    names = zip(("확인된 내용", "기대한 내용", "조치"), finding.values(), strict=True)
    expected["text"] += "\n\n" + "\n".join(f"{name}: {value}" for name, value in names)
    assert stopped == expected


def test_a_deployment_is_told_and_watched(lab: Lab, server: Listener) -> None:
    run, told = heard(server, "deploy.yml", *QUICK)

    assert run.code == 0, run.output
    started, done = told
    assert started == message(lab, run, "start", "배포 시작")
    assert done == message(lab, run, "success", "배포 완료", "정리한 행: 25", "계획된 인덱스: 3 / 3")
    assert "관찰 완료: local | aedpics" in run.output
    watched = json.loads((ROOT / "artifacts/local/watch.json").read_text())
    assert (watched["verdict"], watched["findings"], watched["run_id"]) == ("good", [], run.report["run_id"])
    assert watched["since"]["lab"]["latency_ms"].keys() == {"page", "health"}
    assert watched["rounds"]["lab"], "it has watched at least one round"


def test_an_endpoint_that_is_dead_or_silent_fails_nothing(server: Listener) -> None:
    from tests.support.listener import misbehaving

    before = os.environ["LAB_NOTIFY_WEBHOOK_URL"]
    try:
        with misbehaving("silent") as url:
            os.environ["LAB_NOTIFY_WEBHOOK_URL"] = f"{url}/of-the-vault"
            run = run_playbook("deploy.yml", "--tags", "verify")
            server.messages.clear()
    finally:
        os.environ["LAB_NOTIFY_WEBHOOK_URL"] = before
    assert run.code == 0, run.output
    assert "Notification by webhook was not delivered" in run.output
    assert "of-the-vault" not in run.output


def test_the_monitor_speaks_once_of_what_is_new_and_once_when_it_is_over(
    lab: Lab, server: Listener, tmp_path: Path
) -> None:
    directory, textfile = ROOT / "artifacts/local/monitor", tmp_path / "at_most_one.prom"
    for name in ("state.json", "history.jsonl"):
        (directory / name).unlink(missing_ok=True)
    look = ("monitor.yml", *ENGLISH, "-e", f"monitor_textfile={textfile}")

    run, told = heard(server, *look)
    assert (run.code, told) == (0, []), run.output

    definition = lab.value(f"SELECT pg_get_indexdef('aedpics.{RULE}'::regclass)")
    lab.rows(f"DROP INDEX aedpics.{RULE}")
    run, told = heard(server, *look)
    assert run.code != 0
    (alert,) = told
    assert alert["event"] == "alert"
    assert alert["title"] == "The monitor has found something new: local | aedpics"
    assert [f"Index {RULE} is missing." in finding["seen"] for finding in alert["findings"]].count(True) == 1
    metrics = {family.name: family for family in text_string_to_metric_families(textfile.read_text())}
    planned = {sample.labels["index"]: sample.value for sample in metrics["at_most_one_index_as_planned"].samples}
    assert planned == {name: float(name != RULE) for name in PLANNED}

    run, told = heard(server, *look)
    assert run.code != 0
    assert told == [], "nothing has changed"

    lab.rows(definition)
    run, told = heard(server, *look)
    assert run.code == 0, run.output
    (over,) = told
    assert over["title"] == "Over, as the monitor sees it: local | aedpics"
    assert f"index:{RULE}: known since" in over["text"]
    assert (directory / "index.html").is_file()
    assert len((directory / "history.jsonl").read_text().splitlines()) == 4


def test_the_watch_finds_a_duplicate_and_takes_the_deployment_back(lab: Lab, server: Listener) -> None:
    lab.rows(f"DROP INDEX aedpics.{RULE}")
    lab.rows(
        f"INSERT INTO {SESSIONS} (equipment_serial, inspector_id, status) SELECT equipment_serial, inspector_id, status"
        f" FROM {SESSIONS} WHERE status = 'active' LIMIT 1"
    )

    run, told = heard(server, "watch.yml", *QUICK, "-e", "watch_rollback=true")

    assert run.code != 0
    alert, started, back = told
    assert alert["title"] == "배포 후 관찰에서 이상 발견: local | aedpics"
    assert "lab: 1 duplicate groups are inside the rule." in [finding["seen"] for finding in alert["findings"]]
    assert started == message(lab, run, "start", "롤백 시작", commit=started["commit"], text=started["text"])
    assert back == message(lab, run, "rollback", "롤백 완료", "복원한 행: 25", "계획된 인덱스: 0 / 3")
    assert run.report["outcome"] == "rolled_back"
    assert lab.indexes() == {}
    assert "1 duplicate groups" in " ".join(run.failures), "and it ends failed with what was found"
