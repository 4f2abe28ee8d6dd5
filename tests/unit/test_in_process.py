"""The actions of action_plugins/ answer on localhost what their modules answer, without a start of Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.plugins.loader import action_loader
from at_most_one.service import traffic_probe

from tests.conftest import ROOT
from tests.support.ports import wait_until

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
SECRET = "planted-s3cret/with+signs"
NOBODY = "http://127.0.0.1:1"  # nothing listens there
GATES = {"environment": "staging", "plan_id": "rule", "plan_sha256": "0" * 64, "commit": "a" * 40}
TOLD: dict[str, Any] = {
    **{"event": "alert", "environment": "staging", "application": "aedpics", "language": "en"},
    "words": yaml.safe_load((ROOT / "roles/notify/files/words_en.yml").read_text()),
}
Module = Callable[..., dict[str, Any]]

action_loader.add_directory(str(ROOT / "action_plugins"))


class Answering(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def action(name: str, arguments: dict[str, Any], *, check: bool = False, **task: Any) -> Any:
    """The action as Ansible makes it for a task that is delegated to localhost."""
    usual = {"action": name, "args": arguments, "check_mode": check, "delegate_to": "localhost"}
    return action_loader.get(
        name,
        task=SimpleNamespace(**{**usual, "async_val": 0, "environment": [], **task}),
        connection=SimpleNamespace(transport="local", become=None),
        play_context=None,
        loader=SimpleNamespace(get_basedir=lambda: str(ROOT)),
        templar=None,
        shared_loader_obj=None,
    )


def answered(name: str, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = action(name, arguments, check=check).run(task_vars={"inventory_hostname": "one"})
    return result


def both(run_module: Module, name: str, arguments: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """What the action answers, which is what the module in a process of its own answers."""
    here, there = answered(name, arguments, check=check), run_module(name, arguments, check=check)
    warned = [warning["event"]["msg"] for warning in there.pop("warnings", [])]
    assert here.get("warnings", []) == warned
    assert _timeless(here) == _timeless(there)
    return here


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in ("seconds", "spent_s", "warnings")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def test_the_checklist(run_module: Module) -> None:
    good = {**GATES, "gates": ["rehearsal", "backup"], "rehearsal_reason": "a test", "notice_minutes": "30"}
    result = both(run_module, "deploy_checklist", good)
    assert {gate: answer["passed"] for gate, answer in result["answers"].items()} == {
        "backup": False,
        "rehearsal": True,
    }
    refused = both(run_module, "deploy_checklist", {**GATES, "gates": ["luck"]})
    assert "value of gates must be one or more of: backup, rehearsal, notice" in refused["msg"]


def test_what_it_was_given_is_shown_as_ansible_core_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.21 always, as a module does it."""
    given = {**GATES, "gates": ["rehearsal"], "rehearsal_reason": "a test", "notice_minutes": "30"}
    monkeypatch.setattr(constants, "INJECT_INVOCATION", True, raising=False)
    assert answered("deploy_checklist", given)["invocation"]["module_args"]["notice_minutes"] == 30.0
    monkeypatch.setattr(constants, "INJECT_INVOCATION", False)
    assert "invocation" not in answered("deploy_checklist", given)
    monkeypatch.delattr(constants, "INJECT_INVOCATION")
    assert answered("deploy_checklist", given)["invocation"]["module_args"]["gates"] == ["rehearsal"]


def test_the_report(run_module: Module, tmp_path: Path) -> None:
    good = {"directory": str(tmp_path / "run-1"), "files": {"report.md": f"# {SECRET}"}, "latest": True}
    result = both(run_module, "report_files", good, check=True)
    assert result["paths"] == [str(tmp_path / "run-1/report.md")]
    assert Path(result["paths"][0]).read_text() == f"# {SECRET}"
    assert os.readlink(tmp_path / "latest") == "run-1"
    assert SECRET not in json.dumps(result)
    assert both(run_module, "report_files", {**good, "latset": True})["msg"].startswith("Unsupported parameters for")
    (tmp_path / "file").touch()
    stopped = both(run_module, "report_files", {**good, "directory": str(tmp_path / "file/run-1")})
    assert stopped["expected"] == "files and directories that the account of this task may read and write."


