"""Which connections a worker loses when PM2 ends it, one mechanism at a time, and what keeps them."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.http.served_build import Probe
from at_most_one.pm2 import client, reload
from at_most_one.pm2.handover import held
from at_most_one.service import traffic_probe

from tests.service.conftest import ROOT, App
from tests.support.ports import wait_until

DRAIN = str(ROOT / "lab" / "app" / "lib" / "drain.mjs")
AS_NEXT = {"shutdown": "as next start"}
REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


def state(pid: int) -> str:
    """One letter of proc(5): T is stopped, Z has ended and its parent has not read of it."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """The process does nothing while the block runs; what it is sent waits for it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def handed_over_while_it_ends(app: App, pid: int, *, at_once: bool = False) -> list[str]:
    """What comes of four requests that PM2's daemon hands over just after ``pid`` was told to end.

    The daemon is held up until ``pid`` has closed its socket, or has ended if it does so ``at_once``. It takes the
    connections before it reads of that, and so gives one to each of its two workers.
    """
    daemon = client.daemon_of(app.pm2)
    assert daemon
    with paused(daemon.pid):
        users = [socket.create_connection(("127.0.0.1", app.port), timeout=5) for _ in range(4)]
        for user in users:
            user.sendall(REQUEST)
        os.kill(pid, signal.SIGINT)
        if at_once:
            wait_until(lambda: state(pid) == "Z")
        else:
            time.sleep(0.2)  # nothing outside the process shows that it has closed its socket
    return [outcome(user) for user in users]


def outcome(user: socket.socket) -> str:
    with contextlib.closing(user):
        try:
            return user.recv(65536).split(b"\r\n")[0].decode() or "cut"
        except OSError as failure:
            return type(failure).__name__


def probe(app: App) -> Probe:
    return Probe(app.url, pid_header="x-app-pid", timeout_s=2)


def test_a_worker_that_ends_at_once_loses_what_it_was_just_handed(app: App) -> None:
    """The control: this is how `next start` ends."""
    app.start(app.release("a" * 40, **AS_NEXT))
    outcomes = handed_over_while_it_ends(app, app.instances()[0].pid, at_once=True)
    # No reset: the daemon keeps the connection open and waits for a word from the dead. Its user waits too.
    assert sorted(outcomes) == ["HTTP/1.1 200 OK"] * 3 + ["TimeoutError"]


def test_a_worker_that_is_held_gives_it_back(app: App) -> None:
    app.start(app.release("a" * 40, **AS_NEXT))
    pid = app.instances()[0].pid
    with held(probe(app), pid, [one.pid for one in app.instances()]) as holds:
        assert holds
        assert handed_over_while_it_ends(app, pid) == ["HTTP/1.1 200 OK"] * 4
        assert Path(f"/proc/{pid}").exists()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 3, "the hold ended, and the process did not")


def test_a_process_that_does_not_answer_is_not_held(app: App) -> None:
    app.start(app.release("a" * 40, **AS_NEXT))
    with held(probe(app), os.getpid(), []) as holds:
        assert not holds
    with held(Probe(app.url), app.instances()[0].pid, []) as holds:
        assert not holds  # answers that do not name their process


def test_a_worker_that_drains_gives_it_back_by_itself(app: App) -> None:
    app.start(app.release("a" * 40, **AS_NEXT, drain=DRAIN))
    assert handed_over_while_it_ends(app, app.instances()[0].pid) == ["HTTP/1.1 200 OK"] * 4


@pytest.mark.parametrize("drains", [False, True])
def test_a_kept_connection_is_cut_without_draining_and_told_to_go_with_it(app: App, drains: bool) -> None:
    app.start(app.release("a" * 40, **AS_NEXT, **({"drain": DRAIN} if drains else {})))
    user = http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)
    user.request("GET", "/")
    answer = user.getresponse()
    answer.read()
    os.kill(int(answer.headers["x-app-pid"]), signal.SIGINT)
    time.sleep(0.3)
    assert user.sock
    if not drains:
        assert user.sock.recv(1) == b""
        return
    user.request("GET", "/")
    last = user.getresponse()
    last.read()
    assert (last.status, last.headers["x-app-pid"]) == (200, answer.headers["x-app-pid"])
    assert last.headers["Connection"] == "close"


@pytest.mark.parametrize("keepalive", [False, True])
def test_a_reload_of_an_application_that_drains_loses_nothing(app: App, keepalive: bool) -> None:
    """The short form of bench/cutover.py, with a small application in the place of the real one."""
    old, new = app.release("a" * 40, **AS_NEXT, drain=DRAIN), app.release("b" * 40, **AS_NEXT, drain=DRAIN)
    app.start(old)
    settings = traffic_probe.Settings((traffic_probe.Target("app", app.url, "GET", (200,)),), 100, keepalive=keepalive)
    stop, samples, started = threading.Event(), list[traffic_probe.Sample](), time.monotonic()
    prober = threading.Thread(target=traffic_probe.probe, args=(settings, stop, samples, started))
    prober.start()
    try:
        for release in (new, old):
            app.link(release)
            aim = app.aim(release)
            reload.reload(app.pm2, replace(aim, demand=replace(aim.demand, instance_timeout_s=60)))
    finally:
        ended = time.monotonic()
        stop.set()
        prober.join()
    receipt: dict[str, Any] = traffic_probe.summarise(samples, settings, started, ended, time.time())
    assert receipt["failures_by_kind"] == {}
    assert receipt["requests"] >= 200
