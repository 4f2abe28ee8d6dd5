"""A run that another one has taken over says so, with what it had changed before, and takes nothing back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from at_most_one.findings import Finding, observed, say

ROOT = Path(__file__).parents[2]
# Whatever it asks or wants done is written down, and refused by this answer.
STAND_IN = """#!{python}
# WANT_JSON
import json, sys
from pathlib import Path
with open({asked!r}, "a") as file:
    file.write(json.dumps(json.loads(Path(sys.argv[1]).read_text())) + "\\n")
print(json.dumps({answer!r}))
"""
LINK = {"changed": True}
SERVED = {
    **{"commit": "a" * 40, "in_place": True, "wanted_release": "/r"},
    "releases": {"path": "/nowhere.releases", "kept": []},
}
PLAN = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text(encoding="utf-8"))
RELOADED = {"changed": True, "instances": [{"pm_id": 0}], "details": {"changed": ["instance 1 begun"]}}
CLOSED: dict[str, Any] = {"run": {}, "phases": []}
REACHED = {
    **{"content": {"pending": 25}, "built": [], "applied": False, "point": "rows", "commit_before": "a" * 40},
    **{"runs": ["run-41"], "kept": [], "database": True, "fence": True, "hosts": {}},
}


def stopped(directory: Path, answer: dict[str, Any], facts: dict[str, Any], **answers: dict[str, Any]) -> str:
    """The error of a run that stops; each module that it calls gives that answer, or the one of its own name."""
    library = directory / "library"
    library.mkdir()
    for name in ("deploy_run", "deploy_changes_info", "database_rollback", "release_link", "pm2_app", "write_fence"):
        asked = str(directory / f"{name}.asked")
        text = STAND_IN.format(python=sys.executable, asked=asked, answer=answers.get(name, answer))
        (library / name).write_text(text)
        (library / name).chmod(0o755)
    variables = {
        "run_facts": {
            **{"run_id": "run-41", "plan": PLAN, "is_whole": True, "artifacts_path": "/nowhere"},
            "parts": {"application": True, "prisma": True, "tool": False, "commands": False, "systemd": False},
        },
        **{
            "run_end": {"outcome": "running"},
            "run_host": SERVED,
            "run_phase": "cleanup",
            "ansible_failed_result": {"msg": "First."},
        },
        **{"database_gateway": "web1", "database_login": {}, "report_language": "en", "run_front_door": "deploy.yml"},
        **{"app_path": str(directory), "app_releases_path": str(directory), "ansible_connection": "local", **facts},
    }
    stop = {"ansible.builtin.include_role": {"name": "run", "tasks_from": "stop"}}
    keep = {"content": "{{ run_end.error }}", "dest": str(directory / "error"), "mode": "0600"}
    tasks = [{"block": [stop], "rescue": [{"ansible.builtin.copy": keep}]}]
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
    error = stopped(
        tmp_path,
        {"failed": True, "msg": taken, "details": {"taken_over_by": "run-42"}},
        {
            **{"cleanup_removed": {"removed": 25}, "migrate_indexes": {"changed": True}},
            **{"pm2_reload_link": LINK, "pm2_reload_instances": RELOADED},
        },
    )
    changed = "25 rows removed, indexes built, web1: link moved, instance 0 reloaded, instance 1 begun"
    assert error == f"First.\n{taken} Nothing was taken back. This run had changed before: {changed}."


def test_a_journal_that_does_not_answer_is_said_to_stay_open(tmp_path: Path) -> None:
    error = stopped(tmp_path, {"failed": True, "msg": "No connection.", "details": {}}, {})
    assert error == "First.\nThe journal stays open: No connection."


def test_an_overtaken_way_back_does_not_ask_to_take_the_later_run_back(tmp_path: Path) -> None:
    refused = {"failed": True, "msg": "Refused.", "details": {"overtaken_by": "run-42"}}
    error = stopped(tmp_path, refused, {}, deploy_run=CLOSED, deploy_changes_info={"reached": REACHED})
    assert error.startswith("First.\nThe way back failed: Refused. Reached: 25 rows removed, 0 of 3 indexes"), error
    assert "Stays: 25 rows in the archive" in error
    assert "Next: leave it as it is, because the later run goes on from it: ansible-playbook history.yml" in error
    assert "rollback.yml" not in error


def test_a_run_that_went_back_says_what_it_took_back(tmp_path: Path) -> None:
    done = {"sentence": "3 indexes dropped. Next: ansible-playbook rollback.yml -l <environment>", "changed": True}
    answers = {"deploy_run": CLOSED, "deploy_changes_info": {"reached": REACHED}, "database_rollback": done}
    error = stopped(tmp_path, {}, {}, **answers)
    assert error == (
        "First.\nRolled back automatically: no host was switched, 3 indexes dropped."
        f" Next: ansible-playbook rollback.yml -i {tmp_path}/hosts.yml"
    )


def test_a_fence_that_cannot_be_lowered_is_named_before_the_run_is_closed(tmp_path: Path) -> None:
    nothing = {**REACHED, "point": "nothing", "content": {"pending": 0}}
    held = {"failed": True, "msg": "It is held."}
    error = stopped(tmp_path, held, {}, deploy_run=CLOSED, deploy_changes_info={"reached": nothing})
    assert error == "First.\nThe write fence stays up: It is held."


def test_what_an_error_consists_of_is_in_the_journal_for_each_language(tmp_path: Path) -> None:
    found = Finding("", observed("AMO-2321", "Of {table}.", table="t"), say("none."), say("look again.")).as_data()
    failed = {"msg": "Of t. Expected: none. Next: look again.", "next_step": "look again.", "findings": [found]}
    nothing = {**REACHED, "point": "nothing", "content": {"pending": 0}}
    answers = {"deploy_run": CLOSED, "deploy_changes_info": {"reached": nothing}}
    stopped(tmp_path, {}, {"ansible_failed_result": failed}, **answers)
    recorded, closed = map(json.loads, (tmp_path / "deploy_run.asked").read_text().splitlines())
    assert (recorded["state"], closed["state"]) == ("recorded", "closed")
    assert recorded["details"]["findings"] == [found]
