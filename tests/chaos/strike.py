"""One point: strike the run there, start it once more, and look whether the end is the wanted one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.blows import BLOWS, Blow
from tests.chaos.points import Course, Point
from tests.chaos.proxy import Proxy
from tests.chaos.world import RULE, World

_OPTIONS = {
    "deploy": ("deploy.yml", "-e", "migrate_strategy=prisma"),
    "concurrent": ("deploy.yml", "-e", "migrate_strategy=concurrent"),
    "rollback": ("rollback.yml",),
}
FALSE_SUCCESS = "a success that is not true: "


class Range:
    """A world to strike in, with its proxy, and what its undisturbed runs have shown."""

    def __init__(self, world: World, logs: Path) -> None:
        self.world, self.logs = world, logs
        self.proxy = Proxy(("127.0.0.1", world.database_port), self._task, world.network.address)
        self.before = world.images()

    def _task(self) -> int:
        """The number of the task that has begun last."""
        try:
            return self.world.tasks.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def _run(self, way: str, log: Path, *more: str, blow: Blow | None = None, record: bool = False) -> int:
        """The exit code of one run, with ``more`` options."""
        world = self.world
        world.tasks.unlink(missing_ok=True)
        where = ("-e", f"database_host={world.network.address}", "-e", f"database_port={self.proxy.port}")
        seen = {"AT_MOST_ONE_CHAOS_TASKS": str(world.tasks)}
        if blow:
            seen["AT_MOST_ONE_CHAOS_HALT"] = ",".join(map(str, blow.halts))
        if record:
            world.calls.unlink(missing_ok=True)
            seen |= {"AT_MOST_ONE_CHAOS_CALLS": str(world.calls), "AT_MOST_ONE_CHAOS_SERVER": world.dsn()}
        return world.run(*_OPTIONS[way], *where, *more, log=log, halted=blow.halted if blow else None, **seen)

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
        files = (self.world.tasks, self.world.calls)
        tasks, calls = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
        return Course(tasks, list(self.proxy.seen), calls)

    def strike(self, point: Point) -> list[str]:
        """Strike, run once more, and return what is not as it must be: nothing, if all is well."""
        world = self.world
        world.put_back(deployed=point.way == "rollback")
        log = self.logs / f"{''.join(c if c.isalnum() else '-' for c in point.id)[:120]}.log"
        log.unlink(missing_ok=True)
        blow = BLOWS[point.blow](world, self.proxy, point, lambda *more: self._run(point.way, log, *more))
        with blow.prepared():
            code = self._run(point.way, log, blow=blow)
            if not blow.struck:
                return [f"the point was not reached; the run ended with {code}"]
            faults = blow.faults(code, log.read_text(errors="replace")) + self._false_success(point.way, code)
            blow.repair()
            _say(log, f"-------- struck; exit code {code}; once more --------")
            over = point.way == "rollback" and world.outcomes()[:1] == ["rolled_back"]
            code = self._run(point.way, log)
            _say(log, f"-------- exit code {code} --------")
            if bool(code) != over:
                faults.append(f"the second run ended with {code}")
            faults += self.faults(point.way, over=over)
        if not faults:
            log.unlink()
        return faults

    def _false_success(self, way: str, code: int) -> list[str]:
        """What is not true of a run that was struck and has called itself well ended, or in the journal deployed."""
        deployed = way != "rollback" and self.world.outcomes()[:1] in (["deployed"], ["unchanged"])
        return [f"{FALSE_SUCCESS}{fault}" for fault in self.faults(way)] if deployed or code == 0 else []

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
