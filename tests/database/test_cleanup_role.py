"""The cleanup role against a real table: what it calls, in which order, what it adds up, and what it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from at_most_one.cleanup.account import Account
from at_most_one.fence import exempting_index
from at_most_one.indexes import definitions
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection
from at_most_one.postgres.fence_names import name_of
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.database.cleaning import INSPECTOR, TABLE, run

ROOT = Path(__file__).parents[2]
REPORT = "Read the surplus rows into the plan to review"
REMOVAL = "Ensure that the surplus rows are archived and removed, behind the write fence"
WORDS = (REPORT, REMOVAL)


@dataclass(frozen=True)
class Cleaned:
    """The tasks of ``WORDS`` that ran, the role's sum, what was printed, and how often Python was started for it."""

    calls: list[str]
    result: Mapping[str, Any]
    output: str
    executions: int


@pytest.fixture
def run_id(connection: Connection, plan: Plan) -> str:
    """An open run, which holds the plan."""
    opened = journal.open_run(connection, Opening(plan, "test", "nobody", Controller("here", 1)), takeover=True)
    connection.commit()
    return opened.run_id


@pytest.fixture
def clean_up(
    tmp_path: Path, login_args: dict[str, Any], run_id: str, plan: Plan, plan_data: Any
) -> Callable[..., Cleaned]:
    """Runs the role, with files of the gateway host below ``tmp_path/gateway``."""
    starts, python, gateway = tmp_path / "starts", tmp_path / "python", tmp_path / "gateway"
    gateway.mkdir()
    python.write_text(f'#!/bin/sh\necho start >> {starts}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)

    def clean(*options: str, fails: bool = False) -> Cleaned:
        artifacts = tmp_path / "artifacts"
        artifacts.mkdir(exist_ok=True)
        starts.write_text("")
        play = {
            "hosts": "all",
            "gather_facts": False,
            "vars": {
                "run_facts": {
                    **{"plan": {**plan_data, "ceiling": 10_000, "expected": {}}, "plan_sha256": plan.sha256},
                    **{"run_id": run_id, "artifacts_path": str(artifacts)},
                },
                "environment_name": "test",
                "report_language": "en",
                "database_login": login_args,
                "database_gateway": "localhost",
            },
            "tasks": [
                {"name": "Clean up", "ansible.builtin.import_role": {"name": "cleanup"}},
                {
                    "name": "Show",
                    "ansible.builtin.debug": {
                        "msg": "result {{ cleanup_removed.sum | default(cleanup_reported.sum) | to_json }}"
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
                "HOME": str(gateway),
                "TMPDIR": str(gateway),
                "LANG": "C.UTF-8",
                "ANSIBLE_STDOUT_CALLBACK": "default",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_INVENTORY_ENABLED": "host_list",
                "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
                "ANSIBLE_PYTHON_INTERPRETER": str(python),
            },
            capture_output=True,
            text=True,
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        assert not [path for path in gateway.rglob("*") if path.is_file()], "the rows' keys are left on the gateway"
        tasks = [task for task in done.stdout.split("\nTASK [cleanup : ") if re.search(r"^(ok|changed): ", task, re.M)]
        shown = re.search(r'"msg": ("result .*")', done.stdout)
        return Cleaned(
            [word for task in tasks for word in WORDS if task.startswith(f"{word}]")],
            json.loads(json.loads(shown[1]).removeprefix("result ")) if shown else {},
            done.stdout,
            len(starts.read_text().splitlines()),
        )

    return clean


def fences(connection: Connection) -> list[str]:
    return [name for (name,) in run(connection, "SELECT relname FROM pg_class WHERE relname ~ 'at_most_one_fence'")]


def phases(connection: Connection, run_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    (kept,) = journal.read(connection, run_id=run_id)
    return [(phase["name"], phase["status"], phase["details"]) for phase in kept["phases"]]


def test_the_ordinary_clean_up(
    clean_up: Any, connection: Connection, plan: Plan, example: Any, run_id: str, tmp_path: Path
) -> None:
    cleaned = clean_up()
    assert (cleaned.calls, cleaned.executions) == ([REPORT, REMOVAL], 2)
    result = cleaned.result
    assert (result["groups"], result["planned"], result["removed"]) == (10, 25, 25)
    assert fences(connection) == [name_of(plan.id)]
    assert phases(connection, run_id) == [("cleanup", "ok", result)]
    written = tmp_path / "artifacts/cleanup_plan.json"
    assert written.stat().st_mode & 0o777 == 0o640
    assert {key for key, _ in json.loads(written.read_text())["rows"]} == example.surplus


def build(connection: Connection, plan: Plan) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        for index in plan.indexes:
            cursor.execute(definitions.create_statement(index, plan.schema))
    connection.autocommit = False


def test_with_nothing_to_do_one_call_says_so_and_records_it(
    clean_up: Any, connection: Connection, plan: Plan, run_id: str, tmp_path: Path
) -> None:
    build(connection, plan)
    for options, recorded in ((("--check",), 0), ((), 1)):
        cleaned = clean_up(*options)
        assert (cleaned.calls, cleaned.executions) == ([REPORT], 1)
        assert "No duplicates." in cleaned.output
        assert "changed=0" in cleaned.output
        assert len(phases(connection, run_id)) == recorded
    assert phases(connection, run_id) == [("cleanup", "unchanged", cleaned.result)]
    assert cleaned.result == asdict(Account())
    document = json.loads((tmp_path / "artifacts/cleanup_plan.json").read_text())
    assert list(document) == [
        *("run_id", "environment", "plan", "groups", "group_count", "row_count", "digest", "rows")
    ]
    assert document["rows"] == []


def test_a_second_clean_up_of_the_run_adds_to_the_first(
    clean_up: Any, connection: Connection, plan: Plan, example: Any, run_id: str
) -> None:
    first = clean_up().result
    (fence,) = fences(connection)
    run(connection, f"DROP INDEX aedpics.{fence}")
    run(connection, f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status) SELECT 'L', '{INSPECTOR}', 'active'"
        " FROM generate_series(0, 1)")  # fmt: skip
    second = clean_up().result
    assert (second["groups"], second["planned"], second["removed"]) == (11, 26, 26)
    build(connection, plan)
    third = clean_up()
    assert (third.calls, third.result) == ([REPORT], second)
    assert phases(connection, run_id) == [("cleanup", "ok", first), ("cleanup", "ok", second)]


def test_no_duplicate_but_no_index_either(clean_up: Any, connection: Connection, plan: Plan, run_id: str) -> None:
    """The fence goes up first, and only behind it is there none for certain."""
    assert clean_up().calls == [REPORT, REMOVAL]
    assert fences(connection) == [name_of(plan.id)]
    assert clean_up().calls == [REPORT, REMOVAL]
    assert [status for _, status, _ in phases(connection, run_id)] == ["ok", "unchanged"]


def test_a_limit_stops_below_the_table(clean_up: Any, connection: Connection, example: Any, run_id: str) -> None:
    cleaned = clean_up("-e", "cleanup_ceiling=24", fails=True)
    assert cleaned.calls == [REPORT]
    assert cleaned.output.index("10 groups") < cleaned.output.index("25 rows are to leave")
    assert "the ceiling is 24. Expected: at most 24 rows in one run. Next: " in cleaned.output
    assert (fences(connection), phases(connection, run_id)) == ([], [])


def test_check_mode_writes_the_plan_and_nothing_else(
    clean_up: Any, connection: Connection, example: Any, run_id: str, tmp_path: Path
) -> None:
    cleaned = clean_up("--check", "--diff")
    assert cleaned.calls == [REPORT, REMOVAL]
    assert "-write fence: lowered\n+write fence: raised\n" in cleaned.output
    assert (cleaned.result["planned"], cleaned.result["removed"]) == (25, 25)
    assert [cleaned.output.count(row) for row in example.surplus] == [1] * 25
    assert len(json.loads((tmp_path / "artifacts/cleanup_plan.json").read_text())["rows"]) == 25
    assert run(connection, f"SELECT count(*) FROM {TABLE}") == [(69,)]
    assert (fences(connection), phases(connection, run_id)) == ([], [])


def test_a_plan_that_cannot_be_written_stops(
    clean_up: Any, connection: Connection, example: Any, tmp_path: Path
) -> None:
    (tmp_path / "artifacts/cleanup_plan.json").mkdir(parents=True)
    cleaned = clean_up(fails=True)
    assert cleaned.calls == []
    assert "Is a directory. Expected: a file on the control node" in cleaned.output
    assert fences(connection) == []


def test_more_surplus_than_the_fence_can_exempt(
    clean_up: Any, connection: Connection, plan: Plan, example: Any, run_id: str
) -> None:
    many = 2 * exempting_index.MOST
    run(
        connection,
        f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status)"
        f" SELECT 'L', '{INSPECTOR}', 'active' FROM generate_series(0, %s)",
        many,
    )
    cleaned = clean_up()
    assert cleaned.calls == [REPORT, REMOVAL]
    result = cleaned.result
    assert (result["groups"], result["planned"], result["removed"]) == (11, 25 + many, 25 + many)
    assert phases(connection, run_id) == [("cleanup", "ok", result)], "recorded once, when all of it has gone"
    assert fences(connection) == [name_of(plan.id)]


def test_a_reviewed_plan_holds_for_the_content_that_was_reviewed(
    clean_up: Any, connection: Connection, plan: Plan, example: Any, tmp_path: Path
) -> None:
    reviewed, written = tmp_path / "reviewed.json", tmp_path / "artifacts/cleanup_plan.json"
    clean_up("--check")
    reviewed.write_bytes(written.read_bytes())
    changed = min(example.surplus)
    run(connection, f"UPDATE {TABLE} SET notes = 'written since' WHERE id = %s", changed)
    cleaned = clean_up("-e", f"cleanup_reviewed_plan={reviewed}", fails=True)
    assert cleaned.calls == [REPORT]
    stop = f"1 surplus rows are not in {reviewed} as they are now (changed since: {changed}). Expected"
    assert stop in cleaned.output
    assert (
        "Next: ansible-playbook deploy.yml -l <environment> without cleanup_reviewed_plan --check, " in cleaned.output
    )
    assert run(connection, f"SELECT count(*) FROM {TABLE}") == [(69,)]
    reviewed.write_text("{")
    cleaned = clean_up("-e", f"cleanup_reviewed_plan={reviewed}", fails=True)
    assert f"{reviewed} is no clean-up plan: " in cleaned.output, "the file is named as it was given"
    reviewed.write_bytes(written.read_bytes())  # reviewed again
    cleaned = clean_up("-e", f"cleanup_reviewed_plan={reviewed}")
    assert cleaned.result["removed"] == 25
    assert cleaned.executions == 2
