"""What users lose while the lab's real application is reloaded, one instance at a time and all by PM2 alone.

``python -m bench.cutover`` wants ``make lab-up`` before it and leaves the lab alone: it starts the lab's built
application a second time, under a PM2 of its own on a port of its own, and reloads it from one directory to the other
and back until the requests have been sent.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from at_most_one.errors import OperatorError
from at_most_one.http.proof import Demand
from at_most_one.http.served_build import Probe
from at_most_one.pm2 import client as pm2
from at_most_one.pm2 import lifecycle, preflight, reload
from at_most_one.service import traffic_probe

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
NAME = "aedpics"
_ASSETS = 8  # of ten requests: connections are what a reload loses, and an asset is the cheapest use of one
_SHOWN = ("requests", "failures", "failures_by_kind", "cutovers", "longest_gap_ms", "p50_ms", "p99_ms", "max_ms")
WAYS = ("one by one", "pm2 reload all")


@dataclass(frozen=True)
class Ground:
    """An application behind a link with two releases, under a PM2 of its own."""

    pm2: pm2.Pm2
    path: Path
    releases: tuple[Path, Path]
    url: str

    def aim(self, release: Path) -> preflight.Aim:
        probe = Probe(f"{self.url}/api/health", pid_header="x-app-pid")
        demand = Demand(NAME, str(release), probe, instance_timeout_s=60, stable_s=1)
        return preflight.Aim(demand, str(self.path), str(self.path / "ecosystem.config.cjs"))

    def link(self, release: Path) -> None:
        fresh = self.path.with_name("app.new")
        fresh.symlink_to(release)
        fresh.rename(self.path)

    def pids(self) -> list[int]:
        return [one.pid for one in pm2.listing(self.pm2, NAME).instances]


@contextlib.contextmanager
def ground(build: Path, lab: dict[str, Any], *, drain: bool) -> Iterator[Ground]:
    """Start the application from ``build``; ``drain`` says whether its own draining is on."""
    port = free_port()
    root = Path(tempfile.mkdtemp(prefix="amo-"))
    path = root / "app"
    releases = (root / "app.releases" / ("a" * 40), root / "app.releases" / ("b" * 40))
    settings = {"DATABASE_URL": lab["database_url"], "PORT": port, "APP_PATH": path, "NEXTAUTH_SECRET": "bench"}
    settings |= {
        "APP_NAMES_ITSELF": 1,
        "NEXTAUTH_URL": f"http://127.0.0.1:{port}",
        **({} if drain else {"APP_DRAIN_MS": 0}),
    }
    for release in releases:
        release.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "--archive", "--link", build, release], check=True)
        (release / ".env.production").unlink(missing_ok=True)
        (release / ".env.production").write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))
    Path(f"{path}.logs").mkdir()
    target = pm2.Pm2(lab["pm2_bin"], str(root / "pm2"), lab["bin_path"])
    made = Ground(target, path, releases, f"http://127.0.0.1:{port}")
    made.link(releases[0])
    try:
        lifecycle.start(target, made.aim(releases[0]))
        yield made
    finally:
        daemon = pm2.daemon_of(target)
        if daemon:
            with contextlib.suppress(OperatorError):
                pm2.run(target, "kill")
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGTERM)
        shutil.rmtree(root, ignore_errors=True)


def run(ground: Ground, way: str, *, keepalive: bool, requests: int, rate_per_s: float) -> dict[str, Any]:
    """Send ``requests`` at ``rate_per_s`` while the application is switched back and forth; the receipt.

    ``cutovers`` in it counts how often; every request was due while one of them was under way or had just ended.
    """
    asset = next((ground.releases[0] / ".next" / "static").rglob("*.css")).relative_to(ground.releases[0] / ".next")
    paths = {"page": "", "health": "api/health", **{f"asset {number}": f"_next/{asset}" for number in range(_ASSETS)}}
    targets = tuple(traffic_probe.Target(name, f"{ground.url}/{path}", "GET", (200,)) for name, path in paths.items())
    settings = traffic_probe.Settings(targets, rate_per_s, keepalive=keepalive)
    stop, samples, started, epoch = threading.Event(), list[traffic_probe.Sample](), time.monotonic(), time.time()
    prober = threading.Thread(target=traffic_probe.probe, args=(settings, stop, samples, started))
    prober.start()
    cutovers = 0
    try:
        time.sleep(1)
        while len(samples) < requests or not cutovers:
            release = next(one for one in ground.releases if one != ground.path.resolve())
            before = ground.pids()
            ground.link(release)
            if way == "one by one":
                reload.reload(ground.pm2, ground.aim(release))
            else:
                pm2.run(ground.pm2, "reload", NAME, timeout_s=120)
            assert not set(before) & set(ground.pids()), "an instance was not reloaded"
            cutovers += 1
    finally:
        ended = time.monotonic()
        stop.set()
        prober.join()
    return {"cutovers": cutovers, **traffic_probe.summarise(samples, settings, started, ended, epoch)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: a line for each run. The exit code is 1 when the tool and the drain together lost a request."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=10_000, help="of each run")
    options.add_argument("--rate", type=float, default=60, help="requests a second")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--build", type=Path, help="a finished build; unless given, the one that the lab serves")
    options.add_argument("--drain", choices=["on", "off", "both"], default="both", help="the application's own drain")
    options.add_argument("--way", choices=[*WAYS, "both"], default="both")
    given = options.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that PM2 ends with us
    lab, lost = json.loads((ROOT / ".lab" / "lab.json").read_text()), 0
    for drain in (True, False):
        if given.drain not in ("both", "on" if drain else "off"):
            continue
        with ground(given.build or Path(lab["app_path"]).resolve(), lab, drain=drain) as made:
            for way, keepalive, number in itertools.product(WAYS, (False, True), range(given.runs)):
                if given.way not in ("both", way):
                    continue
                receipt = run(made, way, keepalive=keepalive, requests=given.requests, rate_per_s=given.rate)
                lost += receipt["failures"] if drain and way == WAYS[0] else 0
                shown = {key: receipt[key] for key in _SHOWN}
                print(f"drain {drain}, {way}, keep-alive {keepalive}, run {number + 1}: {shown}", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
