"""Refuse a --limit that names nothing, before Ansible shrugs at it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = """
name: target_guard
short_description: Refuse a limit that matches no host or group, and show the right command
description:
  - Ansible answers a mistyped C(--limit) with one line that does not say what would have been right, and a pattern that
    matches nothing can even end with exit code 0. This source adds no host. It reads the limit of the command line and
    compares each of its names with the hosts and groups that the sources before it (C(hosts.yml)) have defined.
options:
  plugin:
    description: Always V(target_guard).
    required: true
    choices: [target_guard]
"""

EXAMPLES = """
# inventories/production/target.guard, read after hosts.yml: the sources of a directory are read in order of their names
plugin: target_guard
"""

PLAIN_NAME = re.compile(r"[\w.-]+")


class InventoryModule(BaseInventoryPlugin):
    """An inventory source that only checks."""

    NAME = "target_guard"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and Path(path).name == "target.guard"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        limit = context.CLIARGS.get("subset") or ""
        # A pattern with wildcards, ranges or a file is Ansible's business; a plain name is either there or a mistake.
        names = [name.strip().lstrip("!&") for name in limit.replace(":", ",").split(",")]
        known = {*inventory.groups, *inventory.hosts}
        # Beside a real target localhost is harmless (Molecule's own plays run there); alone it would match no play.
        allowed = known | {"localhost"} if known.intersection(names) else known
        unknown = [name for name in names if PLAIN_NAME.fullmatch(name) and name not in allowed]
        if unknown:
            folder = Path(path).parent
            groups = sorted(set(inventory.groups) - {"all", "ungrouped"})
            raise AnsibleParserError(
                f"--limit {limit}: {', '.join(unknown)} is neither a host nor a group of {folder.name}. "
                f"Expected: {' or '.join(groups)}. "
                f"Next: the same command with -i inventories/{folder.name} -l {groups[0] if groups else folder.name}"
            )
