"""Filters that name the commands of this run's messages and reports, as they can be copied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible import context
from jinja2 import pass_context

sys.path.insert(0, str(Path(__file__).parents[1] / "module_utils"))
from at_most_one.system import command_line, project


def command(
    playbook: str,
    limit: str | None = None,
    without: Sequence[str] = (),
    vault: bool = False,
    inventory: str | None = None,
) -> str:
    """``'rollback.yml' | at_most_one_command``: the command with this run's inventory, limit and ``-e`` values.

    Secrets are left out, and the variables in ``without``. With ``vault`` it asks for the vault's password, unless this
    run was told where that is. ``inventory`` replaces the one that was given.
    """
    options = dict(context.CLIARGS)
    options["inventory"] = [inventory] if inventory else options.get("inventory")
    options["ask_vault_pass"] = options.get("ask_vault_pass") or (
        vault and not options.get("vault_ids") and not options.get("vault_password_files")
    )
    return command_line.command(playbook, options, str(project.base()), limit=limit, without=without)


def fill(value: Any) -> Any:
    """A module's messages with ``ansible-playbook <playbook> -l <environment>`` as this run has it, however nested."""
    return command_line.filled(value, context.CLIARGS, str(project.base()))


def is_given(name: str) -> bool:
    """Whether ``-e`` sets this variable, in place of what the inventory says."""
    return name in command_line.given_names(context.CLIARGS)


def inventory(path: str) -> str:
    """An inventory's path (``inventory_dir``) relative to the project inside of it, absolute elsewhere."""
    return command_line.inventory(path, str(project.base()))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {
            "at_most_one_command": pass_context(command_line.of_tenant(command)),
            "at_most_one_fill_commands": pass_context(command_line.of_tenant(fill)),
            "at_most_one_inventory": inventory,
            "at_most_one_is_given": is_given,
            "at_most_one_playbook": project.playbook,
        }
