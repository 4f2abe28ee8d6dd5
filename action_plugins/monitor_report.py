"""library/monitor_report.py in the process of ansible-playbook, where it is delegated to localhost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible import context
from ansible.plugins.loader import action_loader

if TYPE_CHECKING:
    from action_plugins.in_process import ActionModule as InProcess
else:
    InProcess = action_loader.get("in_process", class_only=True)
from ansible.module_utils.at_most_one.system import command_line, project  # in_process lets it be found


class ActionModule(InProcess):
    module = InProcess.load("monitor_report")

    def _do(self, call: Any) -> dict[str, Any]:
        with command_line.about(str(call.params["facts"].get("plan") or "")):  # where it is one of a tenant
            return dict(command_line.filled(super()._do(call), context.CLIARGS, str(project.base())))
