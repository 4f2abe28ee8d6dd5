"""Run a playbook as from the shell, and know afterwards how long it took and how many module calls it made."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.executions import Executions

from .server import ROOT

TIMEOUT_S = 3_600


@dataclass(frozen=True)
class Task:
    """One task that began, and how many answers it had: of each host one, and in a loop one of each item."""

    play: int
    name: str
    action: str
    began: float
    ended: float
    answers: int

    @property
    def seconds(self) -> float:
        """Until the next task began: templates, forks and answers included."""
        return self.ended - self.began


@dataclass(frozen=True)
class Played:
    """One run that ended well: its seconds, from the start of ansible-playbook to its end, its module calls, its tasks.

    A call is a start of Python for a module, on whichever host.
    """

    seconds: float
    calls: int
    plays: Sequence[str]
    tasks: Sequence[Task]


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
        executions = Executions(Path(directory))
        command = [f"{ROOT}/.venv/bin/ansible-playbook", str(playbook), "-i", str(inventory), *arguments]
        command += executions.arguments
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
        return Played(seconds, executions.counted(), told["plays"], [Task(**task) for task in told["tasks"]])
