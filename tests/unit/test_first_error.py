"""The first error of a run is one host's failed task or, when no task has failed, the connection that was lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import at_most_one_entry
from at_most_one.errors import OperatorError
from at_most_one.findings import Finding

from filter_plugins.at_most_one import (
    ANSWERS,
    any_true,
    first_afterwards,
    first_error,
    first_findings,
    first_phrases,
    first_reason,
    is_lost,
    told,
)

ROOT = Path(__file__).parents[2]
LOST = {"unreachable": True, "msg": "ssh: connect to host 10.0.0.12 port 22: Connection refused"}


def test_a_lost_connection_is_named_when_no_task_has_failed() -> None:
    hosts = [
        {"inventory_hostname": "a", "__link": {"changed": True}, "_unused": LOST},
        {"inventory_hostname": "b", "__link": {"changed": True}, "__instances": LOST},
    ]

    said = first_error(hosts)

    assert said.startswith("The connection to b was lost: ssh: connect to host 10.0.0.12 port 22: Connection refused")
    assert "Expected:" in said
    assert "Next:" in said


def registered() -> set[str]:
    """The names under which the roles' tasks keep what a host has answered."""
    tasks = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/tasks/*.yml"))
    return set(re.findall(r"(?m)^\s*register: (\w+)$", tasks))


def test_the_connection_counts_as_lost_under_every_name_that_a_role_registers() -> None:
    names = registered()
    assert {name for name in names if not name.startswith("_")} == ANSWERS
    for name in names:
        host = {"inventory_hostname": "b", name: LOST}
        assert is_lost(host), name
        assert first_error([{"inventory_hostname": "a"}, host]).startswith("The connection to b was lost"), name


def test_a_failed_task_comes_before_a_lost_connection() -> None:
    hosts = [
        {"inventory_hostname": "a", "__instances": LOST},
        {"inventory_hostname": "b", "ansible_failed_result": {"msg": "it crashed"}},
    ]

    assert first_error(iter(hosts)) == "it crashed"
    assert first_error([{"inventory_hostname": "a"}]) == "A task failed without a message."


def test_a_module_that_gave_no_answer_says_what_it_printed() -> None:
    result = {
        "msg": "Module result deserialization failed: No start of json char found",
        "module_stderr": "pyenv: python3.13: command not found\n\nDATABASE_URL=postgresql://u:hunter2@h/d\n",
        "rc": 127,
    }
    said = first_error([{"ansible_failed_result": result}])
    assert "exit code 127: pyenv: python3.13: command not found" in said
    assert "ansible_python_interpreter of that host" in said
    assert "hunter2" not in said


def test_what_a_module_hands_over_is_not_taken_apart_and_shows_no_secret() -> None:
    found = [
        Finding("a", "Seen: one. Expected: two.", "no a.", "ansible-playbook deploy.yml -l <environment>"),
        Finding("b", "DATABASE_URL=postgresql://u:hunter2@h/d", "no b.", "go."),
    ]
    # mypy knows the class by two names, by which tests and modules import it.
    result = at_most_one_entry.refusal(OperatorError.of(found, count=2))  # type: ignore[arg-type]
    assert result["findings"][0] == found[0].as_data()
    assert "hunter2" not in str(result)
    for failed in (result, {"results": [{"msg": "fine"}, result], "msg": "One or more items failed"}):
        handed = first_findings([{"inventory_hostname": "a"}, {"ansible_failed_result": failed}])
        assert [(one["name"], one["expected"]) for one in handed] == [("a", "no a."), ("b", "no b.")]
        assert handed[0]["seen"] == found[0].seen
        assert handed[0]["next_step"].startswith("ansible-playbook deploy.yml")
        assert "<environment>" not in handed[0]["next_step"]
        assert "hunter2" not in str(handed)
    foreign = {"msg": "it crashed", "findings": ["of another module"]}
    assert first_findings([{"ansible_failed_result": foreign}]) == []
    assert first_findings([{"inventory_hostname": "a"}]) == []


def test_what_an_error_is_made_of_can_be_handed_on_whole_or_as_a_part_of_another_message() -> None:
    lost = [{"inventory_hostname": "b", "__link": LOST}]
    assert [Finding.of_data(one).identifier for one in first_phrases(lost)] == ["AMO-1015"]
    (korean,) = told([{"template": "The way back failed too: {error}", "values": {"error": first_reason(lost)}}], "ko")
    assert korean["text"].startswith("롤백도 실패했습니다: b ")
    assert "기대: " in korean["text"]
    assert korean["english"] == f"The way back failed too: {first_error(lost)}"
    behind = [{"template": "It stays.", "values": {}}]
    foreign = [{"ansible_failed_result": {"msg": "it crashed at postgresql://u:hunter2@h/d", "afterwards": behind}}]
    assert first_phrases(foreign) == []
    assert first_afterwards(foreign) == behind
    assert first_afterwards(lost) == []
    (same,) = told([first_reason(foreign)])
    assert same["text"] == same["english"] == first_error(foreign)
    assert "hunter2" not in str(first_reason(foreign))


def test_a_command_in_what_is_handed_on_is_this_run_s() -> None:
    (shown,) = told([{"template": "again: ansible-playbook deploy.yml -l <environment>", "values": {}}])
    assert "<environment>" not in shown["text"]
    (masked,) = told([{"template": "{********}", "values": {"error": "x"}}])
    assert masked["text"] == "{********}"


def test_a_host_is_lost_once_any_task_of_its_was_not_reached() -> None:
    assert is_lost({"inventory_hostname": "a", "__link": {"changed": True}, "__health": LOST})
    assert not is_lost({"inventory_hostname": "a", "__link": {"changed": True}, "_unused": LOST})


def test_a_fact_or_a_result_that_says_so_on_any_host() -> None:
    hosts: list[dict[str, Any]] = [{"_changed": False, "__link": {"changed": False}}, {"__link": {"changed": True}}]
    assert any_true(hosts, "_changed", "__link")
    assert not any_true(hosts[:1], "_changed", "__link", "__absent")
    assert any_true([{"_changed": True}], "_changed")
    assert not any_true([{"__link": {}}], "__link"), "a run begins with none"
