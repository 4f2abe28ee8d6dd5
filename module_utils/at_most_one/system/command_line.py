"""Build the ansible-playbook command that an error message or a report offers to copy.

Only the control node calls this: it needs the options with which ansible-playbook was started.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import yaml

from . import project as projects
from .redaction import redact

# Modules run where nobody knows the inventory: their messages carry this placeholder. See fill().
PLACEHOLDER = "-l <environment>"

_SECRET_NAME = re.compile(
    r"(?i)password|passwd|passphrase|secret|token|credential|api_?key|private_key|cookie|vault|webhook|slack_url"
)
# These allow something once. A command to copy must not allow it again.
_ONCE = {"run_takeover"}
# What one playbook is asked, and no other one reads.
_OF_ONE = {
    "control_action": "control.yml",
    **dict.fromkeys(("tenants_action", "tenants_on_failure", "tenants_schemas"), "tenants.yml"),
}

# The plan of one tenant, about which a command of tenants.yml is at the moment: its options name all of them.
_tenant: ContextVar[str] = ContextVar("tenant", default="")


@contextlib.contextmanager
def about(plan: str) -> Iterator[None]:
    """Have every command in the block name this plan where it is one of a tenant, ``<plan>@<tenant>``."""
    token = _tenant.set(plan if plan.partition("@")[2] else "")
    try:
        yield
    finally:
        _tenant.reset(token)


def tenant_plan(plan: object, tenant: object) -> str:
    """The name of the plan of a tenant of ``plan``, which may name it already."""
    return f"{str(plan).partition('@')[0]}@{tenant}"


def of_tenant(tell: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that has the variables of its template in front: its commands are about the tenant that they name."""

    @functools.wraps(tell)
    def within(variables: Mapping[str, Any], *given: Any, **named: Any) -> Any:
        tenant = variables.get("plan_tenant")
        with about(tenant_plan(variables.get("plan"), tenant) if tenant else ""):
            return tell(*given, **named)

    return within


def command(
    playbook: str,
    options: Mapping[str, Any],
    project: str,
    *,
    limit: str | None = None,
    without: Collection[str] = (),
) -> str:
    """Return ``ansible-playbook <playbook>`` with the inventory, the limit and the ``-e`` values of this run.

    ``options`` are those of ansible-playbook, as ``ansible.context.CLIARGS`` has them. ``limit`` replaces their limit.
    A value that is or may be a secret is left out, and the variables ``without`` which the command is to run. The tags
    are repeated for the playbook that was started with them. What tenants.yml has begun is repeated by tenants.yml,
    which does what is left; what else it names is about the one tenant, within :func:`about`.
    """
    started = [os.path.basename(name) for name in options.get("args") or ()]
    others = {name for name, of_one in _OF_ONE.items() if of_one != playbook}
    tenant = _tenant.get()
    if playbook == "deploy.yml" and started == [projects.playbook("tenants.yml")]:
        playbook, others = "tenants.yml", {"control_action", "tenants_action"}
    if playbook == "tenants.yml":
        tenant = ""
    playbook = projects.playbook(playbook)
    words = ["ansible-playbook", playbook, *_target(options, project, limit)]
    named = ["-e", f"plan={tenant}"] if tenant and "plan" not in without else []
    words += [*_extra(options, {*without, *others, *(("plan",) if tenant else ())}), *named, *_vault(options)]
    if started == [playbook]:
        for option, name in (("--tags", "tags"), ("--skip-tags", "skip_tags")):
            tags = [tag for tag in options.get(name) or () if tag != "all"]
            words += [option, ",".join(tags)] if tags else []
    return shlex.join(words)


def fill(text: str, options: Mapping[str, Any], project: str) -> str:
    """Replace the placeholder of each command in a module's message by this run's inventory, limit and values.

    Behind the placeholder ``without NAME`` leaves one of the values out. A command that names its own inventory gets
    the playbook's name in an installed collection.
    """
    filled = re.sub(
        rf"ansible-playbook ([\w-]+\.yml) {re.escape(PLACEHOLDER)}(?: without (\w+))?",
        lambda found: command(found[1], options, project, without=found.groups("")[1:]),
        text,
    )
    return re.sub(r"(?<=ansible-playbook )[\w-]+\.yml", lambda found: projects.playbook(found[0]), filled)


def filled(value: Any, options: Mapping[str, Any], project: str) -> Any:
    """The same for every text of ``value``, however nested."""
    if isinstance(value, str):
        return fill(value, options, project)
    if isinstance(value, Mapping):
        return {key: filled(item, options, project) for key, item in value.items()}
    return [filled(item, options, project) for item in value] if isinstance(value, Sequence) else value


def given_names(options: Mapping[str, Any]) -> set[str]:
    """The variables that ``-e`` sets, without those of files."""
    names: set[str] = set()
    for given in map(str, options.get("extra_vars") or ()):
        if given.startswith(("{", "[")):
            names.update(yaml.safe_load(given))
        elif not given.startswith("@"):
            names.update(name for name, _ in _pairs(given))
    return names


def inventory(path: str, project: str) -> str:
    """Return an inventory as a person names it: relative to the project inside of it, absolute elsewhere."""
    if "," in path and not os.path.exists(path):
        return path  # a list of hosts
    absolute = os.path.abspath(path)
    inside = os.path.relpath(absolute, project)
    return absolute if inside.startswith(os.pardir) else inside


def _target(options: Mapping[str, Any], project: str, limit: str | None) -> Iterator[str]:
    for path in options.get("inventory") or ():
        yield from ("-i", inventory(str(path), project))
    limit = limit or options.get("subset")
    if limit:
        yield from ("-l", limit)


def _extra(options: Mapping[str, Any], without: Collection[str]) -> Iterator[str]:
    for given in map(str, options.get("extra_vars") or ()):
        if given.startswith("@"):
            yield from ("-e", given)  # the file's name says nothing of its values
        elif given.startswith(("{", "[")):
            values = yaml.safe_load(given)
            kept = {name: value for name, value in values.items() if _may_be_shown(name, value, without)}
            if kept:
                yield from ("-e", json.dumps(kept, ensure_ascii=False))
        else:
            for name, value in _pairs(given):
                if _may_be_shown(name, value, without):
                    plain = f"{name}={value}"
                    simple = not re.search(r"[\s'\"\\]", plain)  # Ansible splits the text once more, after the shell
                    yield from ("-e", plain if simple else json.dumps({name: value}, ensure_ascii=False))


def _pairs(given: str) -> list[tuple[str, str]]:
    words = [word.partition("=") for word in shlex.split(given)]
    return [(name, value) for name, equals, value in words if equals]


def _may_be_shown(name: str, value: Any, without: Collection[str] = ()) -> bool:
    if name in _ONCE or name in without or _SECRET_NAME.search(name):
        return False
    if isinstance(value, Mapping):
        return all(_may_be_shown(str(inner), item) for inner, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_may_be_shown("", item) for item in value)
    lines = "\n".join([*str(value).splitlines(), "."])  # the point keeps empty lines at the end
    return redact(lines) == lines


def _vault(options: Mapping[str, Any]) -> Iterator[str]:
    """The options that decrypt the vault: without them the command could not read the inventory's secrets."""
    if options.get("ask_vault_pass"):
        yield "--ask-vault-pass"
    for name in options.get("vault_ids") or ():
        yield from ("--vault-id", str(name))
    for path in options.get("vault_password_files") or ():
        yield from ("--vault-password-file", str(path))
