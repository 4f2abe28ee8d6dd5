#!/usr/bin/python
"""Ansible module: keep what the watch of all hosts has seen, and say what came of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: watch_report
short_description: Keep what the watch of all hosts has seen, and say what came of it
description:
  - Puts together what M(service_watch) has returned for each host, and writes it to O(path).
  - The file is a product of the run, not a state of the service. It is no change, and is written in check mode too.
options:
  hosts:
    description: What M(service_watch) has returned, by host.
    type: dict
    required: true
  environment:
    description: The environment that was watched.
    type: str
    required: true
  plan:
    description: The plan whose rule must hold.
    type: str
    required: true
  run_id:
    description: The deployment that the watch belongs to.
    type: str
  path:
    description: Where to write it. Its directory is made when it is not there, for owner and group.
    type: path
    required: true
  language:
    description: Of the findings, whose English stands beside it.
    type: str
    default: en
attributes:
  check_mode:
    support: full
    description: Writes what the check has seen.
  diff_mode:
    support: none
    description: It changes nothing that is managed.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Keep what was seen
  watch_report:
    hosts: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'watched'))) }}"
    environment: production
    plan: one-active-inspection-session
    path: artifacts/production/watch.json
"""

RETURN = r"""
findings:
  description: What counts, with its C(host).
  returned: always
  type: list
  elements: dict
  sample: [{name: duplicates, seen: 1 duplicate groups are inside the rule., expected: none., next_step: x, host: web1}]
handed_over:
  description: The same as M(stop_unless) takes them.
  returned: always
  type: list
  elements: dict
  sample: []
all_errors:
  description: The same as one text, in English.
  returned: always
  type: str
  sample: ""
hosts:
  description: Each host in numbers, for people.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: web1, rounds: 240, requests: 7200, failures: 0, instances: 2,
       latency: [{name: page, before_ms: 8.1, slowest_ms: 9.4}]}
alert:
  description: What people are told when there are findings, as M(notification) takes it.
  returned: always
  type: dict
  sample: {kind: watch, error: "web1: 1 duplicate groups are inside the rule. Expected: none. Next: deploy again."}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one.findings import say
from ansible.module_utils.at_most_one.service import watch_summary
from ansible.module_utils.at_most_one.system import artifacts
from ansible.module_utils.at_most_one_entry import Call, run

OPTIONS = {
    "hosts": {"type": "dict", "required": True},
    "environment": {"type": "str", "required": True},
    "plan": {"type": "str", "required": True},
    "run_id": {"type": "str"},
    "path": {"type": "path", "required": True},
    "language": {"type": "str", "default": "en"},
}


def act(call: Call) -> dict[str, Any]:
    given = call.params
    about = {name: given[name] for name in ("environment", "plan", "run_id")}
    document = watch_summary.document(given["hosts"], given["language"], **about)
    try:
        artifacts.directory(Path(given["path"]).parent)
        artifacts.write(given["path"], json.dumps(document, ensure_ascii=False, indent=4) + "\n")
    except OSError as failure:  # a full disk is no reason to keep to oneself what was found
        if not document["findings"]:
            raise
        call.warn(
            say(
                "{path} cannot be written ({reason}); what was found is told all the same.",
                path=given["path"],
                reason=failure.strerror or type(failure).__name__,
            )
        )
    return {
        "changed": False,
        "findings": document["findings"],
        "handed_over": [one.as_data() for one in watch_summary.by_host(given["hosts"])],
        "all_errors": watch_summary.error(given["hosts"]),
        "hosts": watch_summary.figures(given["hosts"]),
        "alert": {"kind": "watch", "error": watch_summary.error(given["hosts"], given["language"])},
    }


def main() -> None:
    """Entry point."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
