#!/usr/bin/python
"""Ansible module: read what Prisma's history really says of the plan's migration."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_history_info
short_description: Read Prisma's migration history for what it means
description:
  - Reads C(_prisma_migrations) in the plan's schema, compares it with the release's migrations and with the catalog,
    and gives one verdict with one repair.
  - A failed row stops every later C(prisma migrate deploy) with P3009. An applied row without its indexes makes Prisma
    say that nothing is pending. Both are seen here.
options:
  release_path:
    description:
      - The release whose C(prisma/migrations) the history is compared with.
      - Without it, edited and earlier migrations stay unseen.
    type: path
extends_documentation_fragment:
  - at_most_one.login
  - at_most_one.plan
  - at_most_one.reads_only
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Read what Prisma's history says of the plan's migration
  prisma_history_info:
    login: "{{ database_login }}"
    plan: "{{ lookup('file', 'plans/one-active-inspection-session.yml') | from_yaml }}"
    release_path: /var/www/aedpics.releases/3f616e0
  register: prisma_state
"""

RETURN = r"""
verdict:
  description:
    - One of absent_table, pending, applied, applied_without_indexes, failed, failed_with_indexes, rolled_back, edited,
      ahead, earlier_pending, earlier_failed. docs/prisma-history.md says how each is recognised and repaired.
  returned: success
  type: str
  sample: failed
repair:
  description: The one next step that this verdict asks for; begins with "none" where there is none.
  returned: success
  type: str
  sample: >-
    every deploy by hand stops with P3009; the migrate phase marks the row rolled back by itself once nothing of the
    migration is there, then applies it again.
needs_a_person:
  description: Whether no phase of a deployment does that.
  returned: success
  type: bool
  sample: false
pending:
  description: The migrations that C(prisma migrate deploy) would apply, in its order.
  returned: success
  type: list
  elements: str
  sample: [20251110_add_partial_unique_indexes]
blocking:
  description: Other migrations whose failure stops every deploy.
  returned: success
  type: list
  elements: str
  sample: []
row:
  description: The last attempt at the plan's migration; C(logs) are its first lines, without values.
  returned: when there was one
  type: dict
  sample:
    id: 5a2cf2a4-3f3e-4c0e-8a54-2d7e6f0d1c11
    checksum: 0f1e...
    started_at: "2025-11-10T05:30:00+00:00"
    finished_at:
    rolled_back_at:
    applied_steps_count: 0
    logs: ["Database error code: 55P03"]
indexes_exact:
  description: Whether the catalog holds exactly the planned indexes; empty when the verdict does not depend on them.
  returned: success
  type: bool
  sample: false
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.at_most_one.plan import parse
from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, PLAN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ansible.module_utils.at_most_one.prisma.migration_history import Row


def act(module: AnsibleModule) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.migration import readiness

    release = module.params["release_path"]
    found = readiness.read(
        login_of(module), parse(module.params["plan"]), Path(release) if release else None, **timeouts_of(module)
    )
    verdict = found.verdict
    return {
        "changed": False,
        "verdict": verdict.verdict,
        "repair": found.repair,
        "needs_a_person": found.needs_a_person,
        "pending": list(verdict.pending),
        "blocking": list(verdict.failed),
        "row": _row(module, verdict.row) if verdict.row else None,
        "indexes_exact": found.indexes_exact,
    }


def _row(module: AnsibleModule, row: Row) -> dict[str, Any]:
    from ansible.module_utils.at_most_one.prisma.output import first_lines, scrub

    fields = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in asdict(row).items()}
    return {**fields, "logs": first_lines(scrub(row.logs or "", login_of(module)))}


def main() -> None:
    """Entry point."""
    run({**LOGIN_SPEC, **PLAN_SPEC, "release_path": {"type": "path"}}, act)


if __name__ == "__main__":
    main()
