"""The migrate role's rounds: a duplicate in the index's way is cleaned up again, a bounded number of times.

Nothing else is tried again.
The modules are stand-ins that answer from a list: what is tested is the order in which the role calls them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOK = ROOT / ".venv/bin/ansible-playbook"

STAND_IN = """#!/usr/bin/python
# WANT_JSON
import json, pathlib, sys
log = pathlib.Path({log!r})
name = {name!r}
calls = json.loads(log.read_text())
calls.append(name)
log.write_text(json.dumps(calls))
answers = {answers!r}
turn = calls.count(name) - 1
given = answers[min(turn, len(answers) - 1)]
asked = json.loads(pathlib.Path(sys.argv[1]).read_text())
if given.get("blocked") and asked["fail_on_duplicates"]:
    given = {{"failed": True, "msg": given["blocked"]}}
print(json.dumps(given))
"""

BUILT = {
    "changed": True,
    "strategy": "concurrent",
    "history": "applied",
    "pending": [],
    "repaired": False,
    "attempts": 0,
    "seconds": 1.0,
    "write_pause_predicted_ms": 900,
    "write_pause_ms": 0,
    "stalled_by": [],
    "blocked": "",
}
DUPLICATE = {"blocked": "a duplicate got in its way"}
DEADLINE = {"failed": True, "msg": "the deadline has passed", "details": {"cause": "deadline"}}


@pytest.fixture
def migrate(tmp_path: Path) -> Any:
    """Runs the role with the given answers of index_set; returns exit code, calls, and the facts it has set."""

    def run(answers: list[dict[str, Any]], *options: str) -> tuple[int, list[str], dict[str, Any], str]:
        log, facts = tmp_path / "log", tmp_path / "facts"
        log.write_text("[]")
        library = tmp_path / "library"
        library.mkdir()
        for name, given in (("index_set", answers), ("clean", [{}])):
            text = STAND_IN.format(log=str(log), name=name, answers=given).replace(
                "#!/usr/bin/python", f"#!{sys.executable}"
            )
            (library / name).write_text(text)
            (library / name).chmod(0o755)
        role = tmp_path / "roles/cleanup/tasks"
        role.mkdir(parents=True)
        (role / "main.yml").write_text(json.dumps([{"name": "Clean", "clean": {}}]))
        (tmp_path / "roles/migrate").symlink_to(ROOT / "roles/migrate")
        shown = "{{ migrate_indexes | to_json }}"
        play = {
            "hosts": "all",
            "tags": ["migrate"],
            "gather_facts": False,
            "vars": {
                "run_facts": {
                    "plan": {},
                    "run_id": "run",
                    "parts": {"prisma": True, "tool": False},
                    "migration_sql": "",
                },
                "run_host": {"wanted_release": "/nowhere"},
                "app_environment_path": "",
                "database_login": {},
                "database_gateway": "localhost",
            },
            "tasks": [
                {"name": "Migrate", "ansible.builtin.import_role": {"name": "migrate"}},
                {"name": "Show", "ansible.builtin.copy": {"content": shown, "dest": str(facts), "mode": "0600"}},
            ],
        }
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [str(PLAYBOOK), "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml"), *options],
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "ANSIBLE_LIBRARY": str(library),
                "ANSIBLE_ROLES_PATH": str(tmp_path / "roles"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_LOCALHOST_WARNING": "false",
            },
            capture_output=True,
            text=True,
        )
        seen = json.loads(facts.read_text()) if facts.exists() else {}
        return done.returncode, json.loads(log.read_text()), seen, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("options", [(), ("--tags", "migrate")])
def test_a_duplicate_in_the_way_is_cleaned_up_and_built_again(migrate: Any, options: tuple[str, ...]) -> None:
    code, calls, seen, output = migrate([DUPLICATE, BUILT], *options)
    assert code == 0, output
    assert calls == ["index_set", "clean", "index_set"]
    assert {name: seen[name] for name in BUILT} == BUILT


def test_without_a_duplicate_there_is_no_second_round(migrate: Any) -> None:
    code, calls, seen, output = migrate([BUILT])
    assert code == 0, output
    assert calls == ["index_set"]
    assert seen["strategy"] == "concurrent"


def test_the_rounds_are_bounded_and_it_fails_with_the_builds_error(migrate: Any) -> None:
    code, calls, _, output = migrate([DUPLICATE])
    assert code != 0
    assert calls == ["index_set", "clean", "index_set", "clean", "index_set"]
    assert "a duplicate got in its way" in output


@pytest.mark.parametrize("answers", [[DEADLINE], [DUPLICATE, DEADLINE]])
def test_any_other_error_stops_at_once(migrate: Any, answers: list[dict[str, Any]]) -> None:
    code, calls, _, output = migrate(answers)
    assert code != 0
    assert calls == ["index_set", "clean", "index_set"][: 2 * len(answers) - 1]
    assert "the deadline has passed" in output
