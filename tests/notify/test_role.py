"""The role, through Ansible: who is told what in which language, and what becomes of endpoints that do not answer."""

from __future__ import annotations

import email
import json
import os
import subprocess
import time
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any, cast

import pytest

from tests.notify.post_office import post_office
from tests.support.listener import listening, misbehaving
from tests.support.report_cases import AFTER, BEFORE, CASES, HOSTILE, ROOT

INVENTORY = """
all:
  hosts:
    web1: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
    web2: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
"""
SERVICE = {"environment_name": "staging", "app_name": "aedpics", "project_path": str(ROOT)}
SECRET = "hunter2-of-the-vault"
RUN = CASES["stopped"]["run_facts"]
RUN = CASES["stopped"]["run_facts"]
RUN = CASES["stopped"]["run_facts"]


def tell(directory: Path, case: str, events: list[str], *options: str, **variables: Any) -> str:
    """Run the role once for each event, in one run; what was printed. It must never fail."""
    (directory / "hosts.yml").write_text(INVENTORY)
    (directory / "artifacts").mkdir(exist_ok=True)
    run = {**CASES[case]["run_facts"], "artifacts_path": str(directory / "artifacts/1")}
    facts = {**SERVICE, **CASES[case], "run_facts": run, "events": events, **variables}
    (directory / "facts.json").write_text(json.dumps(facts))
    command: list[str | Path] = [
        ROOT / ".venv/bin/ansible-playbook",
        ROOT / "tests/notify/tell.yml",
        "-i",
        directory / "hosts.yml",
    ]
    command += ["-e", f"@{directory / 'facts.json'}", *options]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def told(event: str, title: str, run_facts: list[str], findings: list[dict[str, str]], **data: Any) -> dict[str, Any]:
    """What a program gets of the cases' run; ``at`` is left to the caller."""
    text = "\n".join([title, "", *run_facts])
    for finding in findings:
        names = zip(("확인된 내용", "기대한 내용", "조치"), finding.values(), strict=True)
        text += "\n\n" + "\n".join(f"{name}: {value}" for name, value in names if value)
    return {
        **{"event": event, "title": title, "text": text, "findings": findings, "environment": "staging"},
        **{"application": "aedpics", "language": "ko", "run_id": RUN["run_id"]},
        "plan": {"id": RUN["plan"]["id"], "sha256": RUN["plan_sha256"]},
        **data,
    }


