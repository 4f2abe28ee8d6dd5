"""The prober as a real detached process, started by a real Ansible, against the real application under PM2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.http.client import Client, NoAnswer, fetch
from at_most_one.service import capacity, traffic_probe
from at_most_one.system import daemon
from at_most_one.system.processes import start_ticks

from tests.service.conftest import ROOT, App
from tests.service.fake_service import FakeService
from tests.support.ports import free_port, wait_until


def settings(url: str, **changes: Any) -> traffic_probe.Settings:
    target = traffic_probe.Target("app", url, "GET", (200,))
    return traffic_probe.Settings((target,), **{"rate_per_s": 50, "timeout_s": 2, **changes})


def ansible(module: str, **arguments: Any) -> dict[str, Any]:
    """As a deployment calls it: in the process of ansible itself, which has its own pipes and threads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    settings = {
        "ANSIBLE_ACTION_PLUGINS": str(ROOT / "action_plugins"),
        "ANSIBLE_LIBRARY": str(ROOT / "library"),
        "ANSIBLE_MODULE_UTILS": str(ROOT / "module_utils"),
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
    }
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"),
            *("-e", f"ansible_python_interpreter={sys.executable}", "-m", module, "-a", json.dumps(arguments)),
        ],
        env={**environment, **settings},
        cwd="/",  # away from the project's own ansible.cfg
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "=> {" in done.stdout, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return result


def test_the_prober_outlives_ansible_and_brings_its_receipt(app: App, tmp_path: Path) -> None:
    release = app.release("a" * 40)
    app.start(release)
    output = tmp_path / "receipt.json"
    urls = [{"name": "page", "url": app.url}, {"name": "missing", "url": f"{app.url}x", "method": "HEAD"}]
    arguments = {"urls": urls, "output": str(output), "rate_per_s": 40, "build_header": "x-app-commit"}
    started = ansible("traffic_probe", state="started", **arguments)
    pid = started["pid"]
    try:
        assert started["changed"]
        # Nothing of Ansible's is left in it: no open file but its own, no parent, no terminal.
        open_files = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
        assert {name for name in open_files if not name.startswith("socket:")} <= {os.devnull}
        assert os.getsid(pid) != os.getsid(0)
        again = ansible("traffic_probe", state="started", **arguments)
        assert (again["changed"], again["pid"]) == (False, pid)
        time.sleep(0.5)
    finally:
        stopped = ansible("traffic_probe", state="stopped", output=str(output))
    assert stopped["changed"]
    assert start_ticks(pid) is None
    assert stopped["requests"] >= 40
    assert stopped["failures"] == 0
    assert 0 < stopped["longest_gap_ms"] < 2_000
    assert stopped["p50_ms"] <= stopped["p95_ms"] <= stopped["p99_ms"]
    assert list(stopped["builds"]) == [release.name]
    assert stopped["last_old_answer"] is None
    assert stopped["ended_by"] == "signal"
    assert abs(stopped["targets"]["page"]["requests"] - stopped["targets"]["missing"]["requests"]) <= 1
    assert json.loads(output.read_text())["requests"] == stopped["requests"]
    assert not output.with_name("receipt.json.pid").exists()


def test_a_stall_is_a_gap_and_late_answers_not_fewer_requests(app: App) -> None:
    """One instance that blocks for 0.7 s: a prober that waited for it would have sent one late request, not 70."""
    app.start(app.release("a" * 40, instances=1))
    wanted, stop, samples, started = (
        settings(app.url, rate_per_s=100),
        threading.Event(),
        list[traffic_probe.Sample](),
        time.monotonic(),
    )
    prober = threading.Thread(target=traffic_probe.probe, args=(wanted, stop, samples, started))
    prober.start()
    time.sleep(0.3)
    fetch("GET", f"{app.url}stall", timeout_s=5)
    time.sleep(0.5)
    ended = time.monotonic()
    stop.set()
    prober.join()
    receipt = traffic_probe.summarise(samples, wanted, started, ended, time.time())
    assert receipt["failures"] == 0
    assert receipt["longest_gap_ms"] >= 600
    assert receipt["requests"] >= (ended - started) * 100 * 0.9
    assert receipt["p95_ms"] >= 400  # half of the requests of 1.5 s were due during the stall


