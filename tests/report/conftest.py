"""Each case's report, rendered once by the role itself, through Ansible."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.cases import CASES, ROOT

Rendered = Callable[[str, str, str], str]
INVENTORY = "all: {hosts: {web1: {ansible_connection: local, ansible_host: 127.0.0.1}}}\n"
SERVICE = {"environment_name": "staging", "app_name": "aedpics", "project_path": str(ROOT)}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """The text of a case's file in a language: ``rendered("stopped", "ko", "report.html")``."""
    known: dict[str, Path] = {}

    def render(case: str) -> Path:
        directory = tmp_path_factory.mktemp(case)
        for language in ("en", "ko"):
            (directory / language).mkdir()
        (directory / "hosts.yml").write_text(INVENTORY)
        facts = {**SERVICE, "output": str(directory), **CASES[case]}
        (directory / "facts.json").write_text(json.dumps(facts))
        command = [ROOT / ".venv/bin/ansible-playbook", ROOT / "tests/report/render.yml"]
        command += ["-i", directory / "hosts.yml", "-l", "web1", "-e", f"@{directory / 'facts.json'}"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return directory

    def read(case: str, language: str, name: str) -> str:
        if case not in known:
            known[case] = render(case)
        return (known[case] / language / name).read_text(encoding="utf-8")

    return read
