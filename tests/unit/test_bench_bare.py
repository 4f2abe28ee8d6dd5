"""The floor of a run: what of its record becomes a bare playbook, and which tasks a profile names."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from bench import bare, profile
from bench.playbooks import Played, Task

LOGIN = {"user": "admin", "password": "hidden"}


def task(action: str, *calls: dict[str, Any], **more: Any) -> Task:
    told = {"play": 0, "name": action, "run_once": False, "delegate_to": "", "began": 0.0, "ended": 1.0, **more}
    return Task(action=action, calls=calls, **told)


def call(host: str = "one", arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"host": host, "arguments": arguments, **more}


def floor(*tasks: Task, **hosts: dict[str, str]) -> list[dict[str, Any]]:
    plays = [f"play {number}" for number in range(1 + max(task.play for task in tasks))]
    return bare.playbook(Played(1.0, "", plays, tasks), {"login": LOGIN}, hosts, "gateway")


def test_only_what_called_a_module_is_repeated() -> None:
    tasks = (
        task("ansible.builtin.set_fact", call()),
        task("ansible.builtin.debug", call()),
        task("ansible.builtin.validate_argument_spec", call(arguments={"argument_spec": {}})),
        task("index_set", call(skipped=True)),
        task("index_set", call(arguments={"state": "verified", "unset": None})),
        task("ansible.builtin.include_tasks", call(), play=1),
    )
    (play,) = floor(*tasks)
    assert play == {
        "name": "play 0",
        "hosts": "one",
        "gather_facts": False,
        "tasks": [{"name": "index_set", "index_set": {"state": "verified"}}],
    }
    assert bare.calls(Played(1.0, "", ["play 0", "play 1"], tasks)) == 1


def test_a_secret_is_given_again_and_what_differs_between_hosts_is_a_variable() -> None:
    calls = [call(host, {"login": "hidden", "path": f"/srv/{host}/app"}) for host in ("one", "two")]
    (play,) = floor(task("index_set", *calls), one={"directory": "/srv/one/"}, two={"directory": "/srv/two/"})
    assert play["hosts"] == "one,two"
    assert play["tasks"][0]["index_set"] == {"login": LOGIN, "path": "{{ directory }}app"}


def test_a_batch_is_a_play_of_its_own() -> None:
    plays = floor(*(task("pm2_app", call(host, {}), play=number) for number, host in enumerate(("one", "two"))))
    assert [play["hosts"] for play in plays] == ["one", "two"]


def test_what_ran_once_or_elsewhere_or_for_some_hosts_does_so_again() -> None:
    (play,) = floor(
        task("stat", call("one", {}), call("two", {}), call("three", {})),
        task("git_origin_info", call("one", {}), run_once=True, delegate_to="{{ database_gateway }}"),
        task("notification", call("one", {}), run_once=True, delegate_to="localhost"),
        task("deploy_run", call("three", {}), delegate_to="{{ database_gateway }}"),
        task("release_link", call("one", {}), call("two", {}), call("three", skipped=True)),
    )
    everywhere, gateway, control, last, some = play["tasks"]
    assert not {"run_once", "delegate_to", "when"} & set(everywhere)
    assert (gateway["run_once"], gateway["delegate_to"]) == (True, "gateway")
    assert (control["run_once"], control["delegate_to"]) == (True, "localhost")
    assert (last["run_once"], last["delegate_to"]) == (True, "gateway")
    assert some["when"] == "inventory_hostname in ['one', 'two']"


def test_a_loop_stays_one_task() -> None:
    calls = [call(arguments={"path": path, "follow": True}) for path in ("a", "b")]
    (play,) = floor(task("ansible.builtin.stat", *calls))
    (looped,) = play["tasks"]
    assert looped["ansible.builtin.stat"] == {"path": "{{ item.path }}", "follow": True}
    assert looped["loop"] == [{"path": "a"}, {"path": "b"}]


def test_what_a_call_made_is_what_the_floor_makes() -> None:
    (play,) = floor(
        task("deploy_run", call(arguments={"state": "opened"}, run_id="20251110T0-ab")),
        task("deploy_run", call(arguments={"state": "closed", "run_id": "20251110T0-ab"}, run_id="20251110T0-ab")),
    )
    opened, closed = play["tasks"]
    assert opened["register"] == "bare_run"
    assert closed["deploy_run"]["run_id"] == "{{ bare_run.run_id }}"


def test_a_directory_that_the_run_made_is_not_taken_for_the_host_s_own() -> None:
    (play,) = floor(
        task("ansible.builtin.tempfile", call(arguments={"state": "directory"}, path="/tmp/made")),
        task("ansible.builtin.file", call(arguments={"path": "/tmp/made", "state": "absent"})),
        task("index_set", call(arguments={"release_path": "/srv/one/app"})),
        one={"bare_directory": "/srv/one/"},
    )
    made, removed, asked = play["tasks"]
    assert removed["ansible.builtin.file"]["path"] == "{{ " + made["register"] + ".path }}"
    assert asked["index_set"]["release_path"] == "{{ bare_directory }}app"
    assert made["register"] != "bare_directory"


def test_a_written_file_is_as_long_and_a_fetched_one_is_there() -> None:
    given = {"src": "/gone", "dest": "/report", "content": None}
    (play,) = floor(task("ansible.builtin.copy", call(arguments=given, size=3, dest="/report", mode="0640")))
    assert play["tasks"][0]["ansible.builtin.copy"] == {"dest": "/report", "content": "{} ", "mode": "0640"}
    fetched = task("ansible.builtin.fetch", call(dest="/plan"), run_once=True, delegate_to="{{ database_gateway }}")
    (play,) = floor(fetched)
    assert play["tasks"][0]["ansible.builtin.copy"]["dest"] == "/plan"
    assert play["tasks"][0]["delegate_to"] == "localhost"
    (play,) = floor(task("ansible.builtin.copy", call(arguments={"src": "a", "dest": "b", "remote_src": True})))
    assert play["tasks"][0]["ansible.builtin.copy"] == {"src": "a", "dest": "b", "remote_src": True}


def test_a_command_that_was_allowed_to_fail_is_so_again_and_runs_in_check_mode() -> None:
    given = {"argv": ["git", "log"], "_uses_shell": False, "chdir": None}
    (play,) = floor(task("ansible.builtin.command", call(arguments=given, rc=128)))
    assert play["tasks"] == [
        {
            "name": "ansible.builtin.command",
            "ansible.builtin.command": {"argv": ["git", "log"]},
            "failed_when": False,
            "check_mode": False,
        }
    ]


def test_a_call_that_told_nothing_is_the_least_that_a_call_can_be() -> None:
    (play,) = floor(task("community.general.mail", call()))
    assert play["tasks"][0]["ansible.builtin.ping"] == {}


def test_what_looks_like_a_template_is_not_written_out() -> None:
    with pytest.raises(ValueError, match="looks like a template"):
        floor(task("index_set", call(arguments={"words": "{{ now }}"})))


def test_a_profile_names_the_slowest_and_counts_the_rest() -> None:
    tasks = [task(name, call(), ended=float(seconds)) for seconds, name in enumerate(("a", "b", "c"))]
    console = Console(width=150, record=True)
    console.print(profile.slowest(Played(4.0, "", ["(0/7) Open"], tasks), 1))
    shown = console.export_text()
    lines = {line.split("│")[2].strip(): line.split("│")[5].strip() for line in shown.splitlines() if "│ " in line}
    assert lines == {
        "c": "2.00",
        "2 other tasks": "1.00",
        "starting, reading the playbook, ending": "1.00",
        "the whole": "4.00",
    }