@pytest.mark.parametrize("keepalive", [False, True])
def test_failures_are_counted_by_kind(app: App, tmp_path: Path, keepalive: bool) -> None:
    app.start(app.release("a" * 40))
    output = str(tmp_path / "receipt.json")
    targets = (
        traffic_probe.Target("right", app.url, "GET", (200,)),
        traffic_probe.Target("wrong status", app.url, "HEAD", (204,)),
        traffic_probe.Target("nobody", f"http://127.0.0.1:{free_port()}/", "GET", (200,)),
    )
    wanted = traffic_probe.Settings(targets, rate_per_s=60, keepalive=keepalive, timeout_s=2)
    traffic_probe.start(wanted, output)
    time.sleep(1)
    receipt, ran = traffic_probe.stop(output)
    assert ran
    assert set(receipt["failures_by_kind"]) == {"refused", "status_200"}
    assert receipt["targets"]["right"]["failures"] == 0
    assert receipt["targets"]["nobody"]["failures"] == receipt["targets"]["nobody"]["requests"] > 0
    assert receipt["targets"]["nobody"]["longest_gap_ms"] >= 900
    assert {one["name"] for one in receipt["first_failures"]} == {"wrong status", "nobody"}


class OneAtATime(BaseHTTPRequestHandler):
    """A service that bears 20 requests a second: it answers one after the other, each in 50 ms."""

    asked: list[tuple[float, str]]

    def do_GET(self) -> None:
        self.asked.append((time.monotonic(), self.command))
        time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """The address of a service slowed to 20 requests a second, and what it was asked."""
    asked: list[tuple[float, str]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (OneAtATime,), {"asked": asked}))
    server.request_queue_size = 64
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_rate_is_a_third_of_what_the_service_bears(
    slow: tuple[str, list[tuple[float, str]]], tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    url, asked = slow
    urls = [{"name": "page", "url": url}, {"name": "creation", "url": url, "method": "POST", "body": "{}"}]
    arguments = {"state": "measured", "urls": urls, "rate_per_s": 50, "measure_s": 1}
    measured = run_module("traffic_probe", arguments, check=True)
    assert not measured["changed"]
    assert {method for _, method in asked} == {"GET"}, "what a measurement asks leaves nothing behind"
    assert measured["requests"] == len(asked)
    assert 50 <= measured["p50_ms"] < 100
    assert 10 < measured["bears_per_s"] <= 20
    assert measured["rate_per_s"] == pytest.approx(measured["bears_per_s"] / 3, abs=0.1)
    assert measured["watched_closely"]
    assert not run_module("traffic_probe", {**arguments, "least_rate_per_s": 10})["watched_closely"]

    output = str(tmp_path / "receipt.json")
    started = {"state": "started", "output": output, "urls": urls[:1], "rate_per_s": measured["rate_per_s"]}
    run_module("traffic_probe", {**started, "p50_before_ms": measured["p50_ms"]})
    time.sleep(2)
    receipt = run_module("traffic_probe", {"state": "stopped", "output": output})
    assert receipt["failures"] == 0
    assert receipt["requests"] >= 8
    assert receipt["p50_ms"] < 200, "the probe itself makes nobody wait"
    assert (receipt["rate_per_s"], receipt["p50_before_ms"]) == (measured["rate_per_s"], measured["p50_ms"])


def test_the_configured_rate_is_a_limit_for_the_measurement_too(app: App) -> None:
    app.start(app.release("a" * 40))
    began = time.monotonic()
    measured = capacity.measure(settings(app.url, rate_per_s=10), seconds=1, least_rate_per_s=2)
    assert measured.requests <= (time.monotonic() - began) * 10 + 1
    assert (measured.rate_per_s, measured.watched_closely) == (10, True)
    assert measured.bears_per_s > 30


def test_a_service_that_does_not_answer_cannot_be_watched() -> None:
    wanted = settings(f"http://127.0.0.1:{free_port()}/")
    measured = capacity.measure(wanted, seconds=0.2, least_rate_per_s=2)
    assert measured.failures == measured.requests > 0
    assert (measured.p50_ms, measured.bears_per_s, measured.rate_per_s) == (None, 0, 0.2)
    assert not measured.watched_closely


@pytest.mark.parametrize(
    ("page", "seen"), [(200, None), (307, "page (status_307)"), (401, "page (status_401)"), (503, None)]
)
def test_what_is_never_answered_as_expected_is_known_before_the_cutover(
    run_module: Callable[..., dict[str, Any]], page: int, seen: str | None
) -> None:
    """Half of the requests would be lost in the receipt, and everything taken back for a page that redirects."""
    with FakeService.running() as service:
        service.behaviour.page = page
        urls = [{"name": "page", "url": f"{service.url}/"}, {"name": "health", "url": f"{service.url}/api/health"}]
        arguments = {"state": "measured", "rate_per_s": 50, "measure_s": 0.2}
        measured = run_module("traffic_probe", {**arguments, "urls": urls})
        assert (seen in measured["seen"]) if seen else (measured["watched_closely"] is True)
        if seen:
            assert "health (" not in measured["seen"]
        assert run_module("traffic_probe", {**arguments, "urls": urls[1:]})["failures"] == 0
        post = [{**urls[0], "method": "POST", "body": "{}"}]
        by_head = run_module("traffic_probe", {**arguments, "urls": post})
        assert "rate_per_s" in by_head, "how a creation is answered, HEAD does not tell"


def test_one_prober_for_each_receipt(tmp_path: Path) -> None:
    output, url = str(tmp_path / "receipt.json"), f"http://127.0.0.1:{free_port()}/"
    pid, changed = traffic_probe.start(settings(url), output)
    assert changed
    assert traffic_probe.start(settings(url), output) == (pid, False)
    with pytest.raises(OperatorError, match="other settings"):
        traffic_probe.start(settings(url, rate_per_s=10), output)
    receipt, ran = traffic_probe.stop(output)
    assert (ran, receipt["failures"]) == (True, receipt["requests"])
    assert traffic_probe.stop(output) == (receipt, False)  # the receipt stays readable


def test_a_stop_right_after_the_start_is_not_lost(tmp_path: Path) -> None:
    output, url = str(tmp_path / "receipt.json"), f"http://127.0.0.1:{free_port()}/"
    for _ in range(20):
        traffic_probe.start(settings(url), output)
        receipt, ran = traffic_probe.stop(output)
        assert (ran, receipt["ended_by"]) == (True, "signal")


def test_it_ends_by_itself(tmp_path: Path) -> None:
    output = str(tmp_path / "receipt.json")
    traffic_probe.start(settings(f"http://127.0.0.1:{free_port()}/", max_s=0.5), output)
    wait_until(lambda: not traffic_probe.running(output), 5)
    receipt, ran = traffic_probe.stop(output)
    assert (ran, receipt["ended_by"]) == (False, "max_s")


def test_a_prober_that_was_killed_has_no_receipt(tmp_path: Path) -> None:
    output = str(tmp_path / "receipt.json")
    pid, _ = traffic_probe.start(settings(f"http://127.0.0.1:{free_port()}/"), output)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OperatorError, match=r"died.*no receipt"):
        traffic_probe.stop(output)
    with pytest.raises(OperatorError, match="No traffic probe has written"):
        traffic_probe.stop(str(tmp_path / "never"))


