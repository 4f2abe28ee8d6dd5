"""A run that another one has taken over says so, with what it had changed before, and takes nothing back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Whatever it asks or wants done is refused by this answer.
STAND_IN = "#!{python}\n# WANT_JSON\nimport json\nprint(json.dumps({answer!r}))\n"
LINK = {"changed": True}
SERVED = {"commit": "a" * 40, "in_place": True, "releases": {"path": "/nowhere.releases", "kept": []}}
RELOADED = {"changed": True, "instances": [{"pm_id": 0}], "details": {"changed": ["instance 1 begun"]}}


def settled(directory: Path, answer: dict[str, Any], facts: dict[str, Any], tasks_from: str = "settle") -> str:
    """What becomes of the error of a run in which each module that it calls on its way out gives that answer."""
    library = directory / "library"
    library.mkdir()
    for name in ("deploy_run", "database_rollback", "release_link", "pm2_app"):
        (library / name).write_text(STAND_IN.format(python=sys.executable, answer=answer))
        (library / name).chmod(0o755)
    variables = {
        **{"_run_id": "run-41", "_run_error": "First.", "_run_phase": "pm2_reload", "database_login": {}},
        **{"database_gateway": "web1", "report_language": "en", "_run_release_path": "/r", "_run_outcome": "stopped"},
        **{"ansible_connection": "local", **facts},
    }
    tasks = [
        {"ansible.builtin.include_role": {"name": "run", "tasks_from": tasks_from}},
        {"ansible.builtin.copy": {"content": "{{ _run_error }}", "dest": str(directory / "error"), "mode": "0600"}},
    ]
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"web1": variables}}}))
    (directory / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=directory,
        env={
            **{"PATH": "/usr/bin:/bin", "HOME": str(directory), "ANSIBLE_LIBRARY": str(library)},
            **{"ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_FILTER_PLUGINS": str(ROOT / "filter_plugins")},
            **{"ANSIBLE_ACTION_PLUGINS": str(ROOT / "action_plugins"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
            "ANSIBLE_LOCALHOST_WARNING": "false",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (directory / "error").read_text()


def test_what_an_overtaken_run_had_changed_is_in_its_error(tmp_path: Path) -> None:
    taken = "Run run-41 was closed as abandoned by run run-42."
    error = settled(
        tmp_path,
        {"failed": True, "msg": taken, "details": {"taken_over_by": "run-42"}},
        {
            **{"_cleanup_result": {"removed": 25}, "_migrate_changed": True},
            **{"__pm2_reload_link": LINK, "__pm2_reload_instances": RELOADED},
        },
    )
    changed = "25 rows removed, indexes built, web1: link moved, instance 0 reloaded, instance 1 begun"
    assert error == f"First.\n{taken} Nothing was taken back. This run had changed before: {changed}."


def test_a_journal_that_does_not_answer_is_said_to_stay_open(tmp_path: Path) -> None:
    error = settled(tmp_path, {"failed": True, "msg": "No connection.", "details": {}}, {})
    assert error == "First.\nThe journal stays open: No connection."


def test_an_overtaken_way_back_does_not_ask_to_take_the_later_run_back(tmp_path: Path) -> None:
    reached = {
        **{"content": {"pending": 25}, "built": [], "applied": False, "point": "rows", "commit_before": "a" * 40},
        **{"runs": ["run-41"], "kept": [], "database": True, "fence": True, "hosts": {}},
    }
    error = settled(
        tmp_path,
        {"failed": True, "msg": "Refused.", "details": {"overtaken_by": "run-42"}},
        {
            **{"__run_reached": {"reached": reached}, "_run_plan": {"indexes": []}, "run_front_door": "deploy.yml"},
            **{"app_path": str(tmp_path), "app_releases_path": str(tmp_path), "rollback_automatic": True},
            **{"_run_failed_phase": "cleanup", "run_host": SERVED},
        },
        "back",
    )
    assert error.startswith("First.\nThe way back failed: Refused."), error
    assert "Next: leave it as it is, because the later run goes on from it: ansible-playbook history.yml" in error
    assert "rollback.yml" not in error
