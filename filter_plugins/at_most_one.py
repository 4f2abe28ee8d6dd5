"""Filters for what a template would say less clearly."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import context
from jinja2 import pass_context

sys.path.insert(0, str(Path(__file__).parents[1] / "module_utils"))
from at_most_one import catalogue, findings, verdicts
from at_most_one.findings import observed, say
from at_most_one.system import command_line, project
from at_most_one.system.commit_names import short
from at_most_one.system.redaction import redact, redact_data

# The facts in which roles keep for each other what a host has answered, besides the names of their own, which begin
# with two underscores.
ANSWERS = frozenset(
    [
        "cleanup_removed",
        "cleanup_reported",
        "healthcheck_log",
        "healthcheck_service",
        "healthcheck_traffic",
        "migrate_indexes",
        "notify_sent",
        "pm2_reload_instances",
        "pm2_reload_link",
        "prepare_backup",
        "prepare_instances",
        "prepare_made",
        "rollback_done",
        "rollback_plan",
        "run_end",
        "run_host",
        "run_inputs",
        "run_traffic",
        "verify_indexes",
    ]
)


def any_true(hosts: Iterable[Mapping[str, Any]], *facts: str) -> bool:
    """Whether any of the facts is set and true on any host; a task's result is where it changed something."""
    found = (host.get(fact, False) for host in hosts for fact in facts)
    return any(one.get("changed", False) if isinstance(one, Mapping) else one for one in found)


def first_error(hosts: Iterable[Mapping[str, Any]]) -> str:
    """The error of the first host that has one, as a person needs it: a command with what it printed last.

    The commands of a module's message get this run's inventory, limit and values.
    """
    return _filled(_first_error(list(hosts)))


def first_findings(hosts: Iterable[Mapping[str, Any]], language: str = "en") -> list[dict[str, Any]]:
    """What the same error consists of, in that language, each as ``catalogue.shown`` has it.

    Empty for what Ansible itself and other modules say, who have only a text.
    """
    return _shown(_found(list(hosts)), language)


def shown(found: Iterable[Mapping[str, Any]], language: str = "en") -> list[dict[str, Any]]:
    """The same of what a module has found, as it has handed it over."""
    return _shown(map(findings.Finding.of_data, found), language)


def _shown(found: Iterable[findings.Finding], language: str) -> list[dict[str, Any]]:
    in_words = [catalogue.shown(one, language) for one in found]
    return [command_line.filled(redact_data(one), context.CLIARGS, str(project.base())) for one in in_words]


