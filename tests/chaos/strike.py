"""One point: strike the run there, start it once more, and look whether the end is the wanted one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.points import Course, Point
from tests.chaos.proxy import Proxy, Strike
from tests.chaos.world import RULE, World

_OPTIONS = {
    "deploy": ("deploy.yml", "-e", "migrate_strategy=prisma"),
    "concurrent": ("deploy.yml", "-e", "migrate_strategy=concurrent"),
    "rollback": ("rollback.yml",),
}


class Range:
    """A world to strike in, with its proxy, and what its undisturbed runs have shown."""

    def __init__(self, world: World, logs: Path) -> None:
        self.world, self.logs = world, logs
        self.tasks, self.calls = world.directory / "tasks.jsonl", world.directory / "calls.jsonl"
        self.proxy = Proxy(("127.0.0.1", world.database_port), self._task)
        self.before = world.images()

    def _task(self) -> int:
        """The number of the task that has begun last."""
        try:
            return self.tasks.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def _run(self, way: str, log: Path, *, kill: int = 0, record: bool = False) -> int:
        self.tasks.unlink(missing_ok=True)
        port = ("-e", f"database_port={self.proxy.port}")
        seen = {"AT_MOST_ONE_CHAOS_TASKS": str(self.tasks), "AT_MOST_ONE_CHAOS_KILL": str(kill)}
        if record:
            self.calls.unlink(missing_ok=True)
            seen |= {"AT_MOST_ONE_CHAOS_CALLS": str(self.calls), "AT_MOST_ONE_CHAOS_SERVER": self.world.dsn()}
        return self.world.run(*_OPTIONS[way], *port, log=log, **seen)

    def course(self, way: str) -> Course:
        """One undisturbed run. It has to end well: otherwise no other run would say anything."""
        self.world.put_back(deployed=way == "rollback")
        self.proxy.seen.clear()
        log = self.logs / f"undisturbed-{way}-{self.world.name}.log"
        code = self._run(way, log, record=True)
        faults = [f"exit code {code}"] if code else []
        faults += self.faults(way)
        if faults:
            raise SystemExit(f"chaos: the undisturbed {way} does not end well: {'; '.join(faults)}. Next: read {log}")
        tasks, calls = (
            [json.loads(line) for line in file.read_text().splitlines()] for file in (self.tasks, self.calls)
        )
        return Course(tasks, list(self.proxy.seen), calls)

    def strike(self, point: Point) -> list[str]:
        """Strike, run once more, and return what is not as it must be: nothing, if all is well."""
        world = self.world
        world.put_back(deployed=point.way == "rollback")
        log = self.logs / f"{''.join(c if c.isalnum() else '-' for c in point.id)[:120]}.log"
        log.unlink(missing_ok=True)
        blows: dict[str, Callable[[int], None]] = {
            "end": lambda pid: world.maintain(f"SELECT pg_terminate_backend({pid})"),
            "restart": lambda _pid: world.pg_ctl("restart", "-m", "immediate"),
        }
        if point.blow in blows:
            self.proxy.strike = Strike(point.task, point.shape, blows[point.blow])
        code = self._run(point.way, log, kill=point.task if point.blow == "kill" else 0)
        struck = code == -9 if point.blow == "kill" else bool(self.proxy.strike and self.proxy.strike.hit.is_set())
        self.proxy.strike = None
        if not struck:
            return [f"the point was not reached; the run ended with {code}"]
        _say(log, f"-------- struck; exit code {code}; once more --------")
        over = point.way == "rollback" and world.outcomes()[:1] == ["rolled_back"]
        code = self._run(point.way, log)
        _say(log, f"-------- exit code {code} --------")
        faults = self.faults(point.way, over=over)
        if bool(code) != over:
            faults.insert(0, f"the second run ended with {code}")
        if not faults:
            log.unlink()
        return faults

    def faults(self, way: str, *, over: bool = False) -> list[str]:
        """What is not as it must be after a deployment or a rollback that went well.

        ``over``: the run that was struck had closed itself as rolled back, so that the next one stops: nothing is left
        to roll back.
        """
        world, back = self.world, way == "rollback"
        ends = [["stopped", "rolled_back"]] if over else [["rolled_back"]] if back else [["deployed"], ["unchanged"]]
        commit = world.before if back else world.after
        rows, archived = world.images(), world.archived()
        release = (world.releases / commit).resolve()
        self._until(lambda: world.served() == {commit} and world.workers() == [release] * 2)
        wanted: dict[str, tuple[Any, Any]] = {
            "rows and archive together, byte for byte": ({**rows, **archived} == self.before, True),
            "rows that are in both": (sorted(set(rows) & set(archived)), []),
            "rows in the archive": (len(archived), 0 if back else 25),
            "planned indexes": (world.indexes(), set() if back else {(name, True) for name in RULE}),
            "indexes of the fence": (world.fences(), 0),
            "the migration's attempts": (world.migration(), [] if back else [True]),
            "the link": (world.link(), commit),
            "the served commits": (world.served(), {commit}),
            "the workers' directories": (world.workers(), [release] * 2),
            "open runs": (world.outcomes().count(None), 0),
            "the last outcomes": (world.outcomes()[: len(ends[0])] in ends, True),
        }
        return [f"{what}: {seen}, expected {expected}" for what, (seen, expected) in wanted.items() if seen != expected]

    @staticmethod
    def _until(condition: Callable[[], bool], seconds: float = 5) -> None:
        """An old worker that PM2 ends takes a moment for it."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)


def _say(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")