def test_the_monitor_s_report(run_module: Module, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("no JSON")
    facts: dict[str, Any] = {
        "environment": "local",
        "plan": "rule",
        "min_instances": 1,
        "hosts": {},
        "service": {"checks": []},
    }
    facts["database"] = {"journal": {"runs": []}}
    good = {"facts": facts, "directory": str(tmp_path)}
    result = answered("monitor_report", good)
    assert not result.get("failed"), result
    assert result["warnings"][0].endswith("is no state of the monitor; every finding counts as new.")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
    assert both(run_module, "monitor_report", {**good, "keep": "many"})["failed"]


def test_what_the_monitor_cannot_keep_is_told_with_what_it_has_found(tmp_path: Path) -> None:
    """A full disk, or a file of another account, must not be the reason why nobody hears of the rule."""
    for name in ("state.json", "history.jsonl"):  # as a directory it can be neither read nor replaced, by root either
        (tmp_path / name / "full").mkdir(parents=True)
    facts = {"environment": "local", "plan": "rule", "min_instances": 1, "hosts": {}, "service": {"checks": []}}
    given = {"directory": str(tmp_path), "textfile": str(tmp_path / "nowhere/rule.prom")}
    result = answered("monitor_report", {**given, "facts": {**facts, "database": {}}})
    assert not result.get("failed"), result
    told = ["database", "file:history.jsonl", "file:rule.prom"]
    assert [one["name"] for one in result["findings"]] == [one["name"] for one in result["new"]] == told
    assert set(result["since"]) == {*told}
    (alert,) = result["alerts"]
    assert alert["error"].count("[AMO-5120]") == 2
    assert f"could not keep {tmp_path / 'history.jsonl'}: Is a directory." in alert["error"]


def test_a_relative_path_is_the_playbook_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    called = action("report_files", {"directory": "reports/run-1", "files": {"report.md": ""}})
    called._loader.get_basedir = lambda: str(tmp_path)
    assert not called.run(task_vars={}).get("failed")
    assert (tmp_path / "reports/run-1/report.md").exists()
    assert os.getcwd() == "/"


def test_the_notification(run_module: Module, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    error = {"kind": "watch", "error": f"It ends: {SECRET}"}
    good: dict[str, Any] = {**TOLD, "alert": error, "secrets": [SECRET], "timeout_s": "1"}
    nobody = both(run_module, "notification", good)
    assert (nobody["text"], nobody["delivered"], nobody["given_up"]) == ("", True, False)
    addresses = {"slack_url": f"{NOBODY}/{SECRET}", "webhook_token": SECRET, "report": str(report)}
    result = both(run_module, "notification", {**good, **addresses})
    assert result["undelivered"] == [
        {"channel": "slack", "problem": "no answer (refused)", "seconds": result["undelivered"][0]["seconds"]}
    ]
    assert result["warnings"][0].startswith(f"{report} cannot be read (")
    assert result["warnings"][1:] == ["Notification by slack was not delivered: no answer (refused)."]
    assert result["text"].startswith("The watch after the deployment has found something: staging | aedpics")
    assert not result["delivered"]
    assert SECRET not in json.dumps(result)
    refused = both(run_module, "notification", {**good, "event": SECRET})
    assert refused["failed"]
    assert SECRET not in json.dumps(refused)


def test_a_run_whose_messages_have_waited_long_enough_says_so_once_and_sends_no_more(run_module: Module) -> None:
    earlier = {"spent_s": 3.5, "text": "what else it returned"}
    message: dict[str, Any] = {**TOLD, "slack_url": NOBODY, "earlier": earlier}
    first = both(run_module, "notification", message)
    assert first["warnings"][0].startswith("Notifications have used up notify_max_delay_s")
    assert (first["given_up"], first["delivered"], first["undelivered"], first["spent_s"]) == (True, False, [], 3.5)
    second = both(run_module, "notification", {**message, "earlier": first})
    assert "warnings" not in second
    assert second["given_up"]
    unwanted = both(run_module, "notification", {**message, "events": ["stop"]})
    assert (unwanted["given_up"], unwanted["delivered"]) == (False, True)


def test_what_a_watch_has_seen(run_module: Module, tmp_path: Path) -> None:
    watched = {"since": {"latency_ms": {}, "instances": {}}, "rounds": [], "findings": []}
    good = {
        "hosts": {"web1": watched},
        "environment": "staging",
        "plan": "rule",
        "path": str(tmp_path / "new/watch.json"),
    }
    result = both(run_module, "watch_report", good, check=True)
    assert (result["findings"], result["hosts"][0]["rounds"]) == ([], 0)
    document = json.loads((tmp_path / "new/watch.json").read_text())
    assert (document["verdict"], document["run_id"]) == ("good", None)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "new/watch.json").stat().st_mode & 0o777 == 0o640


def test_what_a_watch_has_found_is_told_where_it_cannot_be_kept(run_module: Module, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = {"name": "duplicates", "seen": "1 group.", "expected": "none.", "next_step": "deploy."}
    watched: dict[str, Any] = {"since": {"latency_ms": {}, "instances": {}}, "rounds": [], "findings": [found]}
    path = str(tmp_path / "file/watch.json")
    given = {"environment": "staging", "plan": "rule", "path": path}
    result = both(run_module, "watch_report", {**given, "hosts": {"web1": watched}})
    assert result["alert"]["error"] == "web1: 1 group. Expected: none. Next: deploy."
    assert result["warnings"][0].startswith(f"{path} cannot be written (")
    good = {**given, "hosts": {"web1": {**watched, "findings": []}}}
    assert both(run_module, "watch_report", good)["failed"], "nothing else says that this is missing"


def test_what_one_host_finds_ends_the_watch_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})
    quiet = {"since": {"latency_ms": {}}, "rounds": [1], "findings": [], "suspects": []}

    def watched(task: str, *answers: Any) -> tuple[Any, int]:
        called, waiting = action("service_watch", {"seconds": 3600}, _uuid=task), list(answers)

        def execute(**_: Any) -> Any:
            answer = waiting.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(called, "_execute_module", execute)
        monkeypatch.setattr(called, "_warn_if_some_wait", lambda _: None)
        return called.run(task_vars={}), len(answers) - len(waiting)

    assert watched("1", quiet, {**quiet, "findings": ["health"]})[1] == 2
    assert watched("1", quiet, quiet) == ({**quiet, "rounds": [1]}, 1), "the other host has found something"
    with pytest.raises(OSError, match="lost"):
        watched("2", quiet, OSError("lost"))
    assert watched("2", quiet, quiet)[1] == 1, "and when the other host is lost"
    assert watched("3", {"failed": True, "msg": "no PM2"}) == ({"failed": True, "msg": "no PM2"}, 1)
    assert watched("3", quiet, quiet)[1] == 1


