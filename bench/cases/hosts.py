"""What many hosts take, now and by an earlier commit, and whether the database notices how many there are."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from at_most_one.postgres.connection import Login

from bench import earlier
from bench.playbooks import Played, play
from bench.results import Result, median
from bench.run import Bench
from bench.seed import seed
from bench.server import ROOT, superuser
from tests.support.fleet import Fleet, Host, fleet_of
from tests.support.prisma_stand_in import EARLIER, HISTORY

SIZES = (1, 10, 25, 50)
BATCH = "25%"
REPEATS = 3
# A run over many hosts takes minutes and is a mean by itself: what disturbs a short one is lost in it.
MANY = 25
SURPLUS = 24
FASTER = 0.6  # than the earlier commit, at the most hosts
# Module calls with nothing to do, as tests/deploy/test_deployment.py and tests/hosts/test_one_build.py hold them.
CALLS_ALONE, CALLS_PER_FURTHER_HOST = 12, 5
# What users lose while a busy machine deploys is measured elsewhere; here it must not end a run.
SETTINGS = {
    "pm2_reload_batch": BATCH,
    "pm2_reload_probe_rate_per_s": 10,
    "healthcheck_max_failed_percent": 100,
    "healthcheck_max_gap_ms": 600_000,
    "app_instance_timeout_s": 300,
}


@dataclass(frozen=True)
class Ground:
    """Some hosts of the fleet as they are before the first deployment, and their database."""

    fleet: Fleet
    hosts: list[Host]
    login: Login
    log: Path

    def deploy(self) -> Played:
        inventory = self.fleet.inventory(self.login, self.hosts, **SETTINGS)
        return play("deploy.yml", inventory, "-l", "fleet")

    def warm(self) -> None:
        """Open every ssh connection, so that no run pays for it alone."""
        plays = [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]}]
        with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
            path = Path(directory) / "ping.yml"
            path.write_text(yaml.safe_dump(plays), encoding="utf-8")
            play(path, self.fleet.inventory(self.login, self.hosts, **SETTINGS), "-l", "fleet", bare=True)


def measure(bench: Bench) -> list[Result]:
    """The earlier commit at the most hosts; then every size in turn: a deployment, and some with nothing to do."""
    sizes = list(dict.fromkeys(max(1, round(full * bench.scale)) for full in SIZES))
    before_s = earlier.deployment(max(sizes))
    bench.say(f"{max(sizes)} hosts: deployed in {before_s:.1f} s by {earlier.COMMIT[:8]}")
    template = _template(bench)
    found: list[Result] = []
    statements: dict[int, Counter[str]] = {}
    first = None
    with fleet_of(max(sizes), f"{ROOT}/.lab/bin/pm2") as fleet:
        for size in sizes:
            with _ground(bench, template, fleet, size) as ground:
                ground.warm()
                first = ground.deploy()
                statements[size] = _statements(ground)
                bench.say(f"{size} hosts: deployed in {first.seconds:.1f} s by {first.calls} calls")
                found += _figures(bench, size, first, _again(bench, ground))
    bench.server.drop(template.dbname)
    assert first
    return [*found, *_faster(bench, max(sizes), first.seconds, before_s), *_growth(bench, statements)]


def _again(bench: Bench, ground: Ground) -> list[Played]:
    repeats = 1 if len(ground.hosts) >= MANY else max(1, round(REPEATS * bench.scale))
    runs = [ground.deploy() for _ in range(repeats)]
    for one in runs:
        bench.say(f"{len(ground.hosts)} hosts: again in {one.seconds:.1f} s by {one.calls} calls")
    return runs


def name(size: int, what: str) -> str:
    """The figure for one number of hosts."""
    return f"{size} host{'s' if size > 1 else ''}: {what}"


DEPLOYED, NOTHING = "a deployment", "a deployment with nothing to do"


def _figures(bench: Bench, size: int, first: Played, again: list[Played]) -> list[Result]:
    count, calls = len(again), max(one.calls for one in again)
    goal = CALLS_ALONE + CALLS_PER_FURTHER_HOST * (size - 1)
    return [
        bench.result(name(size, DEPLOYED), first.seconds, "s", repetitions=1),
        bench.result(name(size, "module calls of a deployment"), first.calls, "calls", repetitions=1),
        bench.result(name(size, NOTHING), median(one.seconds for one in again), "s", repetitions=count),
        bench.result(name(size, "module calls with nothing to do"), calls, "calls", goal=goal, repetitions=count),
    ]


def _faster(bench: Bench, size: int, now_s: float, before_s: float) -> list[Result]:
    commit = earlier.COMMIT[:8]
    return [
        bench.result(name(size, f"a deployment by {commit}"), before_s, "s", repetitions=1),
        bench.result(
            name(size, f"a deployment / the same by {commit}"), now_s / before_s, "ratio", goal=FASTER, repetitions=1
        ),
    ]


def _template(bench: Bench) -> Login:
    """The service's database before the rule, with what the light release's Prisma expects of its history."""
    template = seed(bench.server, "bench_hosts", SURPLUS)
    with contextlib.closing(superuser(template)) as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
            " VALUES ('earlier', 'sha', %s, now(), 1)",
            (EARLIER,),
        )
    bench.server.run("ALTER SYSTEM SET log_line_prefix = '[%d] '", "SELECT pg_reload_conf()")
    return template


@contextlib.contextmanager
def _ground(bench: Bench, template: Login, fleet: Fleet, size: int) -> Iterator[Ground]:
    """The first hosts of the fleet with the application in place and a database of their own that logs statements."""
    hosts = fleet.hosts[:size]
    fleet.front.stop()
    fleet.front.upstreams = [host.url for host in hosts]
    fleet.front.start()
    with bench.server.copy(template, f"bench_hosts_{size}") as login, ThreadPoolExecutor(4) as pool:
        bench.server.run(f"ALTER DATABASE {login.dbname} SET log_statement = 'all'")
        try:
            list(pool.map(lambda host: host.start(fleet.origin, fleet.before), hosts))
            for host in hosts:
                host.wait()
            bench.server.log.write_text("")
            yield Ground(fleet, hosts, login, bench.server.log)
        finally:
            list(pool.map(Host.stop, hosts))


def _statements(ground: Ground) -> Counter[str]:
    """What the database was sent, by the first line of each statement, without its values."""
    lines = ground.log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = (line.partition(" statement: ")[2].strip() for line in lines if f"[{ground.login.dbname}]" in line)
    return Counter(re.sub(r"'[^']*'|[0-9a-f-]{36}|[0-9]+", "?", one) for one in said if one)


def _growth(bench: Bench, statements: dict[int, Counter[str]]) -> list[Result]:
    fewest, most = min(statements), max(statements)
    more = statements[most] - statements[fewest]
    for statement, count in more.items():
        bench.say(f"{count} times more with {most} hosts: {statement}")
    counts = {size: statements[size].total() for size in (fewest, most)}
    return [
        bench.result(name(fewest, "SQL statements of a deployment"), counts[fewest], "statements", repetitions=1),
        bench.result(name(most, "SQL statements of a deployment"), counts[most], "statements", repetitions=1),
        bench.result("SQL statements that the most hosts add", more.total(), "statements", goal=0, repetitions=1),
    ]


def draw(panel: Any, results: dict[str, Result]) -> None:
    """The seconds of both by the number of hosts."""
    for what, colour in ((DEPLOYED, "#2b7a4b"), (NOTHING, "#d9a441")):
        panel.plot(SIZES, [results[name(size, what)].value for size in SIZES], marker="o", color=colour, label=what)
    panel.set_xticks(SIZES, [str(size) for size in SIZES])
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)
    panel.set_title("deploy.yml over many hosts: seconds by the number of hosts", loc="left")