def first_phrases(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same, to be handed on to stop_unless, each as ``Finding.as_data`` has it."""
    return [dict(redact_data(one.as_data())) for one in _found(list(hosts))]


def first_reason(hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole error as one phrase (``Phrase.as_data``), to be a value of another one."""
    every = list(hosts)
    found = _found(every)
    phrase = findings.whole(found) if found else say("{text}", text=_first_error(every))
    data: dict[str, Any] = redact_data(phrase.as_data())
    # Out of its sentence, a value might not look like the secret that it is.
    return data if findings.handed_over(data) == redact(phrase) else say("{text}", text=redact(phrase)).as_data()


def first_afterwards(hosts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the same error has behind it, as stop_unless was given it."""
    return list((_failed_result(list(hosts)) or {}).get("afterwards") or [])


def told(phrases: Iterable[Mapping[str, Any]], language: str = "en") -> list[dict[str, str]]:
    """Phrases that were handed over (``Phrase.as_data``), each as its ``text`` in that language, and in ``english``."""
    handed = [findings.handed_over(one) for one in phrases]
    return [
        {"text": _filled(redact(catalogue.render(one, language))), "english": _filled(redact(one))} for one in handed
    ]


def word(verdict: str, language: str = "en") -> str:
    """A verdict, a state or a phase for a person; one without a word stays as it is."""
    return catalogue.render(verdicts.word(verdict), language)


def _found(hosts: Sequence[Mapping[str, Any]]) -> list[findings.Finding]:
    own = _finding(hosts)
    return list(findings.of_result(_failed_result(hosts) or {})) or ([own] if own else [])


def _filled(text: str) -> str:
    return command_line.fill(text, context.CLIARGS, str(project.base()))


def _failed_result(hosts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The result of the first task that has failed; of a loop that of its first item that has."""
    results = [host["ansible_failed_result"] for host in hosts if "ansible_failed_result" in host]
    if not results:
        return None
    first: Mapping[str, Any] = results[0]
    return next((item for item in first.get("results", []) if item.get("failed")), first)


def _first_error(hosts: Sequence[Mapping[str, Any]]) -> str:
    if finding := _finding(hosts):
        return redact(str(finding))
    result = _failed_result(hosts) or {}
    return redact(str(result.get("msg", say("A task failed without a message."))))


def _finding(hosts: Sequence[Mapping[str, Any]]) -> findings.Finding | None:
    """What to say of a module that gave no answer, of a command and of a host that was lost; None for all else."""
    result = _failed_result(hosts)
    if result is None:
        return next(filter(None, map(_lost, hosts)), None)
    if result.get("module_stderr"):  # it did not answer as a module does: Python ended before it, or in it
        return findings.Finding(
            "",
            observed(
                "AMO-1013",
                "A module gave no answer but exit code {code}: {lines}.",
                code=result.get("rc"),
                lines=_last_of(result["module_stderr"]),
            ),
            say("an answer."),
            say(
                "when these lines are about Python itself, name one of version 3.9 or newer in "
                "ansible_python_interpreter of that host; otherwise keep them, they show an error of this project."
            ),
        )
    if "cmd" not in result:
        return None
    return findings.Finding(
        "",
        observed(
            "AMO-1014",
            "`{command}` ended with exit code {code}: {lines}.",
            command=result["cmd"] if isinstance(result["cmd"], str) else " ".join(map(str, result["cmd"])),
            code=result.get("rc"),
            lines=_last_of(result.get("stderr") or result.get("stdout") or str(result.get("msg", ""))),
        ),
        say("exit code 0."),
        say("run it by hand on that host, repair what it says, then the same playbook again."),
    )


def _last_of(printed: str) -> str:
    return " | ".join(line.strip() for line in printed.strip().splitlines()[-12:])


def _lost(host: Mapping[str, Any]) -> findings.Finding | None:
    """What to say of a host whose connection was lost: Ansible remembers no failure of it, only the task's result."""
    for name in (name for name in host if name.startswith("__") or name in ANSWERS):  # no others: reading fills them
        result = host[name]
        if isinstance(result, Mapping) and result.get("unreachable"):
            return findings.Finding(
                "",
                observed(
                    "AMO-1015",
                    "The connection to {host} was lost: {message}",
                    host=host["inventory_hostname"],
                    message=result.get("msg") or say("no reason given"),
                ),
                say("a connection until the host is proven."),
                say(
                    "find out whether it is up and what it serves (readlink of the application's path, pm2 list), then "
                    "the same playbook again."
                ),
            )
    return None


def is_lost(host: Mapping[str, Any]) -> bool:
    """Whether the connection to the host was lost at a task that registers its result."""
    return _lost(host) is not None


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {
            "at_most_one_any_true": any_true,
            "at_most_one_first_afterwards": first_afterwards,
            "at_most_one_first_error": pass_context(command_line.of_tenant(first_error)),
            "at_most_one_first_findings": pass_context(command_line.of_tenant(first_findings)),
            "at_most_one_first_phrases": first_phrases,
            "at_most_one_first_reason": first_reason,
            "at_most_one_in_words": catalogue.in_words,
            "at_most_one_is_lost": is_lost,
            "at_most_one_short": short,
            "at_most_one_shown": pass_context(command_line.of_tenant(shown)),
            "at_most_one_told": pass_context(command_line.of_tenant(told)),
            "at_most_one_word": word,
        }
