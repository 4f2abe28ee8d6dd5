"""library/run_inputs.py: it reads variables and options that only ansible-playbook itself has, so that it runs here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import context
from ansible.errors import AnsibleUndefinedVariable
from ansible.plugins.loader import action_loader
from ansible.template import trust_as_template

if TYPE_CHECKING:
    from action_plugins.in_process import ActionModule as InProcess
else:
    InProcess = action_loader.get("in_process", class_only=True)
from ansible.module_utils.at_most_one.preflight import inputs, parts  # in_process lets them be found
from ansible.module_utils.at_most_one.system import project


class ActionModule(InProcess):
    module = InProcess.load("run_inputs")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        # Paths are those of the shell that the command was given in.
        self._variables = task_vars or {}
        return dict(self._answer())

    def _do(self, call: Any) -> dict[str, Any]:
        asked = self._asked(call.params)
        plan = inputs.plan_of(asked, self._hosts() if call.params["hosts"] else None)
        return {
            "changed": False,
            "plan": plan,
            "tenant": asked.named,
            "who": self._who(),
            "controller": os.uname().nodename,
            # A task has a process of its own: its parent is ansible-playbook, whose life is the run's.
            "controller_pid": os.getppid(),
            "is_whole": inputs.is_whole(asked.run_tags, asked.skip_tags),
            "asked_phases": asked.phases,
            "parts": asdict(asked.parts),
            "left_out": list(asked.parts.left_out),
            "migration_sql": inputs.migration_sql(asked, plan),
        }

    def _who(self) -> str:
        """The person who has started the command. AWX and Semaphore run it as an account of theirs and name who it was.

        A schedule of AWX is nobody: then it is the job.
        """
        given = self._value("semaphore_vars")
        details = given.get("task_details") if isinstance(given, Mapping) else None
        named = self._text("awx_user_name") or (details.get("username") if isinstance(details, Mapping) else None)
        if not named and self._text("awx_job_id"):
            named = f"AWX job {self._text('awx_job_id')}"
        return str(named or os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}")

    def _tags(self) -> tuple[list[str], list[str]]:
        run, skip = (
            [str(tag) for tag in self._value(name) or ()] for name in ("ansible_run_tags", "ansible_skip_tags")
        )
        return run, skip

    def _asked(self, given: dict[str, Any]) -> Any:
        run_tags, skip_tags = self._tags()
        return inputs.Asked(
            project=Path(self._text("project_path") or project.base()),
            home=project.home(),
            base=project.base(),
            options=context.CLIARGS,
            playbook=given["playbook"],
            inventory=self._text("inventory_dir"),
            host=self._text("inventory_hostname"),
            environment=self._text("environment_name") or None,
            limit=context.CLIARGS.get("subset"),
            plan=None if self._value("plan") is None else self._text("plan"),
            names=sorted(self._variables),
            required=given["required"],
            is_set=lambda name: bool(self._value(name)),
            reviewed_plan=self._text("cleanup_reviewed_plan"),
            needs_plan=given["needs_plan"],
            settings={name: value for name in parts.SETTINGS if (value := self._value(name)) is not None},
            run_tags=run_tags,
            skip_tags=skip_tags,
            tenants=given["tenants"],
            tenant=self._text("plan_tenant"),
            listed=self._list("tenants_schemas"),
            artifacts=self._text("project_artifacts"),
            database=str(self._templar.evaluate_expression(_DATABASE) or ""),
        )

    def _hosts(self) -> Any:
        environment = (self._value("groups") or {}).get(self._text("environment_name")) or []
        return inputs.Hosts(
            gateway=self._text("database_gateway"),
            played=[str(host) for host in self._value("ansible_play_hosts_all")],
            addresses={
                str(host): str(self._templar.evaluate_expression(_ADDRESS, local_variables={"host": host}) or "")
                for host in environment
            },
            app_url=self._text("app_url"),
            batch=self._text("pm2_reload_batch") if self._value("pm2_reload_batch") is not None else "1",
        )

    def _text(self, name: str) -> str:
        value = self._value(name)
        return "" if value is None else str(value)

    def _list(self, name: str) -> list[str]:
        """A list, or a text of names with commas, as a module takes it for one."""
        value = self._value(name) or []
        return [str(one).strip() for one in (value.split(",") if isinstance(value, str) else value)]

    def _value(self, name: str) -> Any:
        """A variable's value; None for one that is not set, or made of one that is not."""
        if name not in self._variables:
            return None
        try:
            return self._templar.resolve_variable_expression(name)
        except AnsibleUndefinedVariable:
            return None


_ADDRESS = trust_as_template("hostvars[host].app_instance_url | default('')")
_DATABASE = trust_as_template("database_login.dbname | default('')")