def test_a_pid_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "receipt.json"
    with subprocess.Popen(["sleep", "30"]) as bystander:
        try:
            ticks = start_ticks(bystander.pid)
            assert ticks is not None
            note = {"pid": bystander.pid, "start_ticks": ticks - 1}
            daemon.write_json(f"{output}.pid", note)
            assert traffic_probe.running(str(output)) is None
            with pytest.raises(OperatorError):
                traffic_probe.stop(str(output))
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_directory_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="did not start: FileNotFoundError"):
        traffic_probe.start(settings("http://127.0.0.1:1/"), str(tmp_path / "no" / "receipt.json"))


def test_module_in_check_mode(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> None:
    output = tmp_path / "receipt.json"
    urls = [{"name": "app", "url": "http://127.0.0.1:1/"}]
    start = run_module("traffic_probe", {"state": "started", "output": str(output), "urls": urls}, check=True)
    assert (start["changed"], start["pid"]) == (True, None)
    stop = run_module("traffic_probe", {"state": "stopped", "output": str(output)}, check=True)
    assert (stop["changed"], stop["requests"]) == (False, 0)
    assert list(tmp_path.iterdir()) == []
    for wrong in ([], urls * 2, [{"name": "app", "url": "ftp://host/"}]):
        arguments = {"state": "started", "output": str(output), "urls": wrong}
        assert run_module("traffic_probe", arguments, check=True)["failed"]


def test_kinds_of_no_answer() -> None:
    with pytest.raises(NoAnswer) as refused:
        fetch("GET", f"http://127.0.0.1:{free_port()}/", timeout_s=1)
    assert refused.value.kind == "refused"
    with pytest.raises(OperatorError, match="without user name and password"):
        fetch("GET", "http://user:secret@127.0.0.1/", timeout_s=1)


def test_it_ends_with_its_controller(tmp_path: Path) -> None:
    output = str(tmp_path / "receipt.json")
    with subprocess.Popen(["sleep", "60"]) as controller:
        traffic_probe.start(settings(f"http://127.0.0.1:{free_port()}/", controller_pid=controller.pid), output)
        time.sleep(0.3)
        assert traffic_probe.running(output)
        controller.kill()
    wait_until(lambda: not traffic_probe.running(output), 10)
    receipt, ran = traffic_probe.stop(output)
    assert (ran, receipt["ended_by"]) == (False, "controller_gone")
    assert receipt["requests"] > 0


def test_the_prober_of_another_controller_is_replaced(tmp_path: Path) -> None:
    output, url = str(tmp_path / "receipt.json"), f"http://127.0.0.1:{free_port()}/"
    with subprocess.Popen(["sleep", "60"]) as other:
        first, _ = traffic_probe.start(settings(url, controller_pid=other.pid), output)
        second, changed = traffic_probe.start(settings(url, controller_pid=os.getpid()), output)
        other.kill()
    assert changed
    assert start_ticks(first) is None
    time.sleep(2.5)  # longer than it takes to notice a controller's end
    assert traffic_probe.running(output)
    receipt, ran = traffic_probe.stop(output)
    assert (ran, receipt["ended_by"], first == second) == (True, "signal", False)


def test_legitimate_refusals_are_counted_apart(
    app: App, tmp_path: Path, run_module: Callable[..., dict[str, Any]]
) -> None:
    app.start(app.release("a" * 40))
    output = tmp_path / "receipt.json"
    creation = {"url": app.url, "method": "POST", "body": "{}", "headers": {"Cookie": "login=s3cret"}}
    urls = [{"name": "apart", "legitimate": [409], **creation}, {"name": "failing", **creation}]
    started = run_module("traffic_probe", {"state": "started", "output": str(output), "urls": urls, "rate_per_s": 40})
    assert "s3cret" not in json.dumps(started) + Path(f"{output}.pid").read_text()
    time.sleep(1)
    receipt = run_module("traffic_probe", {"state": "stopped", "output": str(output)})
    apart, failing = receipt["targets"]["apart"], receipt["targets"]["failing"]
    assert (apart["failures"], apart["legitimate"]) == (0, {"status_409": apart["requests"]})
    assert (failing["failures_by_kind"], failing["legitimate"]) == ({"status_409": failing["requests"]}, {})
    assert receipt["p99_ms"] <= receipt["max_ms"]


def test_a_kept_connection_that_the_server_has_closed_is_not_used(app: App) -> None:
    """As browsers and proxies do it. What counts as a failure is a connection that ends while it is used."""
    app.start(app.release("a" * 40, shutdown="as next start"))
    client = Client(app.url, timeout_s=5, keepalive=True)
    first = client.request("GET", "/").header("x-app-pid")
    assert first
    os.kill(int(first), signal.SIGINT)
    time.sleep(0.5)
    assert client.request("GET", "/").header("x-app-pid") != first
    client.close()
