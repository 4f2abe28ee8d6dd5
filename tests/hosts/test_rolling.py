"""Hosts over real ssh: batch by batch, each proven before the next; the first failure sends back those before it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from at_most_one.postgres.connection import connect
from at_most_one.runs import requests

from tests.hosts.conftest import Site
from tests.support.fleet import Host, asset
from tests.support.playbooks import PLANNED

_statements: dict[int, Counter[str]] = {}  # hosts to the statements that the database was sent
CHECKPOINT = 12  # statements of one question between two batches, its connection included


# With one host nothing is rolled; it shows that with three the database is asked between the batches and no more. That
# three serve what they should, in batches and without a lost request, is in test_one_build.py as well.
@pytest.mark.thorough
@pytest.mark.parametrize("size", [1, 3])
def test_every_host_serves_the_release_and_the_database_is_asked_once(site: Site, size: int) -> None:
    """The batch stands in the inventory; behind nginx no request is lost, and a reboot brings back what was proven."""
    hosts = site.fleet.hosts[:size]
    site.front(hosts)
    pids = {host.name: host.pids() for host in hosts}

    run = site.deploy(hosts=hosts, pm2_reload_batch="50%")

    assert run.code == 0, run.output
    assert run.report["outcome"] == "deployed"
    for host in hosts:
        assert host.served() == {site.fleet.after}
        assert host.link == site.fleet.after
        assert not set(host.pids()) & set(pids[host.name])
    assert {one["host"] for one in run.report["instances"]} == {host.name for host in hosts}
    assert run.report["traffic"]["failures"] == 0
    assert run.report["traffic"]["requests"] > 100
    assert site.indexes() == PLANNED
    _statements[size] = site.statements()
    assert _statements[size].total() > 100
    if len(_statements) == 2:
        more = _statements[3] - _statements[1]
        assert _statements[1] - _statements[3] == Counter()
        assert {count % 2 for count in more.values()} == {0}, "a question before each of the two further batches"
        assert more.total() <= 2 * CHECKPOINT

    for host in hosts:
        host.reboot()
    for host in hosts:
        host.wait()
        assert host.served() == {site.fleet.after}, "what comes up after a reboot is what was proven"


# The same way back for another fault.
SLOW = pytest.param("slow", "timed out", marks=pytest.mark.thorough)


@pytest.mark.parametrize(("fault", "says"), [("not well", "unhealthy"), SLOW])
def test_a_fault_on_the_second_host_sends_the_first_back_and_spares_the_third(
    site: Site, fault: str, says: str
) -> None:
    """The hardest to see: both instances boot, are stable and answer 200 with the new build, and yet are not well.

    And a host that is slowed: what it answers comes after a minute.
    """
    branch = fault.replace(" ", "-")
    site.fleet.commit(branch, "A fault", {"fault.json": json.dumps({"host-2": fault})})
    sessions, pids = site.sessions(), [host.pids() for host in site.fleet.hosts]

    run = site.deploy("-e", f"app_branch={branch}")

    first, second, third = site.fleet.hosts
    assert run.code != 0
    assert run.report["outcome"] == "rolled_back"
    assert run.report["failed_phase"] == "pm2_reload"
    assert says in run.report["error"]
    assert not set(first.pids()) & set(pids[0]), "it was switched, and back"
    assert third.pids() == pids[2]
    assert third.link == "in place"
    for host in (first, second, third):
        assert host.served() == {site.fleet.before}
    assert site.sessions() == sessions
    assert site.indexes() == set()


@pytest.mark.thorough  # tests/house/test_between_hosts.py holds when it is asked, tests/database/ what comes of it
def test_a_run_that_is_asked_to_end_switches_no_further_host(site: Site) -> None:
    first, second, third = site.fleet.hosts
    sessions, pids = site.sessions(), [host.pids() for host in site.fleet.hosts]
    asking = threading.Thread(target=_end_once_switched, args=(site, first))
    asking.start()

    run = site.deploy()

    asking.join()
    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("rolled_back", "pm2_reload")
    assert "was asked to end by hana from laptop at" in run.report["error"]
    assert "and has ended with 1 of 3 hosts done" in run.report["error"]
    assert not set(first.pids()) & set(pids[0]), "it was switched, and back"
    assert (second.pids(), third.pids()) == (pids[1], pids[2])
    for host in (first, second, third):
        assert host.served() == {site.fleet.before}
    assert site.sessions() == sessions
    assert site.indexes() == set()


def test_a_host_lost_in_the_middle_sends_the_first_back_and_the_next_run_goes_on(site: Site) -> None:
    """Whether the new code runs on a lost host nobody knows, so the database keeps what guards it."""
    first, second, third = site.fleet.hosts
    pids = [host.pids() for host in site.fleet.hosts]
    loss = threading.Thread(target=_lose_once_switched, args=(second,))
    loss.start()

    run = site.deploy()

    loss.join()
    assert run.code != 0
    assert run.report["outcome"] == "stopped"
    assert run.report["failed_phase"] == "pm2_reload"
    for words in (
        "The connection to host-2 was lost",
        "host-2 cannot be reached",
        f"Back at {site.fleet.before[:12]}: host-1.",
        "Expected:",
        "Next:",
    ):
        assert words in run.report["error"], run.report["error"]
    assert first.link == first.served().pop() == site.fleet.before
    assert not set(first.pids()) & set(pids[0])
    assert third.pids() == pids[2]
    assert third.link == "in place"
    assert site.indexes() == PLANNED

    second.ssh.open()
    old = [host.path.parent / f"light.releases/{'0' * 40}" for host in site.fleet.hosts]
    for release in old:
        release.mkdir(exist_ok=True)
        os.utime(release, (1, 1))
    again = site.deploy(pm2_reload_batch=3, release_keep=2)

    assert again.code == 0, again.output
    for host, release in zip(site.fleet.hosts, old, strict=True):
        assert host.served() == {site.fleet.after}
        kept = {path.name for path in release.parent.iterdir() if path.is_dir()}
        assert kept == {"shared", site.fleet.before, site.fleet.after}, "what served until now stays to go back to"

    third.switch(site.fleet.before)
    assert third.served() == {site.fleet.before}
    assert {status(third.url + asset(site.fleet.after)) for _ in range(4)} == {404}, "it is the old build"
    assert {status(site.fleet.front.url + asset(site.fleet.after)) for _ in range(12)} == {200}, "nginx asks the others"
    assert {status(site.fleet.front.url + asset(site.fleet.before)) for _ in range(12)} == {200}, "carried forward"


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code


def _lose_once_switched(host: Host) -> None:
    deadline = time.monotonic() + 120
    while host.link == "in place" and time.monotonic() < deadline:
        time.sleep(0.01)
    host.ssh.lose()


def _end_once_switched(site: Site, host: Host) -> None:
    deadline = time.monotonic() + 120
    while host.link == "in place" and time.monotonic() < deadline:
        time.sleep(0.01)
    with connect(site.login) as connection:
        requests.ask(connection, "one-active-inspection-session", "abort", "hana", "laptop")


def test_an_address_of_their_own_is_asked_for_by_name(idle: Site) -> None:
    run = idle.deploy("-e", f"app_instance_url={idle.fleet.front.url}")

    assert run.code != 0
    assert "host-1, host-2, host-3 of fleet lack app_instance_url" in run.failures[0]
    assert idle.indexes() == set()


# One pattern decides; these are its other sides.
OTHER_BATCHES = [pytest.param(batch, marks=pytest.mark.thorough) for batch in ("two", "150%")]


@pytest.mark.parametrize("batch", ["0", *OTHER_BATCHES])
def test_a_batch_that_is_none_is_refused_before_anything_is_touched(idle: Site, batch: str) -> None:
    run = idle.deploy(pm2_reload_batch=batch)

    assert run.code != 0
    assert f"pm2_reload_batch is {batch}" in run.failures[0]
    assert idle.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'at_most_one'") == []


def test_a_limit_without_the_gateway_is_refused_before_anything_is_touched(idle: Site) -> None:
    """The release of another host alone has no way to the database, whose rule holds for all of them."""
    run = idle.deploy(limit="host-2")

    assert run.code != 0
    for words in ("-l host-2 leaves out host-1", "Expected:", "/inventories/fleet -l fleet"):
        assert words in run.failures[0]
    assert idle.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'at_most_one'") == []
