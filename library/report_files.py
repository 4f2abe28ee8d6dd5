#!/usr/bin/python
"""Ansible module: write the files of a report in one call, and point latest at them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report_files
short_description: Write the files of a report, and point latest at it
description:
  - Writes texts to files in one directory, each whole or not at all, readable by owner and group.
  - It also writes into the reports of earlier runs what has become of these since; see O(earlier).
  - One call in the place of one or two for each file, since every run ends with them.
  - What looks like a secret is taken out of each, of data (C(.json)), of texts, and of words and attributes of pages
    (C(.html)).
  - They are a product of the run, not a state of the service. It never reports a change, and writes in check mode too.
options:
  directory:
    description: Where the files go. It is made when it is not there, for owner and group; its parents too.
    type: path
    required: true
  files:
    description: The texts by their files' names.
    type: dict
    required: true
  latest:
    description: Whether the link C(latest) beside O(directory) shall lead to it.
    type: bool
    default: false
  earlier:
    description:
      - Earlier runs, beside O(directory), that this run took back or took over. Their page and their ticket get the
        note in the place of what was to be done then, and lose the commands that went on from there or went back.
      - A run whose report is not on this machine is left out.
    type: list
    elements: dict
    default: []
    suboptions:
      run_id: {description: "The earlier run, whose directory has its name.", type: str, required: true}
      headline: {description: What stands in the place of its outcome., type: str, required: true}
      title: {description: The heading above the note., type: str, required: true}
      note: {description: What has become of it., type: str, required: true}
      data: {description: Keys of its report.json and their new values., type: dict, default: {}}
attributes:
  check_mode:
    support: full
    description: Writes the report of the check, which changes nothing of the service.
  diff_mode:
    support: none
    description: Its files are new with each run.
extends_documentation_fragment:
  - at_most_one.in_process
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Write the report
  report_files:
    directory: artifacts/staging/20251110T053000Z-1a2b3c
    files:
      report.md: "{{ lookup('ansible.builtin.template', 'report.md.j2') }}"
    latest: true
"""

RETURN = r"""
paths:
  description: The files that were written.
  returned: success
  type: list
  elements: str
  sample: [artifacts/staging/20251110T053000Z-1a2b3c/report.md]
"""

from typing import Any

from ansible.module_utils.at_most_one.runs import superseded
from ansible.module_utils.at_most_one.system import artifacts, files
from ansible.module_utils.at_most_one_entry import Call, run

EARLIER = {
    "run_id": {"type": "str", "required": True},
    "headline": {"type": "str", "required": True},
    "title": {"type": "str", "required": True},
    "note": {"type": "str", "required": True},
    "data": {"type": "dict", "default": {}},
}
OPTIONS = {
    "directory": {"type": "path", "required": True},
    "files": {"type": "dict", "required": True, "no_log": True},
    "latest": {"type": "bool", "default": False},
    "earlier": {"type": "list", "elements": "dict", "default": [], "options": EARLIER},
}


def act(call: Call) -> dict[str, Any]:
    """Write each file, then move the link: it never leads to a report that is not there."""
    directory = artifacts.directory(call.params["directory"])
    paths = [directory / name for name in call.params["files"]]
    for name, text in call.params["files"].items():
        artifacts.write(directory / name, text)
    if call.params["latest"]:
        files.link(directory.parent / "latest", directory.name)
    for run_of_before in call.params["earlier"]:
        where = superseded.directory_of(directory.parent, run_of_before["run_id"])
        headline, title, note = (run_of_before[name] for name in ("headline", "title", "note"))
        paths += superseded.write(where, headline, title, note, run_of_before["data"]) if where else []
    return {"changed": False, "paths": [str(path) for path in paths]}


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
