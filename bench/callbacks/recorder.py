"""Notes when each task of a playbook began and ended, for the benches: see bench/playbooks.py."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: recorder
type: aggregate
short_description: Write every task, how long it took and how many answered, to a file
description:
  - The file's name stands in the environment variable C(BENCH_RECORD); without it nothing is written.
requirements:
  - enabled in configuration
author:
  - the at-most-one maintainers (@at-most-one)
"""


class CallbackModule(CallbackBase):
    """Seconds are the wall clock's. A task ends where the next one begins, as the linear strategy works."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._plays: list[str] = []
        self._tasks: list[dict[str, Any]] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end()
        self._plays.append(play.get_name())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._begin(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._begin(task)

    def _begin(self, task: Any) -> None:
        self._end()
        self._tasks.append(
            {
                "play": len(self._plays) - 1,
                "name": task.get_name(),
                "action": task.action,
                "began": time.time(),
                "ended": None,
                "answers": 0,
            }
        )

    def _end(self) -> None:
        if self._tasks and self._tasks[-1]["ended"] is None:
            self._tasks[-1]["ended"] = time.time()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note(result)

    def _note(self, result: Any) -> None:
        """In a loop each item answers."""
        answers = result.result.get("results") if result.task.loop else None
        for answer in answers if isinstance(answers, list) else [result.result]:
            self._tasks[-1]["answers"] += not answer.get("skipped")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end()
        if path := os.environ.get("BENCH_RECORD"):
            written = {"plays": self._plays, "tasks": self._tasks}
            Path(path).write_text(json.dumps(written, default=str), encoding="utf-8")
