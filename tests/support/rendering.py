"""The pages that people open, written by the roles themselves, through Ansible."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LANGUAGES = ("en", "ko")
INVENTORY = "all: {hosts: {web1: {ansible_connection: local, ansible_host: 127.0.0.1}}}\n"
SERVICE = {"environment_name": "staging", "app_name": "aedpics", "project_path": str(ROOT)}


def report(facts: dict[str, Any], directory: Path) -> None:
    """What a run leaves for people, in ``directory/en`` and ``directory/ko``."""
    run = {**facts["run_facts"], "artifacts_path": "{{ output }}/{{ language }}"}
    _play("tests/report/render.yml", {**SERVICE, "output": str(directory), **facts, "run_facts": run}, directory)


def dashboard(facts: dict[str, Any], directory: Path) -> None:
    """What a look of the monitor leaves, in ``directory/en`` and ``directory/ko``."""
    _play("tests/dashboard/render.yml", {**facts, "output": str(directory)}, directory)


def _play(playbook: str, facts: dict[str, Any], directory: Path) -> None:
    for language in LANGUAGES:
        (directory / language).mkdir(exist_ok=True)
    (directory / "hosts.yml").write_text(INVENTORY)
    (directory / "facts.json").write_text(json.dumps(facts))
    command: list[str | Path] = [ROOT / ".venv/bin/ansible-playbook", ROOT / playbook]
    command += ["-i", directory / "hosts.yml", "-l", "web1", "-e", f"@{directory / 'facts.json'}"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