def test_each_event_is_told_once_and_whole(tmp_path: Path) -> None:
    findings = [
        {
            "seen": '1 of 3 indexes is different: <script>alert("&")</script>|`*.',
            "expected": "exactly the plan's.",
            "next_step": "drop it, then run again.",
        }
    ]
    facts = [
        f"계획: {RUN['plan']['title']['ko']}",
        f"커밋: {BEFORE[:12]} -> {AFTER[:12]}",
        f"실행자: deploy{HOSTILE}",
        f"실행 ID: {RUN['run_id']}",
        "중단된 단계: 인덱스 검증",
        "정리한 행: 20",
        "계획된 인덱스: 0 / 3",
        f"보고서: {tmp_path}/artifacts/1/report.html",
    ]
    with listening() as server:
        output = tell(
            *(tmp_path, "stopped", ["stop"], "-vvv"),
            report_language="ko",
            notify_slack_url=f"{server.url}/slack/{SECRET}",
            notify_webhook_url=f"{server.url}/webhook",
            notify_webhook_token=SECRET,
            database_password="in-the-error",
        )

        (body,) = server.bodies("/webhook")
        at = body.pop("at")
        (slack,) = server.bodies(f"/slack/{SECRET}")
    assert body == told(
        *("stop", "배포 중단: staging | aedpics", facts, findings),
        commit={"before": BEFORE, "after": AFTER},
        outcome="stopped",
        failed_phase="verify",
        report=f"{tmp_path}/artifacts/1/report.json",
    )
    assert time.time() - time.mktime(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ")) < 7 * 86_400
    assert slack["text"] == "배포 중단: staging | aedpics"
    assert [block["type"] for block in slack["blocks"]] == ["header", "section", "section"]
    assert len(slack["blocks"][1]["fields"]) == len(facts)
    assert SECRET not in output, "an address of a webhook is a secret, also with -vvv"


def test_only_the_wanted_events_in_english_and_nothing_in_check_mode(tmp_path: Path) -> None:
    with listening() as server:
        where = {"notify_webhook_url": f"{server.url}/webhook", "report_language": "en"}
        tell(tmp_path, "rolled_back", ["start", "rollback"], notify_events=["rollback"], **where)
        (only,) = server.bodies("/webhook")
        assert only["title"] == "Rolled back: staging | aedpics"
        assert "Rows restored: 20" in only["text"]
        assert (only["outcome"], only["commit"]["after"]) == ("rolled_back", BEFORE)

        tell(tmp_path, "left", ["rollback"], notify_events=["rollback"], **where)
        left = server.bodies("/webhook")[-1]
        assert left["title"] == "Rolled back, without 2 rows: staging | aedpics"
        assert "Rows that stay in the archive: 2" in left["text"]

        tell(tmp_path, "rolled_back", ["rollback"], "--check", **where)
        assert len(server.bodies("/webhook")) == 2


def test_a_secret_of_the_service_never_travels(tmp_path: Path) -> None:
    with listening() as server:
        tell(
            *(tmp_path, "stopped", ["stop"]),
            report_language="en",
            notify_slack_url=f"{server.url}/slack",
            notify_webhook_url=f"{server.url}/webhook",
            database_password="Db-hunter2",
            app_admin_login={"email": "a@b", "password": "Admin-hunter2"},
            run_end={
                **CASES["stopped"]["run_end"],
                "error": "postgresql://u:Db-hunter2@h/d and Admin-hunter2. Expected: no. Next: no.",
            },
        )
        assert len(server.messages) == 2
        assert "hunter2" not in json.dumps([body for _, _, body in server.messages])


@pytest.mark.parametrize("kind", ["dead", "silent", "dripping"])
def test_an_endpoint_that_does_not_answer_costs_a_run_at_most_its_allowance(tmp_path: Path, kind: str) -> None:
    with misbehaving(kind) as url:
        output = tell(
            *(tmp_path, "stopped", ["start", "alert", "stop", "rollback"]),
            report_language="en",
            notify_slack_url=f"{url}/{SECRET}",
            notify_webhook_url=f"{url}/{SECRET}",
        )

    assert "was not delivered: no answer" in output
    assert SECRET not in output
    # Two messages of 2 s each are the allowance of 4 s; a refusal costs nothing, and every message is tried.
    assert ("this run sends no more of them" in output) == (kind != "dead")


def test_a_letter_says_the_same(tmp_path: Path) -> None:
    with post_office() as office:
        tell(
            *(tmp_path, "deployed", ["success"]),
            report_language="ko",
            notify_email_to=["duty@example.org"],
            notify_email_host="127.0.0.1",
            notify_email_port=office.port,
            notify_email_secure="never",
            notify_timeout_s=60,  # a busy machine must not make this a test of the timeout
            notify_max_delay_s=60,
        )
    (letter,) = [email.message_from_bytes(letter) for letter in office.letters]
    assert str(make_header(decode_header(letter["Subject"]))) == "배포 완료: staging | aedpics"
    assert letter["To"] == "duty@example.org"
    content = "".join(
        cast(bytes, part.get_payload(decode=True)).decode()
        for part in letter.walk()
        if part.get_content_type() == "text/plain"
    )
    assert "정리한 행: 20" in content
    assert "계획된 인덱스: 3 / 3" in content


def test_a_mail_server_that_does_not_answer_is_left(tmp_path: Path) -> None:
    with misbehaving("silent") as url:
        output = tell(
            *(tmp_path, "deployed", ["start", "success", "alert"]),
            report_language="en",
            notify_email_to=["duty@example.org"],
            notify_email_host="127.0.0.1",
            notify_email_port=int(url.rpartition(":")[2]),
        )
    assert "Notification by email was not delivered" in output
    assert "this run sends no more of them" in output
