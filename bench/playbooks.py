"""Run a playbook as from the shell, and know afterwards how long it took and what it asked of whom."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .server import ROOT

TIMEOUT_S = 3_600


@dataclass(frozen=True)
class Task:
    """One task that began. ``calls`` has an entry for each host that answered, and in a loop for each item of each."""

    play: int
    name: str
    action: str
    run_once: bool
    delegate_to: str
    began: float
    ended: float
    calls: Sequence[Mapping[str, Any]]

    @property
    def seconds(self) -> float:
        """Until the next task began: templates, forks and answers included."""
        return self.ended - self.began


@dataclass(frozen=True)
class Played:
    """One run that ended well: its seconds, from the start of ansible-playbook to its end, and its tasks."""

    seconds: float
    output: str
    plays: Sequence[str] = field(default_factory=list)
    tasks: Sequence[Task] = field(default_factory=list)


def play(playbook: Path | str, inventory: Path | str, *arguments: str, bare: bool = False) -> Played:
    """Run it with the project's ansible.cfg; ``bare`` shows what Ansible's own callback shows.

    Raises RuntimeError with the end of the output when the run fails: what has failed has no time to compare.
    """
    with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
        record = Path(directory) / "record.json"
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT}/callback_plugins:{ROOT}/bench/callbacks",
            "ANSIBLE_CALLBACKS_ENABLED": "recorder",
            "ANSIBLE_NOCOLOR": "1",
            "BENCH_RECORD": str(record),
            **({"ANSIBLE_STDOUT_CALLBACK": "default"} if bare else {}),
        }
        command = [f"{ROOT}/.venv/bin/ansible-playbook", str(playbook), "-i", str(inventory), *arguments]
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{playbook} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4_000:]}")
        told = json.loads(record.read_text(encoding="utf-8"))
    return Played(seconds, done.stdout, told["plays"], [Task(**task) for task in told["tasks"]])