def test_the_traffic_probe(run_module: Module, tmp_path: Path) -> None:
    output = str(tmp_path / "receipt.json")
    urls = [{"name": "page", "url": NOBODY, "headers": {"Cookie": SECRET}}]
    started = {"state": "started", "output": output, "urls": urls, "rate_per_s": 50, "controller_pid": os.getpid()}
    assert both(run_module, "traffic_probe", started, check=True)["pid"] is None
    result = answered("traffic_probe", started)
    assert result["changed"]
    assert traffic_probe.running(output)
    assert both(run_module, "traffic_probe", started)["pid"] == result["pid"], "it runs already"
    assert both(run_module, "traffic_probe", {**started, "rate_per_s": 9})["details"] == {"pid": result["pid"]}
    stopped = answered("traffic_probe", {"state": "stopped", "output": output})
    assert (stopped["ended_by"], stopped["failures"]) == ("signal", stopped["requests"])
    assert SECRET not in json.dumps([result, stopped]) + Path(output).read_text()
    assert "urls, output" in both(run_module, "traffic_probe", {"state": "started"})["msg"], "required_if"
    absent = both(run_module, "traffic_probe", {"state": "stopped", "output": str(tmp_path / "never")})
    assert absent["expected"] == "a probe that ran from before the cutover until now."


