"""The project's playbooks, run by ansible-runner as an operator would run them."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner

ROOT = Path(__file__).parents[2]
os.environ["PATH"] = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"  # where ansible-runner looks for ansible-playbook

PLANNED = {
    "idx_inspection_sessions_active_session_per_equipment",
    "idx_inspection_schedules_equipment_date",
    "idx_inspection_schedules_active",
}


@dataclass
class Run:
    """One finished ansible-playbook: its exit code, what it printed, what each task returned, its report."""

    code: int
    output: str
    stats: dict[str, dict[str, int]]
    failures: list[str]
    report: dict[str, Any] = field(default_factory=dict)
    events: str = ""  # every event as AWX would keep it

    @property
    def changed(self) -> int:
        return sum(self.stats.get("changed", {}).values())


def run_playbook(
    playbook: str,
    *arguments: str,
    limit: str | None = "local",
    inventory: str = "local",
    environment: dict[str, str] | None = None,
) -> Run:
    """Run a front door as from the shell, at the project's root. An inventory is the project's own, or a path."""
    inventory = inventory if "/" in inventory else f"inventories/{inventory}"
    latest = ROOT / "artifacts" / Path(inventory).name / "latest"
    before = os.readlink(latest) if latest.is_symlink() else None
    command = [playbook, "-i", inventory, *(["-l", limit] if limit else []), *arguments]
    failures: list[str] = []
    events: list[str] = []

    def handle(event: dict[str, Any]) -> bool:
        events.append(json.dumps(event, ensure_ascii=False, default=str))
        if event["event"] == "runner_on_failed":
            failures.append(str(event["event_data"]["res"].get("msg", "")))
        return True

    with tempfile.TemporaryDirectory(prefix="at-most-one-") as directory:
        runner = ansible_runner.run(
            private_data_dir=directory,
            project_dir=str(ROOT),
            cmdline=shlex.join(command[1:]),
            playbook=playbook,
            event_handler=handle,
            quiet=True,
            envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **(environment or {})},
        )
        output, code, stats = runner.stdout.read(), runner.rc, runner.stats or {}
    after = os.readlink(latest) if latest.is_symlink() else None
    report = json.loads((latest / "report.json").read_text()) if after and after != before else {}
    return Run(code, output, stats, failures, report, "\n".join(events))
