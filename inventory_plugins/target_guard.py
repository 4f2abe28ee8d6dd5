"""Give an inventory the values that all environments share, and refuse a --limit that names nothing in it."""

from __future__ import annotations

DOCUMENTATION = """
name: target_guard
short_description: Share the common values, and refuse a limit that matches no host or group with the right command
description:
  - Gives the group C(all) the values of C(inventories/all.yml) of this project, wherever the inventory itself stands. A
    value that the inventory or its C(group_vars) set has precedence.
  - Ansible answers a mistyped C(--limit) with one line that does not say what would have been right, and a pattern that
    matches nothing can even end with exit code 0. This source adds no host. It reads the limit of the command line and
    compares each of its names with the hosts and groups that the sources before it (C(hosts.yml)) have defined. A name
    of another environment in C(inventories/) is answered with that environment, in the C(report_language) of the
    command line or of the common values.
options:
  plugin:
    description: Always V(target_guard), with the collection's name in front of it where that is installed.
    required: true
"""

EXAMPLES = """
# inventories/production/target.guard, read after hosts.yml: the sources of a directory are read in order of their names
plugin: target_guard
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import ExitCode
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import load_extra_vars

sys.path.insert(0, str(Path(__file__).parents[1] / "module_utils"))
from at_most_one import catalogue
from at_most_one.display.translations import WORDS
from at_most_one.findings import Finding, either, observed, say
from at_most_one.preflight.inputs import GUARDS
from at_most_one.system import command_line, project

PLAIN_NAME = re.compile(r"[\w.-]+")


class InventoryModule(BaseInventoryPlugin):
    """An inventory source without hosts."""

    NAME = "target_guard"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and Path(path).name in GUARDS

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        common = dict(loader.load_from_file(str(project.home() / "inventories/all.yml"), trusted_as_template=True))
        if project.COLLECTION:
            common["at_most_one_project"] = str(project.base())
        for name, value in common.items():
            if name not in inventory.groups["all"].vars:  # hosts.yml may set it
                inventory.set_variable("all", name, value)
        limit = context.CLIARGS.get("subset") or ""
        # A pattern with wildcards, ranges or a file is Ansible's business; a plain name is either there or a mistake.
        names = [name.strip().lstrip("!&") for name in limit.replace(":", ",").split(",")]
        known = {*inventory.groups, *inventory.hosts}
        # Beside a real target localhost is harmless (Molecule's own plays run there); alone it would match no play.
        allowed = known | {"localhost"} if known.intersection(names) else known
        unknown = [name for name in names if PLAIN_NAME.fullmatch(name) and name not in allowed]
        if unknown:
            groups = sorted(set(inventory.groups) - {"all", "ungrouped"})
            # An exception here is shown three times, with the plugin's name and its source between.
            found = _refusal(limit, unknown, groups, Path(path).parent)
            given = load_extra_vars(loader).get("report_language")
            self.display.error(
                _in_words(found, str(given or inventory.groups["all"].vars.get("report_language"))), wrap_text=False
            )
            sys.exit(ExitCode.PARSER_ERROR)


def _in_words(found: Finding, language: str) -> str:
    """Three lines, as the callback has them for what fails later. A host's own language is not known yet."""
    shown, words = catalogue.shown(found, language), WORDS["ko" if language == "ko" else "en"]
    return (
        f"{shown['seen']}   {shown['identifier']}"
        f"\n  {words['expected']} {shown['expected']}\n  {words['next']} {shown['next_step']}"
    )


def _refusal(limit: str, unknown: list[str], groups: list[str], directory: Path) -> Finding:
    """Say what was typed and the command that was probably meant: never one for an environment that was not typed."""
    place = command_line.inventory(str(directory), str(project.base()))
    names = ", ".join(unknown)
    environments = dict(_environments())
    if place in environments.values():  # one of this project's own
        near = difflib.get_close_matches(unknown[0], environments, n=1)
        target = (environments[near[0]], near[0]) if near else None
    else:
        near = difflib.get_close_matches(unknown[0], groups, n=1)
        target = (place, near[0]) if near else None
    command = ""
    if target:
        options = {**context.CLIARGS, "inventory": [str(project.base() / target[0])], "subset": target[1]}
        playbook = os.path.basename((context.CLIARGS.get("args") or ["deploy.yml"])[0])
        command = command_line.command(playbook, options, str(project.base()))
    return Finding(
        "limit",
        observed(
            "AMO-1036",
            "--limit {limit}: {names} is neither a host nor a group of {place}.",
            limit=limit,
            names=names,
            place=place,
        ),
        (
            say("{group} of {inventory}.", group=target[1], inventory=target[0])
            if target
            else say("{groups}; every environment has an inventory of its own.", groups=either(groups))
        ),
        (
            say(
                "the same command with one of {inventories}",
                inventories=", ".join(f"-i {place} -l {name}" for name, place in environments.items()),
            )
            if not target
            else command
        ),
    )


def _environments() -> Iterator[tuple[str, str]]:
    """The groups of the inventories of this project, each with its inventory."""
    for path in sorted(project.base().glob("inventories/*/hosts.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8")):
            yield group, str(path.parent.relative_to(project.base()))