def test_the_hosts_of_a_release(run_module: Module) -> None:
    found = {"built": False, "live": False, "shared": False, "platform": "Node.js 24"}
    good = {"found": {"web1": found, "web2": found}, "builder": "web1", "commit": "a" * 40}
    result = both(run_module, "release_hosts", good)
    assert (result["builds"], result["lacks"], result["server_actions"]) == (["web1"], [], {})
    other = {**good, "found": {"web1": found, "web2": {**found, "platform": "Node.js 18"}}}
    assert both(run_module, "release_hosts", other)["seen"].startswith("web2 has Node.js 18. web1, where")


def test_the_service_check(run_module: Module, service: str) -> None:
    login = {"credentials": {"email": "a@example.org", "password": SECRET}, "bearer_token": SECRET}
    good = {"base_url": service, "checks": ["root"], **login}
    result = both(run_module, "service_check", good)
    assert result["all_ok"]
    stopped = both(run_module, "service_check", {**good, "base_url": NOBODY})
    assert stopped["details"]["checks"][0]["request"] == "HEAD /"
    canary = both(run_module, "service_check", {**good, "checks": ["session"]})
    assert canary["seen"] == "The checks session and race have no canary."
    missing = both(run_module, "service_check", {**good, "credentials": {"email": SECRET}})
    assert "missing required arguments: password found in credentials" in missing["msg"]
    assert SECRET not in json.dumps([result, stopped, canary, {**missing, "invocation": None}])


def test_the_service_check_creates_a_row_as_the_plan_of_the_run_says() -> None:
    plan: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "plans/good.yml").read_text())
    plan["proof"]["create"]["body"] = {"customer": "test"}
    arguments = {"base_url": NOBODY, "checks": ["session", "race"], "auth": "bearer"}
    for run_plan, given in ((plan, arguments), ({}, {**arguments, "plan": plan})):
        called = action("service_check", given, check=True)
        result = called.run(task_vars={"inventory_hostname": "one", "run_facts": {"plan": run_plan}})
        assert [check["request"] for check in result["checks"]] == ["POST /api/orders"] * 2
    del plan["proof"]
    refused = action("service_check", arguments, check=True).run(task_vars={"run_facts": {"plan": plan}})
    assert refused["seen"] == "The checks session and race have no canary."


def test_an_error_that_nobody_foresaw_is_a_failed_task(monkeypatch: pytest.MonkeyPatch) -> None:
    called = action("notification", {**TOLD, "webhook_token": SECRET})

    def act(_call: object) -> dict[str, Any]:
        raise TypeError(f"no {SECRET}")

    monkeypatch.setattr(called.module, "act", act)
    result = called.run(task_vars={})
    assert result["failed"]
    assert result["seen"] == "notification stopped with TypeError: no ********."
    assert result["next_step"]


