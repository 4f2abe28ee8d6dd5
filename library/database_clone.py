#!/usr/bin/python
"""Ansible module: replace the database of a rehearsal's environment by a masked copy of another one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_clone
short_description: Put a masked copy of another database in the place of this one
description:
  - Copies a live database, a dump file or a template database into a database beside the one of O(login), to which only
    its owner may connect. There the masked columns are replaced, and it is checked that they are; materialized views
    are written anew, and all other texts are searched for a sample of the masked values. Then it takes the name, the
    rights, the settings and the limits of the database of O(login), B(which is dropped), its journal included.
  - The source is only read. Journal and archive of the source (schema C(at_most_one)) are left out.
  - The copy has no login to a foreign server, so that nothing that is tried on it is written elsewhere.
  - The INVALID indexes of the source are returned, because a dump does not have them.
  - When it fails, the database of O(login) is as it was.
options:
  source_login:
    description: A live database to copy with C(pg_dump). The same suboptions as O(login).
    type: dict
    suboptions:
      host: {description: Host name or address of the server., type: str, required: true}
      port: {description: TCP port of the server., type: int, default: 5432}
      dbname: {description: Name of the database., type: str, required: true}
      user: {description: "A role that may read every table.", type: str, required: true}
      password: {description: Password of the role., type: str, required: true}
      sslmode:
        description: How much the connection insists on TLS, as libpq understands it.
        type: str
        default: prefer
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert: {description: "The authority's certificate, as in M(deploy_run).", type: str, default: ""}
      sslcert: {description: "Our certificate, as in M(deploy_run).", type: str, default: ""}
      sslkey: {description: "Its key, as in M(deploy_run).", type: str, default: ""}
  source_dump:
    description: A dump in custom, directory or tar format, on the host that this module runs on.
    type: path
  source_template:
    description: A database of the same server that nobody is connected to; it is copied file by file.
    type: str
  masked_columns:
    description:
      - The columns that nobody may read, each with C(column) (schema.table.column) and C(how), which is C(hash) (the
        default; different values stay different), C(null), or C(text) with the C(text) that all become.
      - C(unless), a column and a list of its values, names rows that stay, such as the accounts of the health checks.
    type: list
    elements: dict
    default: []
  readable_columns:
    description: "Columns (schema.table.column) that may hold values which are masked elsewhere: they are not searched."
    type: list
    elements: str
    default: []
  accepted_extensions:
    description:
      - Extensions of the source that the copy may have although they call other servers or start jobs by themselves,
        such as C(dblink) and C(pg_cron); without their names here such a source is refused.
    type: list
    elements: str
    default: []
  environment:
    description: The environment whose database is replaced. One that another environment was deployed into is refused.
    type: str
    default: ""
  maintenance_database:
    description: Where to connect to while the database itself is replaced.
    type: str
    default: postgres
  environment_path:
    description: Directories to search for C(pg_dump) and C(pg_restore) before E(PATH).
    type: str
    default: ""
extends_documentation_fragment:
  - at_most_one.login
attributes:
  check_mode:
    support: full
    description: Reads the source and the list, and changes nothing.
  diff_mode:
    support: none
    description: The rows are what nobody may see.
author:
  - the at-most-one maintainers (@at-most-one)
"""

EXAMPLES = r"""
- name: Rehearse on a masked copy of production's data
  database_clone:
    login: "{{ database_login }}"
    source_login: "{{ rehearsal_source_login }}"
    masked_columns:
      - {column: aedpics.user_profiles.email, unless: {email: [checks@example.org]}}
      - {column: aedpics.user_profiles.full_name, how: text, text: somebody}
"""

RETURN = r"""
source:
  description: What was copied, without a password.
  returned: success
  type: str
  sample: reader@db.example.org:5432/aedpics_production
masked:
  description: Rows whose value was replaced, by column; in check mode none.
  returned: success
  type: dict
  sample: {aedpics.user_profiles.email: 412}
invalid_indexes:
  description: The INVALID indexes of the source; null for a dump, which cannot say.
  returned: success
  type: list
  elements: str
  sample: [aedpics.idx_old on inspection_sessions]
searched:
  description: How many of the masked C(values) were looked for in how many other C(columns); none was found.
  returned: success, unless in check mode
  type: dict
  sample: {values: 40, columns: 118}
left_out:
  description: Event triggers of the source and settings of the target that only a superuser may give to the copy.
  returned: success, unless in check mode
  type: list
  elements: str
  sample: [event trigger audit_ddl, setting log_statement]
cut_off:
  description: Logins of the source to foreign servers, which the copy does not have.
  returned: success, unless in check mode
  type: list
  elements: str
  sample: [PUBLIC at billing]
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.at_most_one_entry import LOGIN_SPEC, login_of, run
from ansible.module_utils.basic import AnsibleModule


def act(module: AnsibleModule) -> dict[str, Any]:
    """Clone, or in check mode look."""
    from ansible.module_utils.at_most_one.postgres.connection import Login
    from ansible.module_utils.at_most_one.rehearsal import clone, masking

    given, target = module.params, login_of(module)
    source = clone.Source(
        login=Login(**given["source_login"]) if given["source_login"] else None,
        dump=given["source_dump"] or "",
        template=given["source_template"] or "",
    )
    masks, accepted = masking.parse(given["masked_columns"]), given["accepted_extensions"]
    if given["environment"]:
        clone.require_own(target, given["environment"])
    if module.check_mode:
        invalid = clone.look(target, source, accepted)
        return {"changed": True, "source": source.name, "masked": {}, "invalid_indexes": invalid}
    made = clone.make(
        target,
        source,
        masks,
        maintenance=given["maintenance_database"],
        search_path=given["environment_path"],
        readable=given["readable_columns"],
        accepted=accepted,
    )
    return {"changed": True, **asdict(made)}


def main() -> None:
    """Arguments in, core called, result out."""
    run(
        {
            **LOGIN_SPEC,
            "source_login": {**LOGIN_SPEC["login"], "required": False},
            "source_dump": {"type": "path"},
            "source_template": {"type": "str"},
            "masked_columns": {"type": "list", "elements": "dict", "default": []},
            "readable_columns": {"type": "list", "elements": "str", "default": []},
            "accepted_extensions": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "str", "default": ""},
            "maintenance_database": {"type": "str", "default": "postgres"},
            "environment_path": {"type": "str", "default": ""},
        },
        act,
        required_one_of=[("source_login", "source_dump", "source_template")],
        mutually_exclusive=[("source_login", "source_dump", "source_template")],
    )


if __name__ == "__main__":
    main()
