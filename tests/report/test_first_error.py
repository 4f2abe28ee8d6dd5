"""The first error stays the run's error, whatever fails after it: the journal, the report, the message."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import rendering
from tests.support.report_cases import CASES, ROOT

FIRST = "inspection_schedules is locked by pid 2077 (dbeaver). Expected: its lock. Next: ask its user."


@pytest.mark.parametrize(
    ("language", "open_journal", "not_told", "stopped"),
    [
        (
            "en",
            "The journal stays open:",
            "The report or the message could not be written:",
            "Stopped in (1/1) Migrate",
        ),
        (
            "ko",
            "실행 기록이 열린 채로 남아 있습니다:",
            "보고서나 알림을 만들지 못했습니다:",
            "중단된 단계 (1/1) Migrate · 마이그레이션",
        ),
    ],
)
def test_the_lock_and_its_holder_are_the_error_whatever_fails_after_it(
    tmp_path: Path, language: str, open_journal: str, not_told: str, stopped: str
) -> None:
    facts = {
        **{key: fact for key, fact in CASES["stopped_early"].items() if key != "run_end"},
        **rendering.SERVICE,
        **{"first": FIRST, "report_language": language, "run_front_door": "deploy.yml", "database_gateway": "web1"},
        # Nothing listens there, nothing can be written there, and nobody knows that word.
        **{"database_login": {"host": "127.0.0.1", "port": 1, "user": "a", "password": "b", "dbname": "c"}},
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "run_facts": {**CASES["stopped_early"]["run_facts"], "artifacts_path": "/proc/no-such-directory"},
        "notify_events": "{{ nobody_knows }}",
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "hosts.yml").write_text(rendering.INVENTORY)
    command: list[str | Path] = [
        ROOT / ".venv/bin/ansible-playbook",
        ROOT / "tests/report/stop.yml",
        "-i",
        tmp_path / "hosts.yml",
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    command += ["-l", "web1", "-e", f"@{tmp_path / 'facts.json'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stdout
    lines = done.stdout.splitlines()
    place = lines.index("  ✖ Build the indexes")
    assert lines[place + 1] == "    inspection_schedules is locked by pid 2077 (dbeaver)."
    assert f"{stopped}: Build the indexes" in lines, "not the journal, and not the report"
    after = done.stdout[done.stdout.index(open_journal) :]
    assert not_told in after
    if language == "ko":
        assert "The journal stays open:" not in done.stdout
        assert "could not be written:" not in done.stdout
