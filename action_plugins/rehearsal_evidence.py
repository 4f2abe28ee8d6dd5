"""Action of rehearsal_evidence: write the file that travels on the control node, and stop at a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader

action_loader.get("in_process", class_only=True)  # lets the core be imported here
from ansible.module_utils import at_most_one_entry  # noqa: E402
from ansible.module_utils.at_most_one.errors import OperatorError  # noqa: E402
from ansible.module_utils.at_most_one.rehearsal import evidence, turns  # noqa: E402
from ansible.module_utils.at_most_one.system import artifacts, project  # noqa: E402


class ActionModule(ActionBase):
    """The module reads, compares and writes to the journal; what it returns is written to the file here."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = {**self._task.args, "tool": project.release()}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        if result.get("failed") or self._task.check_mode:
            return result
        try:
            path = Path(arguments["path"])
            artifacts.directory(path.parent)
            evidence.write(str(path), result["document"])
            turns.require_no_difference(result["document"])
        except (OperatorError, OSError) as error:
            return dict(at_most_one_entry.failed_result(error) or {})
        return result
