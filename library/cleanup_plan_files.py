#!/usr/bin/python
"""Ansible module: remove the clean-up plans of runs that are past their time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cleanup_plan_files
short_description: Remove clean-up plans that are past their time
description:
  - Each run leaves a C(cleanup_plan.json) with the primary keys of the rows that it planned to remove, and with columns
    of their groups. It is removed for the runs that M(archive_purge) names, and for checks of O(plan_id) by their age.
  - A file that is not as its run has written it, or that is somebody else's, is left and named. Reports are left alone.
options:
  directory:
    description: The environment's artifacts, with one directory for each run.
    type: path
    required: true
  plan_id:
    description: The plan.
    type: str
    required: true
  run_ids:
    description: The runs whose clean-up plans go.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - at_most_one.purge
  - at_most_one.in_process
attributes:
  check_mode:
    support: full
    description: Lists the same and removes nothing.
  diff_mode:
    support: full
    description: Shows the paths that go.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Ensure that no clean-up plan is kept for longer than it is needed
  cleanup_plan_files:
    directory: artifacts/production
    plan_id: one-active-inspection-session
    run_ids: [20251110T053000Z-1a2b3c]
    keep_days: 90
    confirmed: true
"""

RETURN = r"""
files:
  description: The clean-up plans. C(why) one stays is as in RV(archive_purge#module:files); empty where it goes.
  returned: success
  type: list
  elements: dict
  sample:
    - run_id: 20251110T053000Z-1a2b3c
      path: artifacts/production/20251110T053000Z-1a2b3c/cleanup_plan.json
      bytes: 2100
      age_days: 120.4
      why: ""
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import PURGE_SPEC, Call, run

OPTIONS = {
    **PURGE_SPEC,
    "directory": {"type": "path", "required": True},
    "plan_id": {"type": "str", "required": True},
    "run_ids": {"type": "list", "elements": "str", "default": []},
}


def act(call: Call) -> dict[str, Any]:
    """List, and remove."""
    from ansible.module_utils.at_most_one.duplicates import old_plan_files
    from ansible.module_utils.at_most_one.system import recorded_files

    given = call.params
    found = old_plan_files.of_runs(Path(given["directory"]), given["plan_id"], given["run_ids"], given["keep_days"])
    go = [one for one in found if not one.why]
    if given["confirmed"] and not call.check_mode:
        for one in go:
            recorded_files.remove(one)
    return {
        "changed": given["confirmed"] and bool(go),
        "files": [one.public() for one in found],
        "diff": {"before": "".join(f"{one.path}\n" for one in go), "after": ""} if given["confirmed"] else {},
    }


def main() -> None:
    """Arguments in, core called, result out."""
    run(OPTIONS, act, needs_psycopg2=False)


if __name__ == "__main__":
    main()
