"""library/stop_unless.py in the process of ansible-playbook, for every host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.plugins.loader import action_loader

if TYPE_CHECKING:
    from action_plugins.in_process import ActionModule as InProcess
else:
    InProcess = action_loader.get("in_process", class_only=True)


class ActionModule(InProcess):
    module = InProcess.load("stop_unless")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return dict(self._answer())
