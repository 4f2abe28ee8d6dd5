"""What a command of the documents names has to be there: targets, playbooks, inventories, options, variables, files.

Whoever knows best is asked: make by ``make -n``, ansible-playbook's own parser. Nothing here reaches a host.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.cli.playbook import PlaybookCLI
from ansible.parsing.splitter import parse_kv

from tests.house.command_blocks import ROOT, SOME, Command

# By runs, the lab, make setup, make collection: not in the repository.
MADE = ("artifacts", ".lab", ".venv", "collections", "dist")
COLLECTION = "aedpics.at_most_one."  # its playbooks run with an inventory of the reader's
OWN = "inventories/trial"  # the reader's, as docs/first-day.md makes it


class UsageError(ValueError):
    """Options that ansible-playbook does not take."""


def mistakes(command: Command) -> list[str]:
    """What is wrong with it, one sentence each."""
    if not command.words:
        return []
    program, *arguments = command.words
    found = list(_paths(command.words))
    if program == "make":
        found += _make(command.words)
    elif program == "ansible-playbook":
        found += _playbook(arguments)
    elif Path(program).name == "python":
        found += _python(arguments)
    return found


@cache
def options(arguments: tuple[str, ...]) -> Namespace:
    """As ansible-playbook itself reads them. A span of a sentence may leave the playbook out."""
    cli = PlaybookCLI(["ansible-playbook", *arguments])
    cli.init_parser()

    def refuse(message: str) -> None:
        raise UsageError(message)

    assert cli.parser is not None
    cli.parser.error = refuse  # instead of ending the process
    playbook = any(word.endswith(".yml") or word.startswith(COLLECTION) for word in arguments)
    parsed: Namespace = cli.parser.parse_args(list(arguments) if playbook else [*arguments, "deploy.yml"])
    return parsed


def variables(parsed: Namespace) -> set[str]:
    """The names that ``-e`` sets."""
    names: set[str] = set()
    for given in parsed.extra_vars:
        read = yaml.safe_load(given) if given.startswith(("{", "[")) else parse_kv(given)
        names |= set(read)
    return names


@cache
def known_variables() -> frozenset[str]:
    """Every option of every role, and what all inventories share."""
    specs = [yaml.safe_load(path.read_text()) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    roles = {name for spec in specs for name in spec["argument_specs"]["main"]["options"]}
    return frozenset({*roles, *yaml.safe_load((ROOT / "inventories/all.yml").read_text())})


@cache
def imported(playbook: str) -> frozenset[str]:
    """The front doors behind a front door, and the files that they lead to; itself among them."""
    path = ROOT / playbook
    plays = yaml.safe_load(path.read_text())
    inner = [play["ansible.builtin.import_playbook"] for play in plays if "ansible.builtin.import_playbook" in play]
    paths = [str((path.parent / name).relative_to(ROOT)) for name in inner]
    return frozenset({playbook, Path(playbook).name, *(name for one in paths for name in imported(one))})


@cache
def known_tags(playbook: str) -> frozenset[str]:
    """The tags of a front door's plays, and of those that it imports."""
    paths = [ROOT / name for name in imported(playbook) if name == playbook or "/" in name]
    return frozenset(tag for path in paths for play in yaml.safe_load(path.read_text()) for tag in play.get("tags", []))


def _playbook(arguments: list[str]) -> Iterator[str]:
    try:
        parsed = options(tuple(arguments))
    except UsageError as error:
        yield f"ansible-playbook says: {error}"
        return
    for playbook in parsed.args:
        name = playbook.replace(COLLECTION, "playbooks/") + ".yml" if playbook.startswith(COLLECTION) else playbook
        if not (ROOT / name).is_file():
            yield f"there is no playbook {playbook}"
            return
    (inventory,) = parsed.inventory or ["inventories/production"]  # as ansible.cfg has it
    hosts = ROOT / inventory / "hosts.yml"
    if inventory.endswith(SOME) or inventory == OWN or parsed.args[0].startswith(COLLECTION):
        pass
    elif not hosts.is_file():
        yield f"there is no inventory {inventory}"
    elif parsed.subset not in (None, SOME, *yaml.safe_load(hosts.read_text())):
        yield f"{parsed.subset} is no group of {inventory}"
    for tag in {*",".join([*parsed.tags, *parsed.skip_tags]).split(",")} - {""}:
        # The tags of any front door where the sentence leaves it out.
        playbooks = parsed.args if parsed.args[0] in arguments else [path.name for path in ROOT.glob("*.yml")]
        if not any(tag in known_tags(playbook) for playbook in playbooks if playbook != "requirements.yml"):
            yield f"{', '.join(playbooks)} has no tag {tag}"
    for name in sorted(variables(parsed) - known_variables()):
        yield f"no role knows the variable {name}"


def _make(words: tuple[str, ...]) -> Iterator[str]:
    """``make -n`` runs nothing: it says what it would run, and fails where there is no such target."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", *words[1:]], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        yield done.stderr.strip()
    makefile = (ROOT / "Makefile").read_text()
    for name in [word.partition("=")[0] for word in words if "=" in word]:
        if not re.search(rf"\$\({name}\)|^{name} \?=|{name}=", makefile, re.MULTILINE):
            yield f"the Makefile knows no {name}"


def environment() -> dict[str, str]:
    """Without what a make above has handed down: its flags would be ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def _python(arguments: list[str]) -> Iterator[str]:
    """A module or a script that is there and knows the options."""
    if arguments[:1] == ["-m"]:
        found = importlib.util.find_spec(arguments[1]) if arguments[1].partition(".")[0] in os.listdir(ROOT) else None
        path = Path(found.origin) if found and found.origin else None
        if path is None:
            yield f"there is no module {arguments[1]}"
    else:
        path = ROOT / arguments[0]  # that it is there is said of every path
    if path and path.is_file():
        for option in [word.partition("=")[0] for word in arguments if word.startswith("--")]:
            if f'"{option}"' not in path.read_text():
                yield f"{path.relative_to(ROOT)} has no option {option}"


def _paths(words: tuple[str, ...]) -> Iterator[str]:
    """Paths of the repository: what begins with one of its directories, and what has the ending of a script."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir()} - set(MADE)
    for word in words:
        path = word.rpartition("=")[2] if word.startswith("-") else word
        ours = ("/" in path and path.partition("/")[0] in top) or path.endswith(".py")
        if ours and SOME not in path and not path.startswith(OWN) and not (ROOT / path).exists():
            yield f"there is no {path}"


def target(command: Command) -> tuple[str, ...]:
    """Playbooks, inventory and limit of a command of ansible-playbook."""
    parsed = options(command.words[1:])
    return (*parsed.args, *(parsed.inventory or []), str(parsed.subset))


def syntax_checked(command: Command) -> tuple[int, str]:
    """The command as it is written, with ``--syntax-check``: it parses, also against the inventory, and ends."""
    words = [str(ROOT / ".venv/bin/ansible-playbook"), *command.words[1:], "--syntax-check"]
    environment: dict[str, Any] = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
    environment.pop("ANSIBLE_VAULT_PASSWORD_FILE", None)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