@pytest.mark.parametrize(
    "changes",
    [
        {"delegate_to": "gateway"},
        {"delegate_to": None},
        {"async_val": 60},
        {"environment": [{"LANG": "C"}]},
        {"connection": {"transport": "ssh"}},
        {"connection": {"become": "sudo"}},
    ],
    ids=str,
)
def test_elsewhere_it_stays_a_module(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    connection = changes.pop("connection", {})
    called = action("service_check", {"base_url": NOBODY}, **changes)
    vars(called._connection).update(connection)
    normal = type(called).__mro__[2]
    monkeypatch.setattr(normal, "run", lambda *_: {"ran": "as a module"})
    assert called.run(task_vars={"inventory_hostname": "one"}) == {"ran": "as a module"}


TASKS = """
- {name: Report, delegate_to: localhost, report_files: {directory: "{{ work }}/run-1", files: {a.md: "{{ secret }}"}}}
- name: Tell
  delegate_to: localhost
  notification: "{{ told | combine({'webhook_url': nobody ~ '/' ~ secret}) }}"
- name: Answer the checklist
  delegate_to: localhost
  deploy_checklist: "{{ gates | combine({'gates': ['notice']}) }}"
- name: Fail on the control node
  delegate_to: localhost
  service_check: {base_url: "{{ nobody }}", bearer_token: "{{ secret }}"}
  ignore_errors: true
  register: here
- name: Fail on the host
  service_check: {base_url: "{{ nobody }}", bearer_token: "{{ secret }}"}
  ignore_errors: true
  register: there
- name: Take too long
  delegate_to: localhost
  traffic_probe: {state: measured, measure_s: 30, urls: [{name: page, url: "{{ nobody }}"}]}
  timeout: 1
  ignore_errors: true
  register: late
- name: Compare
  ansible.builtin.assert:
    that:
      - here is failed and there is failed and here.keys() | sort == there.keys() | sort
      - here.msg == there.msg and here.next_step == there.next_step
      - here.details.checks | map(attribute='got') | list == there.details.checks | map(attribute='got') | list
      - late is failed and late.timedout.period == 1
- name: Start the probe
  delegate_to: localhost
  traffic_probe:
    state: started
    output: "{{ work }}/receipt.json"
    urls: [{name: page, url: "{{ nobody }}", headers: {Cookie: "{{ secret }}"}}]
    controller_pid: "{{ lookup('ansible.builtin.pipe', 'ps -o ppid= -p $PPID') | trim | int }}"
- {name: Wait to be killed, ansible.builtin.pause: {seconds: 60}}
"""
NEXT = "Pausing for 60 seconds"


def test_no_python_is_started_no_secret_is_shown_and_the_probe_ends_with_ansible(tmp_path: Path) -> None:
    """One real ansible-playbook at -vvv. Of its tasks only the one on the host starts a Python."""
    started, python = tmp_path / "started", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho start >> {started}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    variables = {"work": str(tmp_path), "secret": SECRET, "nobody": NOBODY, "gates": GATES, "told": TOLD}
    hosts = {"one": {"ansible_connection": "local", "ansible_python_interpreter": str(python)}}
    local = {"localhost": {"ansible_python_interpreter": str(python), "ansible_connection": "local"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {**hosts, **local}, "vars": variables}}))
    play = {"hosts": "one", "gather_facts": False, "tasks": yaml.safe_load(TASKS)}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    output = str(tmp_path / "receipt.json")
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(
            [str(PLAYBOOK), "-vvv", "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml")],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_INJECT_INVOCATION": "true",  # since ansible-core 2.21 it has to be asked for
                "NO_COLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        ) as ansible,
    ):
        try:
            said_of_it = tmp_path / "said"  # the next task begins when the probe's is over
            wait_until(lambda: NEXT in said_of_it.read_text() or ansible.poll() is not None, 60)
            shown = said_of_it.read_text()
            assert ansible.poll() is None, shown
            assert traffic_probe.running(output), "its task is over, it goes on"
        finally:
            ansible.send_signal(signal.SIGKILL)
    wait_until(lambda: not traffic_probe.running(output), 10)
    receipt, _ = traffic_probe.stop(output)
    assert receipt["ended_by"] == "controller_gone"
    assert started.read_text().split() == ["start"], "the check on the host"
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in shown, "-vvv shows what was given"
    assert SECRET not in shown
