"""What orchestrating many hosts costs above the bare calls, and whether the database notices how many there are."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from at_most_one.postgres.connection import Login

from bench import bare
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
GOAL = 1.3
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

    def repeat(self, played: Played) -> Played:
        """The same module calls, bare."""
        known = {
            "login": asdict(self.login),
            "controller_pid": os.getpid(),
            "bearer_token": "of nobody",
            "admin_bearer_token": "of nobody",
        }
        texts = {host.name: {name: text for name, text in _texts(host).items()} for host in self.hosts}
        return self.bare(bare.playbook(played, known, texts, self.hosts[0].name))

    def bare(self, plays: list[dict[str, Any]]) -> Played:
        with tempfile.TemporaryDirectory(prefix="at-most-one-bench-") as directory:
            path, inventory = Path(directory) / "bare.yml", Path(directory) / "hosts.yml"
            path.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
            members = {host.name: {**host.ssh.variables(), **_texts(host)} for host in self.hosts}
            variables = {"ansible_python_interpreter": f"{ROOT}/.venv/bin/python"}
            inventory.write_text(yaml.safe_dump({"all": {"hosts": members, "vars": variables}}), encoding="utf-8")
            return play(path, inventory, bare=True)

    def warm(self) -> None:
        """Open every ssh connection, so that no side pays for it alone."""
        self.bare([{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]}])


def _texts(host: Host) -> dict[str, str]:
    """What is each host's own in the arguments of its modules."""
    return {"bare_directory": f"{host.ssh.directory}/", "bare_url": host.url}


def measure(bench: Bench) -> list[Result]:
    """Every size in turn: a deployment and its floor, each on fresh hosts, then deployments with nothing to do."""
    sizes = list(dict.fromkeys(max(1, round(full * bench.scale)) for full in SIZES))
    template = _template(bench)
    found: list[Result] = []
    statements: dict[int, Counter[str]] = {}
    with fleet_of(max(sizes), f"{ROOT}/.lab/bin/pm2") as fleet:
        for size in sizes:
            with _ground(bench, template, fleet, size) as ground:
                ground.warm()
                first = ground.deploy()
                statements[size] = _statements(ground)
                bench.say(f"{size} hosts: deployed in {first.seconds:.1f} s by {bare.calls(first)} calls")
                again, floors = _again(bench, ground)
            with _ground(bench, template, fleet, size) as ground:
                ground.warm()
                floor = ground.repeat(first)
                bench.say(f"{size} hosts: its floor {floor.seconds:.1f} s by {bare.calls(floor)} calls")
            found += _figures(bench, size, first, floor, again, floors)
    bench.server.drop(template.dbname)
    return [*found, *_growth(bench, statements)]


def _again(bench: Bench, ground: Ground) -> tuple[list[Played], list[Played]]:
    runs, floors = [], []
    repeats = 1 if len(ground.hosts) >= MANY else max(1, round(REPEATS * bench.scale))
    for _ in range(repeats):
        runs.append(ground.deploy())
        floors.append(ground.repeat(runs[-1]))
        bench.say(
            f"{len(ground.hosts)} hosts: again in {runs[-1].seconds:.1f} s by {bare.calls(runs[-1])} calls,"
            f" floor {floors[-1].seconds:.1f} s by {bare.calls(floors[-1])} calls"
        )
    return runs, floors


def name(size: int, what: str) -> str:
    """The figure for one number of hosts."""
    return f"{size} host{'s' if size > 1 else ''}: {what}"


DEPLOYED, DEPLOYED_RATIO = "a deployment", "a deployment / the same module calls, bare"
NOTHING, NOTHING_RATIO = "a deployment with nothing to do", "nothing to do / the same module calls, bare"


def _figures(
    bench: Bench, size: int, first: Played, floor: Played, again: list[Played], floors: list[Played]
) -> list[Result]:
    ratios = [one.seconds / bare_one.seconds for one, bare_one in zip(again, floors, strict=True)]
    count = len(again)
    return [
        bench.result(name(size, DEPLOYED), first.seconds, "s", repetitions=1),
        bench.result(name(size, DEPLOYED_RATIO), first.seconds / floor.seconds, "ratio", goal=GOAL, repetitions=1),
        bench.result(name(size, NOTHING), median(one.seconds for one in again), "s", repetitions=count),
        bench.result(name(size, NOTHING_RATIO), median(ratios), "ratio", goal=GOAL, repetitions=count),
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
    """Both ratios by the number of hosts, and their goal."""
    for what, colour in ((DEPLOYED_RATIO, "#2b7a4b"), (NOTHING_RATIO, "#d9a441")):
        panel.plot([results[name(size, what)].value for size in SIZES], marker="o", color=colour, label=what)
    panel.set_xticks(range(len(SIZES)), [name(size, "").strip(": ") for size in SIZES])
    panel.axhline(GOAL, color="black", linestyle=":", linewidth=1)
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)
    panel.set_title("deploy.yml over many hosts: times the time of its module calls alone", loc="left")
