"""How often a playbook starts Python for a module, on a host, on the database's side and on the control node.

Each start costs up to half a second. A callback would count includes, and miss what an action plugin starts.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path


class Executions:
    """An interpreter that writes a line each time it is started: where ssh has come in, if it has."""

    def __init__(self, directory: Path) -> None:
        self._log, self._interpreter = directory / "executions", directory / "python"
        self._log.touch()
        note = f'echo "${{SSH_CONNECTION#* * }}" >> {self._log}'
        self._interpreter.write_text(f'#!/bin/sh\n{note}\nexec {sys.executable} "$@"\n')
        self._interpreter.chmod(0o755)

    @property
    def arguments(self) -> tuple[str, str]:
        """What to give to ansible-playbook, so that it is counted."""
        return "-e", f"ansible_python_interpreter={self._interpreter}"

    def counted(self) -> int:
        """How many there were since the last question."""
        return self.by_host().total()

    def by_host(self) -> Counter[str]:
        """The same by "address port" of the host's sshd, which is empty on the control node."""
        hosts = Counter(self._log.read_text().splitlines())
        self._log.write_text("")
        return hosts
