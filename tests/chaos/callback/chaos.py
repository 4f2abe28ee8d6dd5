"""Counts the tasks of a run, writes down which one begins and when, and stands still before the wanted ones.

For the chaos tests alone: nothing but AT_MOST_ONE_CHAOS_* makes it do anything.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import psycopg2
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: chaos
type: aggregate
short_description: Stand still before the n-th task
description:
  - Writes every task that begins to the file AT_MOST_ONE_CHAOS_TASKS, one JSON object per line.
  - Before the tasks whose numbers are in AT_MOST_ONE_CHAOS_HALT it stops ansible-playbook itself, by SIGSTOP.
  - With AT_MOST_ONE_CHAOS_CALLS it writes to that file what was done on a host, with its arguments; and with
    AT_MOST_ONE_CHAOS_SERVER, a connection string, it keeps the database as it was before each module of this project.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "chaos"

    def __init__(self) -> None:
        super().__init__()
        self.tasks = os.environ.get("AT_MOST_ONE_CHAOS_TASKS", "")
        self.halts = os.environ.get("AT_MOST_ONE_CHAOS_HALT", "").split(",")
        self.calls = os.environ.get("AT_MOST_ONE_CHAOS_CALLS", "")
        self.server = os.environ.get("AT_MOST_ONE_CHAOS_SERVER", "")
        self.number, self.play, self.action = 0, "", ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.play = play.get_name()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.number, self.action = self.number + 1, task.action
        if self.tasks:
            what = {"play": self.play, "name": task.get_name(), "action": task.action}
            _append(self.tasks, number=self.number, at=time.time(), **what)
        if str(self.number) in self.halts:
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.server and "." not in task.action:  # the project's own modules have no collection
            self._keep_database(f"before_task_{self.number}")

    def _keep_database(self, name: str) -> None:
        connection = psycopg2.connect(self.server)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {name}")
                cursor.execute(f"CREATE DATABASE {name} TEMPLATE aedpics")
        finally:
            connection.close()

    def v2_runner_on_ok(self, result: Any, **_: Any) -> None:
        if self.calls:
            arguments = result._result.get("invocation", {}).get("module_args")
            _append(self.calls, number=self.number, module=self.action, arguments=arguments)

    v2_runner_item_on_ok = v2_runner_on_failed = v2_runner_on_ok  # type: ignore[assignment]  # their own are untyped

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The last boundary: everything is done, and nobody has been told."""
        self.v2_playbook_on_task_start(_End(), False)


def _append(path: str, **line: Any) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line, default=str) + "\n")


class _End:
    action = "ansible.builtin.end"

    def get_name(self) -> str:
        return "the end of the run"
