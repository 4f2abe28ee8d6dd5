"""The lab beside other labs: its ports, whose answer it believes, and what it says when half of it is gone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest

LAB = Path(__file__).parents[2] / "lab"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = [*ansible.module_utils.__path__, str(LAB / "module_utils"), str(LAB.parent / "module_utils")]
    monkeypatch.setattr(ansible.module_utils, "__path__", path)
    spec = importlib.util.spec_from_file_location("lab_settings", LAB / "library/lab_settings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_checkouts_want_different_ports_before_any_of_them_listens(settings: ModuleType) -> None:
    """By their paths, which are fixed here: of many, any two may meet."""
    labs = [dict(settings.chosen(Path("/srv") / name / ".lab")) for name in ("one", "two", "three")]

    assert len({lab["app_port"] for lab in labs}) == 3
    assert len({lab["database_port"] for lab in labs}) == 3


def test_a_port_that_is_taken_is_not_chosen(settings: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert settings.free_port(port, {port + 1}) not in (port, port + 1)


@pytest.mark.parametrize("running", [True, False])
def test_a_database_whose_passwords_are_lost_is_refused_with_the_way_on(
    run_module: Run, tmp_path: Path, running: bool
) -> None:
    data = tmp_path / "pg"
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    server = subprocess.Popen(["sleep", "60"], cwd=data)
    try:
        (data / "postmaster.pid").write_text(f"{server.pid if running else 2**22 + 1}\n")
        commits = {"commit_before": "a" * 40, "commit_after": "b" * 40}
        place = {"root": str(tmp_path), "node_bin": "/node", "postgres_bin": "/pg"}
        result = run_module("lab_settings", {**place, **commits}, home=LAB)
    finally:
        server.kill()
        server.wait()

    assert result["failed"]
    for words in (f"{tmp_path}/lab.json is not there", "Expected: both, or neither", f"rm -rf {data} and make lab-up"):
        assert words in result["msg"]
    assert (f"kill -INT {server.pid}, then " in result["msg"]) == running
    assert not (tmp_path / "lab.json").exists()


class _Health(BaseHTTPRequestHandler):
    """Says that it is well."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


@pytest.fixture
def answering() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("was_up", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_only_an_answer_of_its_own_process_counts(
    run_module: Run, tmp_path: Path, answering: str, was_up: bool, own: bool
) -> None:
    """PM2's list is what it would print of one instance; the daemon is a process that works in its directory."""
    home, listed, pm2 = tmp_path / "pm2", tmp_path / "list", tmp_path / "pm2.sh"
    home.mkdir()
    (tmp_path / "www").mkdir()
    entry = {"name": "aedpics", "pid": os.getpid() if own else 1, "pm2_env": {"status": "online"}}
    (listed if was_up else tmp_path / "started").write_text(f">>> a banner\n{json.dumps([entry])}\n")
    pm2.write_text(f"#!/bin/sh\ncase $1 in jlist) cat {listed};; start) cp {tmp_path}/started {listed};; esac\n")
    pm2.chmod(0o700)
    daemon = subprocess.Popen([shutil.which("sleep") or "sleep", "60"], cwd=home)
    try:
        (home / "pm2.pid").write_text(str(daemon.pid))
        place = {"path": str(tmp_path / "www"), "url": answering, "pm2_bin": str(pm2), "pm2_home": str(home)}
        wanted = {"state": "started", "search_path": os.defpath, "instances": 1, "timeout_s": 10}
        result = run_module("lab_service", {**wanted, **place}, home=LAB)
    finally:
        daemon.kill()
        daemon.wait()

    assert bool(result.get("failed")) != own, result
    if not own:
        for words in (f"answered by process {os.getpid()}", "not one of this lab's", "Expected:", "Next:"):
            assert words in result["msg"]
