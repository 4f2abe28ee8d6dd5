"""One build on every host, of an application whose builds all differ: its page, chunk and action, asked of all."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.deploy.faults import FAULTS
from tests.hosts.conftest import Site
from tests.support.executions import Executions
from tests.support.fleet import ROOT, Host, asset

# The most starts of Python for a module with nothing to do: on the first host, which asks the database, and on another.
FIRST_HOST, FURTHER_HOST = 12, 5
DIFFERS: dict[str, Any] = {"prepare_build_commands": [["sh", "build.sh", "random"]]}

# Answers what is asked of it about itself as another version would, and else is the real one.
NODE = """\
#!/bin/sh
case "$2" in *process.report*) printf 'Node.js 18, x64, glibc'; exit;; esac
exec {real} "$@"
"""


class Visitors(threading.Thread):
    """People who open the page on every host all the while, and use what is on it on each host that was switched."""

    def __init__(self, hosts: list[Host], after: str) -> None:
        super().__init__()
        self.builds: dict[str, set[str]] = defaultdict(set)  # of each commit that answered
        self.used, self.refused = 0, list[str]()
        self._hosts, self._after, self._over = hosts, after, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            pages = [page(host) for host in self._hosts]
            for answer in pages:
                self.builds[answer["commit"]].add(answer["build"])
            new = [number for number, answer in enumerate(pages) if answer["commit"] == self._after]
            for host in self._hosts[
                : max(new, default=0)
            ]:  # one after the other: those before the last new one are done
                for number in new:
                    self.used += 1
                    if {200} != {chunk(host, pages[number]["build"]), action(host, pages[number]["build"])}:
                        self.refused.append(f"{host.name}: {pages[number]}")

    def end(self) -> None:
        self._over.set()
        self.join()


def test_every_host_serves_one_build(site: Site, tmp_path: Path) -> None:
    """Builds of their own are stopped before the cutover. What then is shipped holds through the roll and after."""
    hosts = site.fleet.hosts
    pids = [host.pids() for host in hosts]

    each = site.deploy(release_build="each", **DIFFERS)

    assert each.code != 0
    assert (each.report["outcome"], each.report["failed_phase"]) == ("stopped", "prepare")
    for words in FAULTS["hosts with different builds"].says:
        assert words in each.report["error"], each.report["error"]
    assert [host.pids() for host in hosts] == pids
    assert len({build_of(host, site.fleet.after) for host in hosts}) == 3, "none of them would fit another one"
    mine = build_of(hosts[0], site.fleet.after)

    visitors = Visitors(hosts, site.fleet.after)
    visitors.start()
    once = site.deploy(**DIFFERS)
    visitors.end()

    assert once.code == 0, once.output
    assert once.report["traffic"]["failures"] == 0
    assert (
        "Server actions: 1, on /, with ids that only this build knows (1 of the served build are gone)" in once.output
    )
    assert f"key-{mine}" not in once.output + once.events, "the key itself is nobody's"
    assert visitors.builds == {site.fleet.before: {site.fleet.before}, site.fleet.after: {mine}}
    assert visitors.refused == []
    assert visitors.used > 0
    for host in hosts:
        assert host.served() == {site.fleet.after}
        assert {build_of(host, site.fleet.after), page(host)["build"]} == {mine}
        assert {chunk(host, mine), action(host, mine)} == {200}
        assert status(host.url + asset(site.fleet.before)) == 200, "carried forward on every host"
        assert f"HOST_NAME={host.name}\n" in (host.path / ".env.production").read_text(), "it stays the host's own"
        assert list(host.path.parent.glob("*.tar.gz")) == []
    markers = [json.loads((host.path / ".at-most-one.json").read_text()) for host in hosts]
    assert markers[0]["digest"]
    assert markers == [markers[0]] * 3

    executions = Executions(tmp_path)
    again = site.deploy(*executions.arguments, **DIFFERS)

    assert (again.code, again.changed, again.report["outcome"]) == (0, 0, "unchanged"), again.output
    starts = executions.by_host()
    first, *further = (starts.pop(f"{host.ssh.address} {host.ssh.port}") for host in hosts)
    assert first <= FIRST_HOST
    assert max(further) <= FURTHER_HOST
    assert not starts, "none on the control node"

    (hosts[2].path / ".next/BUILD_ID").write_text("of its own")
    sha256 = hashlib.sha256(b"of its own").hexdigest()
    (hosts[2].path / ".at-most-one.json").write_text(json.dumps({**markers[2], "build_id_sha256": sha256}))
    differs = site.deploy("-t", "prepare", **DIFFERS)

    assert differs.code != 0
    for words in ("host-3 would serve build of its own", "What differs: build id.", "git commit --allow-empty"):
        assert words in differs.failures[0], differs.failures
    assert build_of(hosts[2], site.fleet.after) == "of its own", "what serves is never replaced"


@pytest.mark.thorough  # it stops before anything is built; tests/unit/test_shipping.py holds what is compared
def test_a_host_with_another_node_is_named_before_anything_is_built(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "node"
    other.write_text(NODE.format(real=f"{ROOT}/.lab/bin/node"))
    other.chmod(0o755)
    site.fleet.hosts[1].environment_path = f"{tmp_path}{os.pathsep}{ROOT}/.lab/bin"

    try:
        run = site.deploy()
    finally:
        site.fleet.hosts[1].environment_path = ""

    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("stopped", "prepare")
    for words in FAULTS["other Node major on a host"].says:
        assert words in run.report["error"], run.report["error"]
    assert [host.path.parent.joinpath("light.releases").exists() for host in site.fleet.hosts] == [False] * 3


def build_of(host: Host, commit: str) -> str:
    return (host.path.parent / "light.releases" / commit / ".next/BUILD_ID").read_text()


def page(host: Host) -> dict[str, Any]:
    with urlopen(f"{host.url}/", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def chunk(host: Host, build: str) -> int:
    return status(host.url + asset(build))


def action(host: Host, build: str) -> int:
    return status(Request(f"{host.url}/", method="POST", headers={"Next-Action": f"action-{build}"}))


def status(request: str | Request) -> int:
    try:
        with urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code
