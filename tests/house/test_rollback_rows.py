"""The rollback role and rows that cannot return: it ends, and never as if everything were as before.

The modules are stand-ins that answer from a list and keep their arguments: what is tested is what the role asks of them
and what it makes of their answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PLAYBOOK = ROOT / ".venv/bin/ansible-playbook"
COMMIT = "a" * 40
PLAN = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text(encoding="utf-8"))
SERVED = {"commit": COMMIT, "in_place": True, "releases": {"path": "/nowhere.releases", "kept": []}}

STAND_IN = """#!{python}
# WANT_JSON
import json, pathlib, sys
log = pathlib.Path({log!r})
arguments = {{key: value for key, value in json.loads(open(sys.argv[1]).read()).items() if key[:1] != "_"}}
calls = json.loads(log.read_text()) + [[{name!r}, arguments]]
log.write_text(json.dumps(calls))
print(json.dumps({answer!r}))
"""


def content(pending: int) -> dict[str, Any]:
    return {"archived": 25, "pending": pending, "back": 25 - pending, "taken": []}


LEFT = {"table": "aedpics.sessions", "reason": "constraint", "name": "sessions_fkey", "count": 2, "rows": []}
LEFT |= {"said": "2 of aedpics.sessions: constraint sessions_fkey rejects them"}
DEPLOYED = {
    **{"runs": ["run-2"], "commit_before": COMMIT, "commit_after": COMMIT, "database": True, "point": "migration"},
    **{
        "built": ["rule"],
        "there": ["rule"],
        "kept": [],
        "applied": True,
        "fence": False,
        "hosts": {},
        "in_the_way": [],
        "purged": [],
    },
    **{"differences": [], "recorded": True, "left_behind": {"runs": ["run-1"], "content": content(2)}},
}


class Rollback:
    """The role, run in a play of its own: what it called, the facts it left, what it said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log, self.facts = directory / "log", directory / "facts"
        self.said = ""

    def run(self, restored: dict[str, Any], pending: int, *options: str) -> int:
        answers = {
            "database_rollback": {"changed": True, "indexes": [], "summary": "", "fence": "lowered", **restored},
            **{name: {} for name in ("release_link", "pm2_app")},
            "deploy_changes_info": {"changed": False, "reached": {**DEPLOYED, "content": content(pending)}},
        }
        self.log.write_text("[]")
        library = self.directory / "library"
        library.mkdir()
        for name, answer in answers.items():
            text = STAND_IN.format(python=sys.executable, log=str(self.log), name=name, answer=answer)
            (library / name).write_text(text)
            (library / name).chmod(0o755)
        shown = "{{ rollback_done | to_json }}"
        variables = {
            "run_facts": {
                "run_id": "run-3",
                "plan": PLAN,
                "parts": {"application": True, "prisma": True, "tool": False, "commands": False, "systemd": False},
            },
            **{"environment_name": "local", "run_host": SERVED},
            **{"database_login": {}, "database_gateway": "localhost"},
            **{"report_language": "en", "project_path": str(ROOT)},
        }
        tasks = [
            {"name": "Roll back", "ansible.builtin.import_role": {"name": "rollback"}},
            {"name": "Show", "ansible.builtin.copy": {"content": shown, "dest": str(self.facts), "mode": "0600"}},
        ]
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        inventory = {"all": {"hosts": {"localhost": {**variables, "ansible_connection": "local"}}}}
        (self.directory / "hosts.yml").write_text(json.dumps(inventory))
        (self.directory / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [str(PLAYBOOK), "-i", "hosts.yml", str(self.directory / "play.yml"), *options],
            cwd=self.directory,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.directory),
                "ANSIBLE_LIBRARY": str(library),
                "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
                "ANSIBLE_FILTER_PLUGINS": str(ROOT / "filter_plugins"),
                "ANSIBLE_ACTION_PLUGINS": str(ROOT / "action_plugins"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_LOCALHOST_WARNING": "false",
            },
            capture_output=True,
            text=True,
        )
        self.said = done.stdout + done.stderr
        return done.returncode

    def calls(self, module: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in json.loads(self.log.read_text()) if name == module]


@pytest.fixture
def rollback(tmp_path: Path) -> Rollback:
    return Rollback(tmp_path)


def test_what_cannot_return_is_kept_and_the_rollback_ends(rollback: Rollback) -> None:
    restored = {"restored": 23, "left": [LEFT], "left_count": 2}
    assert rollback.run(restored, 2, "-e", "rollback_statement_timeout_ms=90000") == 0, rollback.said
    (asked,) = rollback.calls("database_rollback")
    assert (asked["restore"], asked["archived_by"], int(asked["rows_timeout_ms"])) == ("possible", ["run-2"], 90_000)
    assert (asked["phase"], asked["phase_details"]) == ("rollback", {"runs": ["run-2"], "commit": COMMIT})
    assert not asked["as_before"], "only a run that takes itself back is compared with its own beginning"
    assert (asked["rule"], asked["left_behind"]) == (True, False)
    facts = json.loads(rollback.facts.read_text())
    assert {name: facts[name] for name in restored} == restored


def test_one_call_reads_and_one_takes_back(rollback: Rollback) -> None:
    assert rollback.run({"restored": 25, "left": [], "left_count": 0}, 25) == 0, rollback.said
    assert len(rollback.calls("deploy_changes_info")) == 1
    assert len(rollback.calls("database_rollback")) == 1


def test_rows_alone_touch_neither_application_nor_indexes(rollback: Rollback) -> None:
    assert rollback.run({"restored": 0, "left": [LEFT], "left_count": 2}, 25, "-e", "rollback_only_rows=true") == 0, (
        rollback.said
    )
    (asked,) = rollback.calls("database_rollback")
    assert asked["archived_by"] == ["run-1"], "the run that was taken back, not the one that is deployed"
    assert not asked["rule"]
    assert asked["left_behind"] in (True, "true")
    assert rollback.calls("release_link") + rollback.calls("pm2_app") == []


def test_rows_that_were_purged_are_named_before_anything_changes(
    rollback: Rollback, monkeypatch: pytest.MonkeyPatch
) -> None:
    purged = [{"run_id": "run-2", "at": "2026-03-01T05:30:00Z", "rows": 25}]
    monkeypatch.setitem(DEPLOYED, "purged", purged)
    assert rollback.run({"restored": 0, "left": [], "left_count": 0}, 0, "--check") == 2, rollback.said
    said = " ".join(rollback.said.split())
    assert "was purged (run-2 on 2026-03-01T05:30:00Z): its 25 rows cannot return." in said
    assert "-e rollback_restore_rows=false" in said
    assert rollback.calls("database_rollback") == rollback.calls("release_link") == []


def test_without_the_rows_a_purged_deployment_goes_back(rollback: Rollback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEPLOYED, "purged", [{"run_id": "run-2", "at": "2026-03-01T05:30:00Z", "rows": 25}])
    without = ("-e", "rollback_restore_rows=false")
    assert rollback.run({"restored": 0, "left": [], "left_count": 0}, 0, *without) == 0, rollback.said
    (asked,) = rollback.calls("database_rollback")
    assert asked["restore_rows"] == "false"
