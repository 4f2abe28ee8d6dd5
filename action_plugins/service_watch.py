"""Action of service_watch: watch a host a minute at a time, until it or another host of the same task has a finding."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import action_loader
from ansible.utils.display import Display

action_loader.get("in_process", class_only=True)  # lets the core be imported here
from ansible.module_utils.at_most_one import catalogue  # noqa: E402
from ansible.module_utils.at_most_one.findings import Finding, observed, say, warning  # noqa: E402
from ansible.module_utils.at_most_one.service import watch  # noqa: E402


class ActionModule(ActionBase):
    """Each host has a process of its own, all of them on this machine: a file tells the others."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        call = functools.partial(self._call, task_vars)
        if self._task.args.get("state") == "baseline":
            return call({})
        # The directory is that of this ansible-playbook, which removes it at its end.
        found = Path(constants.DEFAULT_LOCAL_TMP) / f"watch-{self._task._uuid}"
        try:
            seconds = float(self._task.args["seconds"])
        except (KeyError, TypeError, ValueError):
            return call({})  # the module says what is wrong with it
        self._warn_if_some_wait(task_vars or {})
        ends_well = False
        try:
            result = watch.in_stretches(call, seconds, found.exists)
            ends_well = result.get("findings") == []
        finally:
            if not ends_well:
                found.touch()
        return result

    def _call(self, task_vars: dict[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(module_args={**self._task.args, **more}, task_vars=task_vars)
        return answer

    def _warn_if_some_wait(self, task_vars: dict[str, Any]) -> None:
        """A watch keeps its process until it ends."""
        hosts, at_once = list(task_vars.get("ansible_play_hosts_all") or []), context.CLIARGS.get("forks") or 0
        if len(hosts) > at_once > 0 and task_vars.get("inventory_hostname") == hosts[0]:
            found = Finding(
                "forks",
                observed(
                    "AMO-1035",
                    "Of {hosts} hosts {at_once} are watched at a time; the others wait until these have been.",
                    hosts=len(hosts),
                    at_once=at_once,
                ),
                say("all of them at once."),
                say("the same command with --forks {hosts}.", hosts=len(hosts)),
            )
            Display().warning(catalogue.render(warning(found), str(task_vars.get("report_language", "en"))))
