"""The first error of a run is one host's failed task or, when no task has failed, the connection that was lost."""

from __future__ import annotations

from filter_plugins.at_most_one import first_error

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
