"""Write the notice of an event of a run, in the reader's language.

``words`` are those of roles/notify/files/words_<language>.yml.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..findings import parse, without_going_back
from ..system.commit_names import short
from .messages import Notice

Words = Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """What has happened. What the run did is read in its report; an alert has a kind and content of its own."""

    name: str
    environment: str
    application: str
    language: str
    at: str
    front_door: str = ""  # the playbook that was started
    alert: Mapping[str, Any] = field(default_factory=dict)  # kind, and error or recovered (name and since)
    plan: Mapping[str, Any] = field(default_factory=dict)  # of the run; empty before a plan is read
    report: Mapping[str, Any] = field(default_factory=dict)  # report.json, as report/document.py makes it
    report_path: str = ""  # its directory

    @property
    def ended(self) -> bool:
        return bool(self.report) and self.report["outcome"] != "running"

    @property
    def kind(self) -> str:
        """The event as a person sees it: a rollback that begins, a run of single phases that has ended."""
        if self.name == "start" and self.front_door == "rollback.yml":
            return "start_rollback"
        if self.report and self.report["asked"] is not None and self.name in ("success", "unchanged"):
            return "partial"
        return str(self.alert.get("kind") or self.name)


def notice(event: Event, words: Words) -> Notice:
    """Return the message that every channel gets."""
    # An alert has no run: of several plans and tenants nobody else says which one it is about.
    about = [(words["plan"], event.plan["title"][event.language])] if event.plan else []
    facts = _facts(event, event.report, words) if event.report else about
    facts += [(one["name"], f"{words['since']} {one['since']}") for one in event.alert.get("recovered") or []]
    return Notice(event.name, _title(event, words), tuple(facts), _error(event, words), words["findings"], _data(event))


def _title(event: Event, words: Words) -> str:
    title = str(words["titles"][event.kind])
    if event.kind == "rollback" and event.report and event.report["restored"]["left"]:
        title += words["without"].replace("ROWS", str(event.report["restored"]["left"]))
    return f"{title}: {event.environment} | {event.application}"


def _facts(event: Event, report: Mapping[str, Any], words: Words) -> list[tuple[str, str]]:
    before, after = (short(str(report["commit"][name] or "")) for name in ("before", "after"))
    facts = [
        (words["plan"], event.plan["title"][event.language]),
        *(
            [(words["commit"], f"{before} -> {after}")] if before or after else []
        ),  # without an application there is none
        (words["who"], str(report["who"] or "-")),
        (words["run"], report["run_id"]),
    ]
    if event.name == "hold":
        plan = shlex.quote(f"plan={event.plan['id']}")  # it is of this plan that a run waits
        go_on = f"ansible-playbook control.yml -l {event.environment} -e {plan} -e control_action=continue"
        facts.append((words["go_on"], go_on))
    if not event.ended:
        return facts
    phases = words["phases"]
    if event.kind == "partial":
        facts.append((words["asked"], ", ".join(phases[phase] for phase in report["asked"])))
    if report["failed_phase"]:
        facts.append((words["phase"], phases.get(report["failed_phase"], report["failed_phase"])))
    if report["outcome"] == "rolled_back":
        left = report["restored"]["left"]
        facts.append((words["restored"], str(report["restored"]["rows"])))
        facts += [(words["left"], str(left))] if left else []
    else:
        facts.append((words["removed"], str(report["cleanup"]["removed"])))
    present = [index for index in report["indexes"] if index["verdict"] == "present"]
    facts.append((words["indexes"], f"{len(present)} / {len(event.plan['indexes'])}"))
    failures, requests = report["traffic"]["failures"], report["traffic"]["requests"]
    if failures:  # although the run went well, or before it was taken back
        facts.append((words["lost"], f"{failures} / {requests} ({100 * failures / requests:.2f} %)"))
    return [*facts, (words["report"], f"{event.report_path}/report.html")]


def _error(event: Event, words: Words) -> str:
    if event.name == "alert" or not event.report:
        return str(event.alert.get("error") or "")
    error = str(event.report["error"] or "")
    if not error.strip():
        return error
    # After a rollback nobody is asked for one: in the first place it is said that it is done.
    is_back = event.name == "rollback"
    already = words["left_words"] if event.report["restored"]["left"] else words["already"]
    told = [
        f"{_named(found)} Expected: {found['expected'] or '-'} "
        f"Next: {f'{already} ' + without_going_back(found['next_step']) if is_back else found['next_step']}".strip()
        for found in event.report["findings"]
    ]
    behind = "\n".join(one["text"] for one in event.report["afterwards"]) or parse(error).afterwards
    afterwards = "" if is_back else behind
    return " Seen: ".join(told) + (f"\n{afterwards}" if afterwards else "")


def _named(found: Mapping[str, Any]) -> str:
    """What was seen, with the message's identifier behind it."""
    return f"{found['seen']} [{found['identifier']}]" if found["identifier"] else str(found["seen"])


def _data(event: Event) -> dict[str, Any]:
    """What the webhook's JSON has beside event, title, text and findings, whatever the language."""
    data: dict[str, Any] = {
        **{"environment": event.environment, "application": event.application, "at": event.at},
        "language": event.language,
    }
    if event.plan:
        data["plan"] = {"id": event.plan["id"]}
    report = event.report
    if report:
        data |= {
            "run_id": report["run_id"],
            "plan": report["plan"],
            "commit": report["commit"],
            "outcome": report["outcome"] if event.ended else None,
            "failed_phase": report["failed_phase"],
            "report": f"{event.report_path}/report.json" if event.ended else None,
        }
    return data
