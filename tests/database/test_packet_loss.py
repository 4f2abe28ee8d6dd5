"""A network that loses every packet is noticed within a minute and named: nothing refuses, and nobody says goodbye.

A network namespace of our own has one address, on which a relay hands everything to the server. What then goes to the
address vanishes, so that not even the kernel of the other side acknowledges what is sent.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service_database import running_server

PROGRAM = """
import json, os, pathlib, socket, subprocess, sys, threading, time
from at_most_one.errors import OperatorError
from at_most_one.postgres import client_programs, connection, locks, silence
from at_most_one.prisma import cli
ADDRESS = "10.213.7.1"
given = json.load(sys.stdin)
connection.NETWORK.update(given["network"])
if given["network"] and given["act"] == "prisma":  # for the others the kernel notices first
    silence.AFTER_S, silence.TRY_S = 1.0, 2
started = []

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)

def relay():
    while True:
        here, _ = listener.accept()
        there = socket.socket(socket.AF_UNIX)
        there.connect(given["socket"])
        for pair in ((here, there), (there, here)):
            threading.Thread(target=pump, args=pair, daemon=True).start()

def lose():
    started.append(time.monotonic())
    ip("address", "del", f"{ADDRESS}/32", "dev", "lo")
    ip("route", "add", "blackhole", f"{ADDRESS}/32")

ip("link", "set", "lo", "up")
ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
listener = socket.create_server((ADDRESS, 0))
threading.Thread(target=relay, daemon=True).start()
login = connection.Login(**{**given["login"], "host": ADDRESS, "port": listener.getsockname()[1]})

def statement():
    with connection.connect(login, statement_timeout_ms=0) as opened, opened.cursor() as cursor:
        threading.Timer(0.5, lose).start()
        cursor.execute("SELECT pg_sleep(600)")

def sends():
    with connection.connect(login) as opened, opened.cursor() as cursor:
        lose()
        cursor.execute("SELECT 1")

def program():
    with client_programs.access(login) as access:
        threading.Timer(0.5, lose).start()
        client_programs.run(
            [given["psql"], "-X", "-c", "SELECT pg_sleep(600)"], access, [login.password], "look at the network."
        )

def prisma():
    with connection.connect(login, autocommit=True) as opened:
        watch = locks.Watch(opened, "public", ["none"])
        threading.Timer(0.5, lose).start()
        cli.call_prisma("deploy", login, "public", pathlib.Path(given["release"]), None, 1_000, 600, watch)

try:
    globals()[given["act"]]()
except OperatorError as error:
    print(json.dumps({"said": str(error), "seconds": time.monotonic() - started[0]}))
os._exit(0)
"""
QUICK = {"keepalives_idle": 1, "keepalives_interval": 1, "tcp_user_timeout": 3_000}


@pytest.fixture(scope="module")
def given() -> Iterator[dict[str, Any]]:
    """A server that a process in another network namespace reaches: by a socket among the files."""
    directory = Path("/tmp") / f"amo-{os.getpid()}"  # the path of a socket has to be short
    directory.mkdir()
    directory.chmod(0o777)
    with running_server(unix_socket_directories=str(directory)) as server:
        path = directory / f".s.PGSQL.{server.login.port}"
        executable = directory / "node_modules/.bin/prisma"
        executable.parent.mkdir(parents=True)
        executable.write_text("#!/bin/sh\nexec sleep 600\n")
        executable.chmod(0o755)
        yield {
            **{"login": vars(server.login), "socket": str(path), "psql": str(server.binaries / "psql")},
            "release": str(directory),
        }
    shutil.rmtree(directory)


def cut_off(given: dict[str, Any], act: str, network: dict[str, int]) -> tuple[str, float]:
    """What is said, and after how many seconds, of a network that goes in the middle of ``act``."""
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    done = subprocess.run(
        [*apart, sys.executable, "-c", PROGRAM],
        input=json.dumps({**given, "act": act, "network": network}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    return str(answer["said"]), float(answer["seconds"])


@pytest.mark.parametrize("act", ["statement", "sends"])
def test_a_connection_that_nothing_comes_through_is_named(given: dict[str, Any], act: str) -> None:
    said, seconds = cut_off(given, act, QUICK)
    assert f"The connection to {given['login']['user']}@10.213.7.1" in said
    assert "was lost: could not receive data from server: Connection timed out" in said
    assert 1 < seconds < 15


def test_postgresqls_own_programs_give_up_too(given: dict[str, Any]) -> None:
    said, seconds = cut_off(given, "program", QUICK)
    assert "psql ended with exit code" in said
    assert "Connection timed out" in said or "connection to server was lost" in said
    assert 1 < seconds < 15


def test_prisma_which_notices_nothing_is_ended(given: dict[str, Any]) -> None:
    said, seconds = cut_off(given, "prisma", QUICK)
    assert "has stopped answering" in said
    assert 1 < seconds < 15


@pytest.mark.thorough  # half a minute in which nothing happens
@pytest.mark.parametrize("act", ["statement", "program", "prisma"])
def test_within_a_minute(given: dict[str, Any], act: str) -> None:
    said, seconds = cut_off(given, act, {})
    assert "timed out" in said or "was lost" in said or "has stopped answering" in said
    assert 20 < seconds < 60
