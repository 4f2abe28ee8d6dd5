"""library/service_check.py in the process of ansible-playbook, where it is delegated to localhost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.plugins.loader import action_loader

if TYPE_CHECKING:
    from action_plugins.in_process import ActionModule as InProcess
else:
    InProcess = action_loader.get("in_process", class_only=True)


class ActionModule(InProcess):
    module = InProcess.load("service_check")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The checks create and undo rows as the run's plan says, whichever role asks for them."""
        plan = ((task_vars or {}).get("run_facts") or {}).get("plan") or {}
        if plan.get("proof"):
            self._task.args = {"plan": plan, **self._task.args}
        return dict(super().run(tmp, task_vars))
