#!/usr/bin/python
"""Ansible module: judge what a monitoring run has read, remember it, and say what is new and what is over."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitor_report
short_description: Judge what a monitoring run has read, and say what is new and what is over
description:
  - Compares with C(state.json) in O(directory) (what people know to be wrong, since when), which is the caller's to
    write once people have been told. Keeps C(history.jsonl) there (one line for each run), and writes O(textfile) for
    Prometheus' node exporter, each by an atomic rename.
  - These are products of a run, not a state of the service. They are no change.
options:
  facts:
    description:
      - What was read. C(environment), C(environment_hosts), C(plan), C(min_instances), C(hosts).
      - C(service) of M(service_check), or its error.
      - C(database) with the results of M(index_set), M(write_fence), M(prisma_history),
        M(index_use) and M(deploy_run), or with the error of each.
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
  description: All findings as one text.
  returned: always
  type: str
  sample: ""
advice:
  description: What somebody should do some day. Nobody is told of it, and it is no finding.
  returned: always
  type: list
  elements: dict
  sample: []
history:
  description: One entry for each run, oldest first, this one included.
  returned: always
  type: list
  elements: dict
  sample: [{at: "2025-11-10T05:30:00Z", duplicates: 0, findings: [], indexes: {}}]
"""

import json
import os
import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one.monitoring import findings, prometheus
from ansible.module_utils.at_most_one.system import files
from ansible.module_utils.at_most_one_entry import Call, run

OPTIONS = {
    "facts": {"type": "dict", "required": True},
    "directory": {"type": "path", "required": True},
    "textfile": {"type": "path"},
    "keep": {"type": "int", "default": 400},
}


def act(call: Call) -> dict[str, Any]:
    given = call.params
    runs = (given["facts"]["database"].get("journal") or {}).get("runs") or []
    facts = {**given["facts"], "released": findings.released(runs, given["facts"]["environment"])}
    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    state, history = (os.path.join(given["directory"], name) for name in ("state.json", "history.jsonl"))
    before = _read_state(call, state)
    found = findings.findings(facts, before)
    change = findings.compare(found, before, at)
    use = (facts["database"].get("use") or {}).get("indexes") or []
    entry = {
        "at": at,
        "duplicates": (facts["database"].get("verified") or {}).get("duplicates_left"),
        "findings": sorted(change.since),
        "indexes": {one["name"]: {"scans": one["scans"], "bytes": one["bytes"]} for one in use},
    }
    entries = [*_read_history(history), entry][-given["keep"] :]
    if not call.check_mode:
        os.makedirs(given["directory"], mode=0o750, exist_ok=True)
        if given["textfile"]:
            files.write(given["textfile"], prometheus.metrics(facts, found, now), 0o644)
        files.write(history, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries), 0o640)
    return {
        "changed": False,
        "findings": [asdict(one) for one in found],
        "new": [asdict(one) for one in change.new],
        "recovered": change.recovered,
        "since": change.since,
        "before": before,
        "alerts": findings.alerts(change),
        "all_errors": findings.as_text(found),
        "advice": [asdict(one) for one in findings.warnings(facts)],  # Ansible keeps "warnings" of a result for itself
        "history": entries,
    }


def _read_state(call: Call, path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
        return {str(key): str(since) for key, since in known.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError):
        call.warn(f"{path} is no state of the monitor; every finding counts as new.")
        return {}


def _read_history(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # a line that a full disk has cut
    return [entry for entry in entries if isinstance(entry, dict)]


def main() -> None:
    """Entry point."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
