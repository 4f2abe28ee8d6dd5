"""Every command of the documents is run by a test, or its block says why not; and what it names is there."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from tests.house.command_blocks import ROOT, SOME, Block, Command, blocks, pages, spans
from tests.house.command_checks import COLLECTION, OWN, mistakes, syntax_checked, target
from tests.house.command_proofs import PROVEN, SHELL, TYPED, faults, key, recipe, typing_faults, uncovered

TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in pages()}
BLOCKS = {page: blocks(page, text) for page, text in TEXTS.items()}
COMMANDS = [command for block in chain(*BLOCKS.values()) for command in block.commands]
ENOUGH_WORDS = 5


def unreasoned(block: Block) -> list[str]:
    """Commands of a block that nobody runs although it is not marked; or a mark that says too little, or is old."""
    nobody = uncovered(block)
    if block.reason is None:
        return [f"{command} is run by no test, and nothing says why" for command in nobody]
    if not nobody:
        return [f"{block.place} is marked as not run, and all of it is"]
    if len(block.reason.split()) < ENOUGH_WORDS or not block.reason.endswith("."):
        return [f"{block.place}: {block.reason!r} is no reason: it is shorter than a sentence"]
    return []


def test_every_block_is_run_by_a_test_or_says_why_not() -> None:
    assert [fault for block in chain(*BLOCKS.values()) for fault in unreasoned(block)] == []


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_command_names_is_there(page: str) -> None:
    """Also of those that are marked, and of those within sentences."""
    commands = [*(command for block in BLOCKS[page] for command in block.commands), *spans(page, TEXTS[page])]
    assert [f"{command}: {mistake}" for command in commands for mistake in mistakes(command)] == []


@pytest.mark.parametrize("wanted", PROVEN, ids=str)
def test_a_test_runs_it(wanted: str) -> None:
    assert faults(wanted, PROVEN[wanted]) == []


@pytest.mark.parametrize("page", TYPED)
def test_a_test_types_in_the_sql(page: str) -> None:
    assert typing_faults(page, TYPED[page]) == []
    assert any(block.label == "sql" for block in BLOCKS[page]), "or the line in TYPED is old"


def test_no_proof_is_for_a_command_that_no_document_has() -> None:
    """The parts of `make demo` stand in the Makefile."""
    known = {key(command) for command in [*COMMANDS, *recipe("demo", {"lab-up"})] if command.words}
    assert set(PROVEN) - known == set()


def test_every_playbook_parses_against_its_inventory() -> None:
    """--syntax-check reaches no host. Of the commands that differ in options only, which the test above has read, the
    longest."""
    longest: dict[tuple[str, ...], Command] = {}
    for command in sorted(COMMANDS, key=lambda command: len(command.words)):
        own = {OWN, f"inventories/{SOME}"} & {*command.words}
        if command.words[:1] == ("ansible-playbook",) and not own and COLLECTION not in command.text:
            longest[target(command)] = command
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = dict(zip(longest.values(), pool.map(syntax_checked, longest.values()), strict=True))
    assert {str(command): output for command, (code, output) in done.items() if code} == {}
    assert {playbook for playbook, *_ in longest} >= {
        "deploy.yml",
        "rehearse.yml",
        "rollback.yml",
        "watch.yml",
        "monitor.yml",
        "purge.yml",
    }


@pytest.mark.parametrize(
    "block", [block for block in chain(*BLOCKS.values()) if not block.reason], ids=lambda b: b.place
)
def test_what_changes_the_shell_is_typed_into_one(block: Block) -> None:
    typed = [command for command in block.commands if command.words and command.words[0] in SHELL]
    if not typed:
        return
    lines = [line.removeprefix("$ ") for line in block.content.splitlines()]
    script = "\n".join(line for line in lines if line.split(maxsplit=1)[0] in SHELL)
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/home/of/somebody"}
    command = ["bash", "-eu", "-c", f"{script}\ntype -P ansible-playbook; printenv ANSIBLE_VAULT_PASSWORD_FILE"]
    seen = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert seen.splitlines() == [str(ROOT / ".venv/bin/ansible-playbook"), "/home/of/somebody/.vault-password"]


def test_both_readmes_have_the_same_commands() -> None:
    english, korean = (
        [command.text for block in BLOCKS[page] for command in block.commands] for page in ("README.md", "README.ko.md")
    )
    assert english == korean


def test_the_commands_are_of_no_other_kind() -> None:
    """A new document that has commands of a kind that nothing here knows is not passed over in silence."""
    assert all(isinstance(command, Command) and (command.words or command.environment) for command in COMMANDS)
    assert {block.label for block in chain(*BLOCKS.values())} == {"console", "sql"}
