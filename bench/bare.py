"""The floor of a run: a bare playbook that makes the same module calls again, and does nothing else.

Out of the record of a run comes a playbook with the same plays and batches, and in each the tasks that called a
module: on the same hosts, with the arguments that the module was given, written out. There are no roles, no values to
be worked out, no conditions, no messages, no skipped tasks, no error handling: what is left is what Ansible takes to
bring these calls to these hosts, and what the modules take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .playbooks import Played, Task

# They run on the control node and ask nothing of a host.
_NO_CALLS = {
    f"{prefix}{name}"
    for prefix in ("", "ansible.builtin.")
    for name in (
        *("assert", "debug", "fail", "meta", "pause", "set_fact", "validate_argument_spec"),
        *("include_role", "include_tasks", "include_vars", "import_role", "import_tasks"),
    )
}
# Delegated to localhost they run in the process of ansible-playbook: repeated as well, and no call of a module.
_IN_PROCESS = (
    *("deploy_checklist", "monitor_report", "notification", "report_files", "service_check", "traffic_probe"),
    "watch_report",
)
_FILES = ("ansible.builtin.copy", "ansible.builtin.template", "ansible.builtin.fetch")
_LEAST = "ansible.builtin.ping"
# In check mode Ansible itself would skip these, or what depends on them could not be there.
_ALWAYS = ("ansible.builtin.command", "ansible.builtin.tempfile", "ansible.builtin.file", *_FILES)
# What a call returns and later calls are given: the bare run makes its own.
_MADE = {"deploy_run": ("run_id", "run"), "ansible.builtin.tempfile": ("path", "temporary_directory")}


def playbook(
    played: Played, known: Mapping[str, Any], hosts: Mapping[str, Mapping[str, str]], gateway: str
) -> list[dict[str, Any]]:
    """The plays of the bare playbook.

    ``known`` are arguments by name, to be given instead of those in the record: secrets are hidden there, and the
    process that a run belongs to has ended. ``hosts`` says of each host which variables have which texts there, so that
    one task speaks to all of them. What is delegated goes to ``gateway`` or, when it was, to localhost.
    """
    made: dict[str, str] = {}
    plays = []
    for number, name in enumerate(played.plays):
        members = [task for task in played.tasks if task.play == number]
        asked = list(dict.fromkeys(call["host"] for task in members for call in task.calls))
        tasks = [
            bare
            for task in members
            if (bare := _task(task, len(asked), made, _Words(known, hosts, gateway))) is not None
        ]
        if tasks:
            plays.append({"name": name, "hosts": ",".join(asked), "gather_facts": False, "tasks": tasks})
    return plays


def calls(played: Played) -> int:
    """How many module calls a run made."""
    tasks = (task for task in played.tasks if task.delegate_to != "localhost" or task.action not in _IN_PROCESS)
    return sum(len(_made_calls(task)) for task in tasks)


class _Words:
    """What the texts of a record stand for."""

    def __init__(self, known: Mapping[str, Any], hosts: Mapping[str, Mapping[str, str]], gateway: str) -> None:
        self.known, self.hosts, self.gateway = known, hosts, gateway

    def general(self, arguments: Mapping[str, Any], host: str, made: Mapping[str, str]) -> dict[str, Any]:
        """The arguments with what belongs to one host or one run as a variable, and what is hidden as it is."""
        given = {**arguments, **{name: value for name, value in self.known.items() if arguments.get(name)}}
        text = json.dumps({name: value for name, value in given.items() if value is not None})
        if "{{" in text or "{%" in text:
            raise ValueError(f"an argument that looks like a template cannot be written out: {text[:200]}")
        for value, variable in [*made.items(), *((v, k) for k, v in self.hosts.get(host, {}).items())]:
            text = text.replace(value, "{{ " + variable + " }}")
        return dict(json.loads(text))


def _made_calls(task: Task) -> list[Mapping[str, Any]]:
    if task.action in _NO_CALLS:
        return []
    return [call for call in task.calls if not call.get("skipped")]


def _task(task: Task, play_size: int, made: dict[str, str], words: _Words) -> dict[str, Any] | None:
    calls = _made_calls(task)
    if not calls:
        return None
    asked = list(dict.fromkeys(call["host"] for call in calls))
    first = [_arguments(task, call, made, words) for call in calls if call["host"] == asked[0]]
    action, items = first[0][0], [arguments for _, arguments in first]
    bare: dict[str, Any] = {"name": task.name, **_looped(action, items)}
    if task.delegate_to:
        control = task.delegate_to == "localhost" or task.action == "ansible.builtin.fetch"  # the file ends up there
        bare["delegate_to"] = "localhost" if control else words.gateway
    if task.run_once or len(asked) == 1 < play_size:
        bare["run_once"] = True
    elif len(asked) < play_size:
        bare["when"] = f"inventory_hostname in {asked}"
    if any(call.get("rc") for call in calls):
        bare["failed_when"] = False
    if action in _ALWAYS:
        bare["check_mode"] = False
    if task.action in _MADE:
        answer, register = _MADE[task.action]
        if value := calls[0].get(answer):
            bare["register"] = f"bare_{register}"
            made.setdefault(value, f"bare_{register}.{answer}")
    return bare


def _arguments(
    task: Task, call: Mapping[str, Any], made: Mapping[str, str], words: _Words
) -> tuple[str, dict[str, Any]]:
    """The module and what it is given. A file's content is not in the record: as much stands for it."""
    given = call["arguments"]
    if task.action in _FILES and not (given or {}).get("remote_src"):
        where = call.get("dest") or call.get("path") or (given or {}).get("dest")
        if where is None:
            return _LEAST, {}
        content = "{}".ljust(int(call.get("size", 0)))  # what reads it back may expect JSON
        file = {"dest": where, "content": content, "mode": call.get("mode", "0600")}
        return _FILES[0], words.general(file, call["host"], made)
    if given is None:
        return _LEAST, {}
    if task.action == "ansible.builtin.command":
        given = {name: given[name] for name in ("argv", "chdir") if given.get(name)} or {"cmd": given["_raw_params"]}
    elif task.action.startswith("ansible.builtin."):
        given = {name: value for name, value in given.items() if not name.startswith("_")}
    return task.action, words.general(given, call["host"], made)


def _looped(action: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One task for all items: what differs between them is looped over, as in the run."""
    if len(items) == 1:
        return {action: items[0]}
    differ = sorted({name for item in items for name in item if item.get(name) != items[0].get(name)})
    arguments = {**items[0], **{name: "{{ item." + name + " }}" for name in differ}}
    return {action: arguments, "loop": [{name: item.get(name, "") for name in differ} for item in items]}
