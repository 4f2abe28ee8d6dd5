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

ROOT = Path(__file__).parents[2]
PLAYBOOK = ROOT / ".venv/bin/ansible-playbook"
COMMIT = "a" * 40

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
            "write_fence": {"changed": False},
            "index_set": {"changed": True, "indexes": [], "summary": "missing"},
            "prisma_history": {"changed": True, "verdict": "rolled_back"},
            "duplicate_rows": {"changed": True, **restored},
            **{name: {} for name in ("release_link", "pm2_app")},
            "deploy_run": {"changed": False, "reached": {**DEPLOYED, "content": content(pending)}},
        }
        self.log.write_text("[]")
        library = self.directory / "library"
        library.mkdir()
        for name, answer in answers.items():
            text = STAND_IN.format(python=sys.executable, log=str(self.log), name=name, answer=answer)
            (library / name).write_text(text)
            (library / name).chmod(0o755)
        names = ("_rollback_outcome", "_rollback_restored", "_rollback_left_count", "_rollback_left")
        shown = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
        variables = {
            **{"_run_plan": {"id": "p", "schema": "aedpics", "table": "sessions", "migration": "m", "indexes": []}},
            **{"_run_id": "run-3", "_run_commit_before": COMMIT, "_run_in_place": True, "environment_name": "local"},
            **{"app_releases_path": str(self.directory), "database_login": {}, "database_gateway": "localhost"},
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


def test_what_cannot_return_is_recorded_and_the_rollback_ends(rollback: Rollback) -> None:
    restored = {"restored": 23, "left": [LEFT], "left_count": 2}
    assert rollback.run(restored, 2, "-e", "rollback_statement_timeout_ms=90000") == 0, rollback.said
    (asked,) = rollback.calls("duplicate_rows")
    assert (asked["restore"], asked["archived_by"], int(asked["statement_timeout_ms"])) == ("possible", "run-2", 90_000)
    facts = json.loads(rollback.facts.read_text())
    assert (facts["_rollback_outcome"], facts["_rollback_restored"], facts["_rollback_left_count"]) == (
        "rolled_back",
        23,
        2,
    )
    recorded = rollback.calls("deploy_run")[-1]["details"]
    assert (recorded["left_count"], recorded["left"]) == (2, [LEFT])


def test_a_check_asks_what_returns_once_the_index_is_dropped(rollback: Rollback) -> None:
    assert rollback.run({"restored": 23, "left": [LEFT], "left_count": 2}, 25, "--check") == 0, rollback.said
    (asked,) = rollback.calls("duplicate_rows")
    assert asked["index_dropped_first"] in (True, "True")


def test_rows_that_nobody_accounts_for_stop_it(rollback: Rollback) -> None:
    assert rollback.run({"restored": 22, "left": [LEFT], "left_count": 2}, 3) != 0
    assert "3 rows are in the archive only, of which 2 cannot return" in rollback.said
    assert not rollback.facts.exists()


def test_rows_alone_touch_neither_application_nor_indexes(rollback: Rollback) -> None:
    assert rollback.run({"restored": 0, "left": [LEFT], "left_count": 2}, 25, "-e", "rollback_only_rows=true") == 0, (
        rollback.said
    )
    (asked,) = rollback.calls("duplicate_rows")
    assert asked["archived_by"] == "run-1", "the run that was taken back, not the one that is deployed"
    assert [call["state"] for call in rollback.calls("index_set")] == ["verified"]
    assert rollback.calls("write_fence") == []
    assert [call["state"] for call in rollback.calls("prisma_history")] == ["read"]
