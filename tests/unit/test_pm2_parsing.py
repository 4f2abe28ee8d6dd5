"""What PM2, its bus and its versions look like, in tables."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from at_most_one.pm2 import bus, client
from at_most_one.system.app_logs import log_sizes, log_tail

BANNER = "\n[PM2] Spawning PM2 daemon with pm2_home=/home/deploy/.pm2\n[PM2] PM2 Successfully daemonized\n"
ENTRY: dict[str, Any] = {
    "pid": 4711,
    "name": "aedpics",
    "pm_id": 0,
    "monit": {"memory": 1, "cpu": 0},
    "pm2_env": {
        "DATABASE_URL": "postgresql://u:hunter2@h/db",
        "env": {"NEXTAUTH_SECRET": "hunter2"},
        "status": "online",
        "restart_time": 3,
        "exec_mode": "cluster_mode",
        "pm_cwd": "/var/www/aedpics",
        "pm_exec_path": "/var/www/aedpics/node_modules/next/dist/bin/next",
        "pm_out_log_path": "/logs/out",
        "pm_err_log_path": "/logs/err",
        "pm_uptime": 1_700_000_000_000,
        "node_version": "20.20.2",
        "_pm2_version": "7.0.4",
    },
}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("[]", []),
        ("[]\n", []),
        (BANNER + "[]", []),
        (BANNER + json.dumps([ENTRY]), [ENTRY]),
        (json.dumps([ENTRY]) + "\nIn-memory PM2 is out-of-date, do: pm2 update\n", [ENTRY]),
        ("[PM2][WARN] something\n" + json.dumps([ENTRY]) + "\n\n", [ENTRY]),
        ("", None),
        (BANNER, None),
        ("[1, 2]", None),
        (json.dumps([ENTRY])[:-20], None),
        ('{"not": "a list"}', None),
    ],
)
def test_parse_jlist(output: str, expected: list[dict[str, Any]] | None) -> None:
    assert client.parse_jlist(output) == expected


def test_only_whitelisted_fields_leave() -> None:
    instance = client.instance_of(ENTRY)
    assert (instance.pm_id, instance.pid, instance.restarts, instance.online) == (0, 4711, 3, True)
    described = client.described(instance)
    assert set(described) == {
        *("pm_id", "pid", "status", "restarts", "exec_mode", "cwd", "pm_cwd", "script", "out_log", "err_log"),
        *("log_sizes", "node_version", "ready_wait_s"),
    }
    assert "hunter2" not in f"{instance} {described}"


def test_an_entry_without_a_process_is_not_online() -> None:
    instance = client.instance_of({"pm_id": 1, "pm2_env": {"status": "errored"}})
    assert (instance.pid, instance.online, instance.pm_cwd) == (0, False, "")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("7.0.4", (7, 0, 4)), ("10.2.0-beta.1", (10, 2, 0)), ("unknown", ()), (None, ()), ("7.0", ())],
)
def test_version_tuple(version: str | None, expected: tuple[int, ...]) -> None:
    assert client.version_tuple(version) == expected


def test_the_environment_of_this_login_does_not_reach_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANSIBLE_CONFIG", "SSH_CONNECTION", "SUDO_USER", "PWD"):
        monkeypatch.setenv(name, "of this session")
    monkeypatch.setenv("NODE_ENV", "production")
    monkeypatch.setenv("PATH", "/usr/bin")
    environment = client.Pm2("pm2", "/home/deploy/.pm2", "/opt/node/bin").environment()
    assert "of this session" not in environment.values()
    assert environment["NODE_ENV"] == "production"
    assert environment["PATH"] == "/opt/node/bin:/usr/bin"
    assert environment["PM2_HOME"] == "/home/deploy/.pm2"


def frame(*arguments: bytes) -> bytes:
    return bytes([1 << 4 | len(arguments)]) + b"".join(struct.pack(">I", len(one)) + one for one in arguments)


def event(pm_id: int | str, text: str) -> bytes:
    return b"j:" + json.dumps({"process": {"pm_id": pm_id}, "data": text}).encode()


def test_messages_in_any_pieces() -> None:
    """A socket delivers bytes, not messages."""
    sent = [[b"s:log:err", event(0, "boom\n")], [b"s:log:out", event(1, "fine")], [b"s:process:event", b"j:{}"]]
    stream = b"".join(frame(*message) for message in sent)
    for size in (1, 2, 7, 64, len(stream)):
        received, taken = bytearray(), list[list[bytes]]()
        for start in range(0, len(stream), size):
            received += stream[start : start + size]
            taken += bus.take_messages(received)
        assert taken == sent
        assert not received


def test_another_protocol_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="AMP version 4"):
        list(bus.take_messages(bytearray(b"HTTP")))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([b"s:log:err", event(3, "Error: x")], ("3", "Error: x")),
        ([b"s:log:err", event("_old_3", "x")], ("_old_3", "x")),
        ([b"s:log:out", event(3, "x")], None),
        ([b"s:log:err", b"j:not json"], None),
        ([b"s:log:err", b'j:{"data": "x"}'], None),
        ([b"s:log:err"], None),
        ([], None),
    ],
)
def test_error_text(arguments: list[bytes], expected: tuple[str, str] | None) -> None:
    assert bus.error_text(arguments) == expected


def test_log_tail(tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    log.write_text("before the cutover\n")
    offset = log_sizes([str(log), str(tmp_path / "none"), ""])
    assert offset == {str(log): 19, str(tmp_path / "none"): 0}
    with log.open("a") as file:
        file.write("\x1b[31mone\x1b[0m\n\ntwo password=hunter2\n" + "x" * 1000 + "\n")
    assert log_tail(str(log), 19, 20) == ["one", "two password=***", "x" * 300]
    assert log_tail(str(log), 19, 1) == ["x" * 300]
    log.write_text("rotated\n")
    assert log_tail(str(log), 19, 20) == ["rotated"]
    assert log_tail(str(tmp_path / "none"), 0, 20) == []


@pytest.mark.parametrize(
    ("declared", "waits"),
    [
        ({}, 0),
        ({"listen_timeout": 9000}, 0),
        ({"wait_ready": True}, 3),
        ({"wait_ready": True, "listen_timeout": 10000}, 10),
    ],
)
def test_how_long_pm2_waits_for_ready(declared: dict[str, Any], waits: float) -> None:
    entry = {**ENTRY, "pm2_env": {**ENTRY["pm2_env"], **declared}}
    assert client.instance_of(entry).ready_wait_s == waits
