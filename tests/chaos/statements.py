"""Every statement that a module sends, struck while it runs: the backend ends, and nobody hears whether it was done.

A whole run for each of some hundred statements would take a day. So the modules are called as an undisturbed run called
them, with its arguments and on the database as it was then; what a whole run makes of a module that failed is struck at
the points of no return (``points``).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.points import Course
from tests.chaos.proxy import Proxy, Strike
from tests.chaos.world import ROOT, World
from tests.support.module_process import HARNESS


@dataclass(frozen=True)
class Call:
    """One call of one module in an undisturbed run."""

    way: str
    number: int
    name: str
    module: str
    arguments: dict[str, Any]

    @property
    def database(self) -> str:
        """The database as it was before it."""
        return f"before_task_{self.number}"


def calls_of(way: str, course: Course) -> list[Call]:
    """Those that were given a login to the database."""
    names = {task["number"]: task["name"] for task in course.tasks}
    return [
        Call(way, call["number"], names[call["number"]], call["module"], call["arguments"])
        for call in course.calls
        if "login" in (call["arguments"] or {})
    ]


@contextlib.contextmanager
def _controller() -> Iterator[int]:
    """The pid of what stands for one start of the playbook: it has ended when the next one begins."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


class Drill:
    """Strikes the calls of one world's last run; what they need beside the database must still be there."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.proxy = Proxy(("127.0.0.1", world.database_port), lambda: 0, world.network.address)

    def strike_all(self, calls: Sequence[Call], known: set[str], every: int) -> Iterator[tuple[str, list[str]]]:
        """Every statement's name (of ``every`` statements the first), with what is not as it must be."""
        number = 0
        for call in calls:
            self.world.put_database(call.database)
            self.proxy.seen.clear()
            if (told := self._invoke(call)).get("failed"):
                raise SystemExit(f"chaos: {call.module} fails when it is called again undisturbed: {told['msg']}")
            wanted = self._state()
            for shape in dict.fromkeys(shape for _, shape in self.proxy.seen):
                name = f"{call.way} | statement | {call.number} | {call.name} | {shape}"
                if number % every == 0 and name not in known:
                    yield name, self._strike(call, shape, wanted)
                number += 1

    def _strike(self, call: Call, shape: str, wanted: dict[str, Any]) -> list[str]:
        self.world.put_database(call.database)
        strike = Strike(0, shape, lambda pid: self.world.maintain(f"SELECT pg_terminate_backend({pid})"))
        self.proxy.strike = strike
        told = self._invoke(call)
        self.proxy.strike = None
        if not strike.hit.is_set():
            return ["the statement was not sent"]
        faults = []
        if told.get("failed") and not ("Expected:" in told["msg"] and "Next:" in told["msg"]):
            faults.append(f"an error that does not say what to do: {told['msg'][:300]}")
        if (again := self._invoke(call)).get("failed"):
            faults.append(f"the second call fails: {again['msg'][:300]}")
        seen = self._state()
        return faults + [
            f"{what}: {seen[what]}, expected {wanted[what]}" for what in wanted if seen[what] != wanted[what]
        ]

    def _invoke(self, call: Call) -> dict[str, Any]:
        """The module's own result."""
        given = {key: value for key, value in call.arguments.items() if value is not None}
        login = {**given["login"], "port": self.proxy.port, "password": self.world.password}
        given["login"] = login
        if "path" in given:  # of a directory that the run itself has removed
            Path(given["path"]).parent.mkdir(parents=True, exist_ok=True)
        with _controller() as pid:
            if "controller_pid" in given:
                given["controller_pid"] = pid
            return self._tell(call, given)

    def _tell(self, call: Call, given: dict[str, Any]) -> dict[str, Any]:
        files = [str(ROOT / "library" / f"{call.module}.py"), str(ROOT / "module_utils")]
        done = subprocess.run(
            [sys.executable, "-c", HARNESS, *files],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        try:
            result: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return {"failed": True, "msg": f"{call.module} told nothing: {done.stderr[-300:]}"}
        return result

    def _state(self) -> dict[str, Any]:
        """What a deployment is about, byte for byte; not when it was done, nor how often it was tried."""
        world = self.world
        return {
            "rows": world.images(),
            "archive": world.archived(),
            "planned indexes": world.indexes(),
            "indexes of the fence": world.fences(),
            "the migration's attempts": world.migration(),
            "open runs": world.outcomes().count(None),
        }
