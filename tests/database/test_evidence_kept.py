"""The role writes a rehearsal's evidence twice, to its file and to the journal: it must be the same one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from at_most_one.postgres.connection import Connection

ROOT = Path(__file__).resolve().parents[2]
# Asked twice, this is never the same twice: between two tasks more than a microsecond goes by.
NOW = "{{ now(utc=true).isoformat(timespec='microseconds') }}"
DOCUMENT = {
    "rehearsal_id": "20251110T053000Z-staging",
    "plan": {"id": "one-active-inspection-session", "sha256": "a" * 64},
    "commit": {"before": "b" * 40, "after": "c" * 40},
    "environment": "staging",
    "outcome": "passed",
    "ended_at": NOW,
}


def test_the_file_and_the_journal_hold_the_same_document(
    tmp_path: Path, connection: Connection, login_args: dict[str, Any]
) -> None:
    variables = {
        "_rehearsal_document": DOCUMENT,
        "database_login": login_args,
        "database_gateway": "here",
        "rehearsal_evidence_path": str(tmp_path / "evidence.json"),
    }
    role = {"ansible.builtin.include_role": {"name": "rehearsal", "tasks_from": "evidence", "rolespec_validate": False}}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"here": here}}}), encoding="utf-8")
    play = {"hosts": "here", "gather_facts": False, "tasks": [role]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    (tmp_path / "variables.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    command: list[str | Path] = [
        Path(sys.executable).with_name("ansible-playbook"),
        tmp_path / "play.yml",
        "-i",
        tmp_path / "hosts.yml",
    ]
    done = subprocess.run(
        [*command, "-e", f"@{tmp_path}/variables.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "default"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT evidence FROM at_most_one.rehearsal")
        assert [kept for (kept,) in cursor.fetchall()] == [written]
