"""What prepare says when somebody else has changed the release that serves, and which way on is open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SERVED, WANTED = f"/srv/app.releases/{'a' * 40}", f"/srv/app.releases/{'b' * 40}"
SEEN = f"{SERVED} is the release of aaaaaaaaaaaa, and its checkout is at cccccccccccc"
CHANGED = {"release": SERVED, "modified": [], "changes": [SEEN], "wanted": "b" * 40, "wanted_release": WANTED}
ALLOWED = {"prepare_allow_changed_release": True}
CASES: dict[str, dict[str, Any]] = {
    "unchanged": {"run_host": {**CHANGED, "changes": []}},
    "changed": {"run_host": CHANGED},
    "allowed": {"run_host": CHANGED, **ALLOWED},
    "allowed for the changed directory itself": {"run_host": {**CHANGED, "wanted_release": SERVED}, **ALLOWED},
    "changed by hand": {"run_host": {**CHANGED, "changes": [], "modified": [" M next.config.mjs"]}},
}
SERVICE = {"app_path": "/srv/app", "app_branch": "main"}


def said(tmp_path: Path) -> dict[str, str]:
    """Each case's message; none where prepare goes on."""
    role = {"ansible.builtin.include_role": {"name": "prepare", "tasks_from": "served", "rolespec_validate": False}}
    plays = []
    for case, variables in CASES.items():
        keep = {"content": "{{ ansible_failed_result.msg }}", "dest": str(tmp_path / case), "mode": "0600"}
        block = {"block": [role], "rescue": [{"ansible.builtin.copy": keep}]}
        plays.append({"hosts": "web1", "gather_facts": False, "vars": {**SERVICE, **variables}, "tasks": [block]})
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays), encoding="utf-8")
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"web1": here}}}), encoding="utf-8")
    command: list[str | Path] = [
        Path(sys.executable).with_name("ansible-playbook"),
        tmp_path / "play.yml",
        "-i",
        tmp_path / "hosts.yml",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "default"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {case: (tmp_path / case).read_text() if (tmp_path / case).exists() else "" for case in CASES}


def test_prepare_goes_on_only_where_what_serves_is_as_it_was_deployed_or_may_be_replaced(tmp_path: Path) -> None:
    messages = said(tmp_path)
    assert [case for case, message in messages.items() if not message] == ["unchanged", "allowed"]
    assert messages["changed"].startswith(
        f"web1: {SEEN}. Expected: a release as this tool has built it. Next: switch off"
    )
    assert "deploy with -e prepare_allow_changed_release=true" in messages["changed"]
    assert "deploy another commit" in messages["allowed for the changed directory itself"]
    assert "local modifications:  M next.config.mjs" in messages["changed by hand"]
