#!/usr/bin/python
"""Ansible module: write the evidence of a rehearsal, to the journal or to a file that can travel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_evidence
short_description: Seal the evidence of a rehearsal and write it
description:
  - Seals the document with a digest over its content, so that a file that was edited afterwards is found out.
  - Writes it to a file, to the journal, or both. The same document gets the same seal in either place.
  - Evidence is a log, not managed state. It never reports a change.
options:
  document:
    description: What was rehearsed and what came of it. Without secrets; it travels.
    type: dict
    required: true
  path:
    description: The file. It appears whole or not at all, readable by its owner and group.
    type: path
  login:
    description: The database whose journal keeps it, as the other modules take it.
    type: dict
    suboptions:
      host: {description: Host name or address of the server., type: str, required: true}
      port: {description: TCP port of the server., type: int, default: 5432}
      dbname: {description: Name of the database., type: str, required: true}
      user: {description: Role to connect as., type: str, required: true}
      password: {description: Password of the role., type: str, required: true}
      sslmode:
        description: How much the connection insists on TLS, as libpq understands it.
        type: str
        default: prefer
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert: {description: "The authority's certificate, as in M(deploy_run).", type: str, default: ""}
      sslcert: {description: "Our certificate, as in M(deploy_run).", type: str, default: ""}
      sslkey: {description: "Its key, as in M(deploy_run).", type: str, default: ""}
  lock_timeout_ms:
    description: Longest wait for one lock, in milliseconds.
    type: int
    default: 3000
  statement_timeout_ms:
    description: Longest run of one statement, in milliseconds.
    type: int
    default: 60000
attributes:
  check_mode:
    support: full
    description: Seals and writes nothing.
  diff_mode:
    support: none
    description: A log has no before and after.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Write the evidence
  rehearsal_evidence:
    path: artifacts/staging/rehearsal/one-active-inspection-session.json
    document:
      rehearsal_id: 20251110T053000Z-1a2b3c
      plan: {id: one-active-inspection-session, sha256: "{{ before.plan_sha256 }}"}
      commit: {before: 1c5af34, after: 3f616e0}
      environment: staging
      who: deploy
      outcome: passed
      ended_at: "2025-11-10T05:40:00Z"
      turns: []
      recovery_seconds: 21.5
"""

RETURN = r"""
document:
  description: The document as it was sealed. What else is to hold it is given this; a second seal is the same.
  returned: success
  type: dict
sha256:
  description: The seal.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, login_of, run, timeouts_of
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Seal and write."""
    from ansible.module_utils.at_most_one.rehearsal import evidence

    document, path = module.params["document"], module.params["path"]
    sealed = evidence.seal(document)
    if not module.check_mode:
        if path:
            Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            evidence.write(path, document)
        if module.params["login"]:
            from ansible.module_utils.at_most_one.postgres.connection import connect
            from ansible.module_utils.at_most_one.rehearsal import evidence_store

            with connect(login_of(module), **timeouts_of(module)) as connection:
                evidence_store.keep(connection, sealed)
    return {"changed": False, "sha256": sealed["sha256"], "document": sealed}


def main() -> None:
    """Arguments in, core called, result out."""
    login = {"login": {**LOGIN_SPEC["login"], "required": False}}
    run(
        {**LOGIN_SPEC, **login, "document": {"type": "dict", "required": True}, "path": {"type": "path"}},
        act,
        needs_psycopg2=False,
        required_one_of=[("path", "login")],
    )


if __name__ == "__main__":
    main()
