"""The cleanup role against a real table: what it calls, in which order, and what it adds up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from at_most_one.fence import exempting_index
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login
from at_most_one.postgres.fence_names import name_of
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.database.cleaning import INSPECTOR, TABLE, run

ROOT = Path(__file__).parents[2]
REPORT, DRY, FENCE = "Read the surplus rows into the plan to review", "(dry run)", "Ensure that the write fence is up"
AGAIN, REMOVAL = "Read the surplus rows again, now that none can be added", "are archived and removed"


@pytest.fixture
def clean_up(
    tmp_path: Path, login: Login, login_args: dict[str, Any], connection: Connection, plan: Plan, plan_data: Any
) -> Any:
    """Runs the role; returns the tasks that called a module of ours on the rows or the fence, and what it adds up."""
    opened = journal.open_run(connection, Opening(plan, "test", "nobody", Controller("here", 1)), takeover=True)

    def clean(*options: str, fails: bool = False) -> tuple[list[str], dict[str, Any], str]:
        facts, artifacts = tmp_path / "facts", tmp_path / "artifacts"
        artifacts.mkdir(exist_ok=True)
        play = {
            "hosts": "all",
            "gather_facts": False,
            "vars": {
                "_run_plan": {**plan_data, "ceiling": 10_000, "expected": {}},
                "_run_plan_sha256": plan.sha256,
                "_run_id": opened.run_id,
                "_run_artifacts_path": str(artifacts),
                "environment_name": "test",
                "report_language": "en",
                "database_login": login_args,
                "database_gateway": "localhost",
            },
            "tasks": [
                {"name": "Clean up", "ansible.builtin.import_role": {"name": "cleanup"}},
                {
                    "name": "Show",
                    "ansible.builtin.copy": {
                        "content": "{{ _cleanup_result | to_json }}",
                        "dest": str(facts),
                        "mode": "0600",
                    },
                },
            ],
        }
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [ROOT / ".venv/bin/ansible-playbook", "-i", "localhost,", "-c", "local", tmp_path / "play.yml", *options],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "LANG": "C.UTF-8",
                "ANSIBLE_STDOUT_CALLBACK": "default",
                "ANSIBLE_INVENTORY_ENABLED": "host_list",
                "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            },
            capture_output=True,
            text=True,
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        tasks = re.findall(r"^TASK \[cleanup : (.*?)\] \**\n(?:ok|changed)", done.stdout, re.MULTILINE)
        words = (REPORT, DRY, FENCE, AGAIN, REMOVAL)
        ours = [next((word for word in words if word in task), "") for task in tasks]
        return [word for word in ours if word], json.loads(facts.read_text()) if facts.exists() else {}, done.stdout

    return clean


def fences(connection: Connection) -> list[str]:
    return [name for (name,) in run(connection, "SELECT relname FROM pg_class WHERE relname ~ 'at_most_one_fence'")]


def test_the_ordinary_clean_up(clean_up: Any, connection: Connection, plan: Plan, example: Any) -> None:
    calls, result, _ = clean_up()
    assert calls == [REPORT, DRY, FENCE, AGAIN, REMOVAL]
    assert (result["groups"], result["planned"], result["removed"]) == (10, 25, 25)
    assert fences(connection) == [name_of(plan.id)]


def test_more_surplus_than_the_fence_can_exempt(
    clean_up: Any, connection: Connection, plan: Plan, example: Any
) -> None:
    many = 2 * exempting_index.MOST
    run(
        connection,
        f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status)"
        f" SELECT 'L', '{INSPECTOR}', 'active' FROM generate_series(0, %s)",
        many,
    )
    calls, result, _ = clean_up()
    assert calls == [REPORT, DRY, FENCE, REMOVAL, FENCE, AGAIN]
    assert (result["groups"], result["planned"], result["removed"]) == (11, 25 + many, 25 + many)
    assert fences(connection) == [name_of(plan.id)]


def test_a_reviewed_plan_holds_for_the_content_that_was_reviewed(
    clean_up: Any, connection: Connection, plan: Plan, example: Any, tmp_path: Path
) -> None:
    reviewed, written = tmp_path / "reviewed.json", tmp_path / "artifacts/cleanup_plan.json"
    clean_up("--check")
    reviewed.write_bytes(written.read_bytes())
    changed = min(example.surplus)
    run(connection, f"UPDATE {TABLE} SET notes = 'written since' WHERE id = %s", changed)
    calls, _, output = clean_up("-e", f"cleanup_reviewed_plan={reviewed}", fails=True)
    assert calls == [REPORT, DRY]
    assert f"1 surplus rows are not in {reviewed} as they are now (changed since: {changed}). Expected" in output
    assert run(connection, f"SELECT count(*) FROM {TABLE}") == [(69,)]
    reviewed.write_bytes(written.read_bytes())  # reviewed again
    _, result, _ = clean_up("-e", f"cleanup_reviewed_plan={reviewed}")
    assert result["removed"] == 25
