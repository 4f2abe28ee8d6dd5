#!/usr/bin/python
"""Ansible module: judge what a monitoring run has read, remember it, and say what is new and what is over."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitor_report
short_description: Judge what a monitoring run has read, and say what is new and what is over
description:
  - Compares with C(state.json) in O(directory) (what people know to be wrong, since when), which is the caller's to
    write once people have been told. Keeps C(history.jsonl) there (one line for each run), and writes O(textfile) for
    Prometheus' node exporter, each by an atomic rename. What cannot be written of them is a finding like the others.
  - These are products of a run, not a state of the service. They are no change.
  - In ansible-playbook's own process the commands of its messages have the inventory, limit and values of this run.
options:
  facts:
    description:
      - What was read. C(environment), C(environment_hosts), C(plan), C(min_instances).
      - C(service) of M(service_check), C(database) of M(monitor_database_info), and of each host in C(hosts)
        M(monitor_host_info), or the error of each.
    type: dict
    required: true
  directory:
    description: Where to keep the state and the history.
    type: path
    required: true
  textfile:
    description: Where to write the metrics; nowhere when empty. Its directory must exist.
    type: path
  keep:
    description: How many runs the history keeps.
    type: int
    default: 400
  language:
    description: Of the findings, whose English stands beside it.
    type: str
    default: en
attributes:
  check_mode:
    support: full
    description: Judges and writes nothing.
  diff_mode:
    support: none
    description: It changes nothing that is managed.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Judge what was read
  monitor_report:
    facts: "{{ read_facts }}"
    directory: artifacts/production/monitor
    textfile: /var/lib/node_exporter/at_most_one.prom
"""

RETURN = r"""
findings:
  description: Everything that is not as it should be.
  returned: always
  type: list
  elements: dict
  sample: [{name: duplicates, seen: 1 duplicate groups are inside the rule., expected: none., next_step: deploy.}]
new:
  description: Those of them that the run before had not.
  returned: always
  type: list
  elements: dict
  sample: []
alerts:
  description: What people are to be told, as M(notification) takes it; of what is new and of what is over.
  returned: always
  type: list
  elements: dict
  sample: [{kind: monitor_over, recovered: [{name: duplicates, since: "2025-11-10T05:30:00Z"}]}]
recovered:
  description: What the run before had and this one, which could read it, has not; with the time since when.
  returned: always
  type: list
  elements: dict
  sample: [{name: duplicates, since: "2025-11-10T05:30:00Z"}]
since:
  description: Since when each finding is known. It is C(state.json) once people have been told.
  returned: always
  type: dict
  sample: {duplicates: "2025-11-10T05:30:00Z"}
before:
  description: What C(state.json) says.
  returned: always
  type: dict
  sample: {}
all_errors:
  description: All findings as one text, in English.
  returned: always
  type: str
  sample: ""
handed_over:
  description: All findings as M(stop_unless) takes them.
  returned: always
  type: list
  elements: dict
  sample: []
document:
  description: C(monitor.json), with all findings, what should be done some day, the archive and the use of the indexes.
  returned: always
  type: dict
  sample: {environment: production, plan: one-active-inspection-session, findings: [], since: {}, warnings: []}
page:
  description: What the dashboard shows beyond that, among it the course of all runs that are kept, and the last runs.
  returned: always
  type: dict
  sample: {at: "2025-11-10T05:30:00Z", api_ok: true, fence: lowered, history: applied, hosts: [], runs: [], course: []}
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one import catalogue
from ansible.module_utils.at_most_one.errors import OperatorError
from ansible.module_utils.at_most_one.findings import Finding
from ansible.module_utils.at_most_one.monitoring import findings, memory, page, prometheus
from ansible.module_utils.at_most_one.system import artifacts
from ansible.module_utils.at_most_one_entry import Call, run

OPTIONS = {
    "facts": {"type": "dict", "required": True},
    "directory": {"type": "path", "required": True},
    "textfile": {"type": "path"},
    "keep": {"type": "int", "default": 400},
    "language": {"type": "str", "default": "en"},
}


def act(call: Call) -> dict[str, Any]:
    given, directory, language = call.params, Path(call.params["directory"]), call.params["language"]
    runs = (given["facts"]["database"].get("journal") or {}).get("runs") or []
    facts = {**given["facts"], "released": findings.released(runs, given["facts"]["environment"])}
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    try:
        before = memory.known(directory / "state.json")
    except OperatorError as stop:
        call.warn(stop.findings[0].seen)
        before = {}
    found = findings.findings(facts, before)
    change = findings.compare(found, before, at)
    history, unkept = directory / "history.jsonl", list[Finding]()
    entries = [memory.entry(facts, change, at)]
    with _told(history, unkept):
        entries = [*memory.history(history), *entries][-given["keep"] :]
        if not call.check_mode:
            artifacts.directory(directory)
            artifacts.write(history, memory.as_lines(entries))
    if given["textfile"] and not call.check_mode:
        with _told(Path(given["textfile"]), unkept):
            artifacts.write(given["textfile"], prometheus.metrics(facts, [*found, *unkept], now), 0o644)
    if unkept:
        found += unkept
        change = findings.compare(found, before, at)
    return {
        "changed": False,
        "findings": [catalogue.shown(one, language) for one in found],
        "new": [catalogue.shown(one, language) for one in change.new],
        "recovered": change.recovered,
        "since": change.since,
        "before": before,
        "alerts": findings.alerts(replace(change, new=[catalogue.told(one, language) for one in change.new])),
        "all_errors": findings.as_text(found),
        "handed_over": [one.as_data() for one in found],
        "document": page.document(facts, found, change.since, language),
        "page": page.page(facts, entries, language),
    }


@contextlib.contextmanager
def _told(path: Path, unkept: list[Finding]) -> Iterator[None]:
    """A file that cannot be kept is a finding: people are told of it with the others, not in their place."""
    try:
        yield
    except OSError as failure:  # a full disk, a file of another account
        unkept.append(memory.unkept(path, failure))


def main() -> None:
    """Entry point."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
