"""What is done to a run at a point, what is repaired before the same command runs again, and what else must hold."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.chaos.points import Point
from tests.chaos.proxy import Proxy, Strike
from tests.chaos.world import World
from tests.support.ports import wait_until
from tests.support.standby import standby

NOTICED_WITHIN_S = 60


class Blow:
    """The controller stands still before the point's task, is struck, and goes on if it can.

    ``run`` starts the same command with more options, and returns its exit code.
    """

    def __init__(self, world: World, proxy: Proxy, point: Point, run: Callable[..., int]) -> None:
        self.world, self.proxy, self.point, self.run = world, proxy, point, run
        self.halts: tuple[int, ...] = (point.task,)
        self.struck = False

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """What has to be there from before the run until all is looked at."""
        yield

    def halted(self, pid: int) -> None:
        """The run stands still before the next of the ``halts``."""
        self.struck = True
        self.strike(pid)

    def strike(self, pid: int) -> None:
        raise NotImplementedError

    def faults(self, code: int, log: str) -> list[str]:
        """What is not as it must be right after the run that was struck, which ended with ``code``."""
        said = re.search(r" {3}AMO-\d{4}$", log, re.MULTILINE)  # behind an error; a warning has it inside
        return [] if code == 0 or said else [f"the run ended with {code} and no word about why"]

    def repair(self) -> None:
        """What somebody does before the same command runs once more."""


class Kill(Blow):
    """The controller, as SIGKILL ends it."""

    def strike(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def faults(self, code: int, log: str) -> list[str]:
        return [] if code == -signal.SIGKILL else [f"the run ended with {code}"]


class Freeze(Blow):
    """The controller, past its lease, while another one deploys whole. Then it goes on, and writes nothing."""

    def strike(self, pid: int) -> None:
        world = self.world
        with world.cursor() as cursor:
            cursor.execute(
                "UPDATE at_most_one.run SET lease_until = clock_timestamp() - interval '1 s' WHERE outcome IS NULL"
            )
        self.second = self.run("-e", "run_takeover=true")
        wait_until(lambda: len(world.processes()) == 2, why="PM2 ends no old worker any more")
        self.there = world.picture()

    def faults(self, code: int, log: str) -> list[str]:
        found = self.world.picture()
        wanted: dict[str, tuple[Any, Any]] = {
            "the second controller": (self.second, 0),
            "the frozen one says that all went well": (code == 0, False),
            "the frozen one's run": (self.world.outcomes()[1:2], ["abandoned"]),
            **{f"{what}, written by the frozen one": (found[what], there) for what, there in self.there.items()},
        }
        return [f"{what}: {seen}, expected {due}" for what, (seen, due) in wanted.items() if seen != due]


class Daemon(Blow):
    """PM2's daemon, with which every worker ends. Nobody starts it again before the run has ended."""

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.repair()

    def strike(self, pid: int) -> None:
        self.world.kill_pm2()

    def repair(self) -> None:
        if not self.world.workers():
            self.world.start_again()


class Disk(Blow):
    """A full disk under the releases, the rows and the reports."""

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        template = "deployed_template" if self.point.way == "rollback" else "before_template"
        with self.world.on_the_small_disk(template):
            yield

    def strike(self, pid: int) -> None:
        self.world.disk.fill()

    def faults(self, code: int, log: str) -> list[str]:
        self.world.disk.empty()  # before anything is asked: PostgreSQL may take no new connection on a full one
        return super().faults(code, log)


class Failover(Blow):
    """A standby in the place of the server, without what was committed since some phases before."""

    def __init__(self, world: World, proxy: Proxy, point: Point, run: Callable[..., int]) -> None:
        super().__init__(world, proxy, point, run)
        self.halts = (point.since, point.task)
        self.promoted = False

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        world, server = self.world, self.proxy.server
        with standby(world.login(), world.binaries) as self.standby:
            try:
                yield
            finally:
                world.database_port, self.proxy.server = server[1], server

    def halted(self, pid: int) -> None:
        if self.promoted:
            super().halted(pid)
        else:  # what it has now is all that it will ever have of the other
            self.standby.catch_up()
            self.standby.promote()
            self.promoted = True

    def strike(self, pid: int) -> None:
        new = self.standby.login
        self.world.database_port, self.proxy.server = new.port, (new.host, new.port)


class InStatement(Blow):
    """Inside the statement that the point's task sends."""

    def __init__(self, world: World, proxy: Proxy, point: Point, run: Callable[..., int]) -> None:
        super().__init__(world, proxy, point, run)
        self.halts = ()

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        self.proxy.strike = Strike(self.point.task, self.point.shape, self.halted)
        try:
            yield
        finally:
            self.proxy.strike = None

    def faults(self, code: int, log: str) -> list[str]:
        return []


class End(InStatement):
    """The statement's backend."""

    def strike(self, pid: int) -> None:
        self.world.maintain(f"SELECT pg_terminate_backend({pid})")


class Restart(InStatement):
    """The whole server."""

    def strike(self, pid: int) -> None:
        self.world.pg_ctl("restart", "-m", "immediate")


class Loss(InStatement):
    """The network: every packet to the database's address and from it, until the run has ended."""

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        with super().prepared():
            try:
                yield
            finally:
                self.world.network.restore()

    def strike(self, pid: int) -> None:
        self.world.network.lose()
        self.lost_at = time.time()

    def faults(self, code: int, log: str) -> list[str]:
        ended = time.time()
        self.world.network.restore()
        self.world.let_go("aedpics")
        lines = map(json.loads, self.world.tasks.read_text().splitlines())
        next_at = next((line["at"] for line in lines if line["number"] > self.point.task), ended)
        took = next_at - self.lost_at
        late = [f"noticed after {took:.0f} s"] if took > NOTICED_WITHIN_S else []
        return late + Blow.faults(self, code, log)


BLOWS: dict[str, type[Blow]] = {
    "kill": Kill,
    "freeze": Freeze,
    "daemon": Daemon,
    "disk": Disk,
    "failover": Failover,
    "end": End,
    "restart": Restart,
    "loss": Loss,
}
