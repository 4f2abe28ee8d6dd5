"""Which test runs a command of the documents, and that it still does: its calls are read, not its name believed."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from tests.house.command_blocks import ROOT, SOME, STATEMENTS, Block, Command, commands_of
from tests.house.command_checks import MADE, environment, imported, options, variables

# A command without what differs from place to place (see key), and the tests that run it. The first runs it in the same
# mode: the same --check, --diff and --tags. The others run it, or a playbook that it imports, with the variables that
# the first leaves out.
DEPLOYED = "tests/deploy/test_deployment.py::test_reports_what_it_did"
WATCHED = "tests/deploy/test_people.py::test_a_deployment_is_told_and_watched"
ANSWERED = "tests/deploy/test_refusals.py::test_answered_gates_let_the_run_go_on_and_the_reason_is_in_the_journal"
REHEARSED = "tests/deploy/test_rehearsal.py::test_forward_back_forward_leaves_a_deployed_environment_and_evidence"
EVIDENCE = (
    "tests/deploy/test_rehearsal.py::test_with_evidence_it_deploys_says_the_rehearsed_times_first_and_keeps_the_digest"
)
BARE = "tests/database/test_bare_database.py::test_from_duplicates_to_verified_and_back_without_node"
PURGED = "tests/database/test_purge_playbook.py::test_it_lists_then_removes_what_is_confirmed_and_then_nothing"
CONTROLLED = "tests/database/test_control_playbook.py::test_it_shows_asks_and_lifts_and_a_second_time_changes_nothing"
HELD = "tests/deploy/test_run_control.py::test_a_deployment_waits_before_the_cutover_until_somebody_continues_it"
ALL_GATES = "-e prepare_backup_taken_at= -e prepare_notice_from= -e prepare_notice_sent="
PROVEN: dict[str, tuple[str, ...]] = {
    "deploy.yml": (DEPLOYED,),
    "deploy.yml --check --diff": ("tests/deploy/test_check_mode.py::test_shows_everything_and_changes_nothing",),
    f"deploy.yml {ALL_GATES}": (DEPLOYED, ANSWERED),
    f"deploy.yml {ALL_GATES} -e watch_minutes=": (WATCHED, ANSWERED),
    "deploy.yml -e watch_minutes=": (WATCHED,),
    "deploy.yml -e prepare_gates=": (DEPLOYED, EVIDENCE),
    "rehearse.yml": (REHEARSED,),
    "rehearse.yml -e prepare_backup_taken_at=": (REHEARSED, ANSWERED),
    "rehearse.yml --check": ("tests/deploy/test_rehearsal.py::test_check_says_what_would_be_rehearsed",),
    "rollback.yml": ("tests/deploy/test_rollback.py::test_forward_back_forward",),
    "rollback.yml --check": (
        "tests/deploy/test_automatic_rollback.py"
        "::test_single_phases_take_nothing_back_and_the_preflight_shows_what_rollback_yml_would",
    ),
    "watch.yml": ("tests/deploy/test_people.py::test_the_watch_finds_a_duplicate_and_takes_the_deployment_back",),
    "monitor.yml": (
        "tests/deploy/test_people.py::test_the_monitor_speaks_once_of_what_is_new_and_once_when_it_is_over",
    ),
    **dict.fromkeys(["control.yml", "control.yml -e control_action="], (CONTROLLED,)),
    "deploy.yml -e run_hold_before=": (HELD,),
    **dict.fromkeys(
        [
            "new_service.yml -e new_service_adapter= -e new_service_name=",
            "deploy.yml --check --diff -e plan=",
            "deploy.yml -e plan= -e prepare_backup_taken_at=",
            "monitor.yml -e plan=",
            "rollback.yml -e plan=",
        ],
        (BARE,),
    ),
    **dict.fromkeys(["purge.yml", "purge.yml -e purge_confirmed="], (PURGED,)),
    **dict.fromkeys(
        ["discover.yml", "discover.yml -e discover_choice= -e discover_plan_id="],
        ("tests/database/test_discover_role.py::test_it_shows_and_with_a_choice_writes_what_the_plans_reader_accepts",),
    ),
    **dict.fromkeys(
        [
            "monitor.yml --tags schedule -e monitor_schedule_vault_password_file=",
            "monitor.yml --tags schedule -e monitor_schedule_state=",
        ],
        ("tests/notify/test_schedule.py::test_cron_starts_it_and_it_goes_as_it_came",),
    ),
    "make lab-staging": (REHEARSED,),
    "python scripts/demo_summary.py": ("tests/house/test_demo_summary.py::test_it_says_what_the_report_has",),
    **dict.fromkeys(
        ["pg_restore --list", "pg_restore --data-only --table=inspection_sessions --file=-"],
        ("tests/database/test_backup.py::test_the_module_says_what_it_made",),
    ),
}
# Pages whose SQL a test types in, all of it.
TYPED: dict[str, str] = {
    "docs/recover-by-hand.md": (
        "tests/database/test_by_hand.py::test_the_page_brings_everything_back_and_may_be_typed_twice"
    ),
    "docs/prisma-history.md": "tests/database/test_by_hand.py::test_a_migration_is_marked_by_hand",
}
# Targets that are no more than what they depend on and a few commands; each of those is proven by itself.
SUMS = {"make demo"}
SHELL = {".", "export"}  # changes the shell it is typed into: run by the tests of the blocks themselves

Scope = dict[str, list[ast.expr]]


@dataclass(frozen=True)
class Definition:
    """A function or a variable of a module of the tests."""

    path: Path
    node: ast.stmt


def key(command: Command) -> str:
    """What has to be the same: of a playbook its name, mode and variables; of others every word but the places."""
    program, *words = command.words
    if program.rpartition("/")[2] != "ansible-playbook":
        kept = [word for word in words if SOME not in word and word.partition("/")[0] not in MADE]
        return " ".join([program.rpartition("/")[2], *kept])
    parsed = options(tuple(words))
    mode = [*(["--check"] if parsed.check else []), *(["--diff"] if parsed.diff else [])]
    tags = [f"--tags {tag}" for tag in parsed.tags]
    return " ".join([*parsed.args, *mode, *tags, *(f"-e {name}=" for name in sorted(variables(parsed)))])


def uncovered(block: Block, proven: dict[str, tuple[str, ...]] = PROVEN, typed: dict[str, str] = TYPED) -> list[str]:
    """The commands of a block that no test runs."""
    if block.label in STATEMENTS:
        return [] if block.page in typed else [f"{block.place}: the SQL"]
    return [str(command) for command in block.commands if not _covered(command, proven)]


def _covered(command: Command, proven: dict[str, tuple[str, ...]]) -> bool:
    if not command.words:
        return False
    if command.words[0] in SHELL:
        return True
    if command.words[0] == "make" and command.words[1:] and command.words[1] in run_by_ci():
        return True
    if key(command) in SUMS:
        target = command.words[1]
        before = prerequisites()[target]
        lines = recipe(target, before)
        return bool(lines) and before <= run_by_ci() and all(_covered(line, proven) for line in lines)
    return key(command) in proven


@cache
def prerequisites() -> dict[str, set[str]]:
    """Each target of the Makefile, and the targets by name that it depends on or makes as suites."""
    text = (ROOT / "Makefile").read_text()
    suites = dict(re.findall(r"^([A-Z_]+) := ([a-z -]+)$", text, re.MULTILINE))
    made = r'(?:\n\t.*scripts/run_suites\.sh "\$\(([A-Z_]+)\)" "\$\(([A-Z_]+)\)")?'
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)([^#\n]*)(?:#[^\n]*)?" + made, text, re.MULTILINE)
    return {
        name: set(re.findall(r"(?<!\S)[a-z-]+(?!\S)", " ".join([needs, *(suites.get(one, "") for one in made)])))
        for names, needs, *made in rules
        for name in names.split()
    }


@cache
def run_by_ci() -> frozenset[str]:
    """The targets that .ci/run and the workflow of the night make, and what they depend on."""
    wanted = set(re.findall(r"^exec make ([a-z-]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    wanted |= set(re.findall(r"target: ([a-z-]+)", (ROOT / ".github/workflows/night.yml").read_text()))
    while more := {need for target in wanted for need in prerequisites()[target]} - wanted:
        wanted |= more
    return frozenset(wanted)


def recipe(target: str, done: set[str]) -> list[Command]:
    """What make would run for a target alone, were its prerequisites ``done``."""
    command = ["make", "--no-print-directory", "-n", target, *(word for name in sorted(done) for word in ("-o", name))]
    shown = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout
    return [command for line in shown.splitlines() for command in commands_of(line, "Makefile", 0)]


def faults(wanted: str, tests: tuple[str, ...]) -> list[str]:
    """Why these tests do not prove the command."""
    found = [fault for test in tests for fault in _of_ci(test)]
    if found:
        return found
    parsed = options(tuple(wanted.split())) if wanted.partition(" ")[0].endswith(".yml") else None
    if parsed is None:
        if not any(set(wanted.split()) <= {_name(word) for word in words if word} for words in calls(tests[0])):
            return [f"{tests[0]} does not call {wanted}"]
        return []
    (playbook,) = parsed.args
    mode = (parsed.check, parsed.diff, parsed.tags)
    if not any(_mode(words, playbook) == mode for words in calls(tests[0])):
        found.append(f"{tests[0]} does not run {playbook} in the mode of {wanted}")
    either = {playbook, *imported(playbook)}
    found += [f"{test} does not run {playbook}" for test in tests if not any(either & set(one) for one in calls(test))]
    missing = variables(parsed) - {name for test in tests for name in _names(test)}
    return found + [f"{', '.join(tests)} sets no {name}" for name in sorted(missing)]


def typing_faults(page: str, test: str) -> list[str]:
    """Why the test does not type in the page's SQL."""
    said = " ".join(_strings(test))
    return [*_of_ci(test), *(f"{test} has no {word}" for word in (page, "```sql", "psql") if word not in said)]


def _of_ci(test: str) -> list[str]:
    """A proof is a test that is there, is not skipped, and runs in CI."""
    path, _, name = test.partition("::")
    definition = _definitions(ROOT / path).get(name) if (ROOT / path).is_file() else None
    if definition is None:
        return [f"there is no {test}"]
    decorators = [ast.unparse(one) for one in getattr(definition.node, "decorator_list", [])]
    if any("skip" in decorator or "xfail" in decorator for decorator in decorators):
        return [f"{test} may be skipped"]
    suites = re.findall(r"(?<=\s)tests/\w+", (ROOT / "Makefile").read_text())
    return [] if str(Path(path).parent) in suites else [f"no target of the Makefile runs {path}"]


def _mode(words: list[str | None], playbook: str) -> tuple[bool, bool, list[str]] | None:
    """--check, --diff and --tags of a call; None for another playbook, or where words cannot be known here."""
    if playbook not in words or None in words:
        return None
    given = [word for word in words if word]
    tags = [following for word, following in pairwise(given) if word == "--tags"]
    return "--check" in given, "--diff" in given, tags


def _name(word: str) -> str:
    return word.rpartition("/")[2] if "/bin/" in word else word


@cache
def calls(test: str) -> list[list[str | None]]:
    """The words of every call that the test reaches: what is called, then its arguments, lists taken apart."""
    found: list[list[str | None]] = []
    for definition, scope in _reached(test):
        for node in ast.walk(definition.node):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                found.append([called, *(word for argument in node.args for word in _resolved(argument, scope, ()))])
    return found


def _resolved(node: ast.expr, scope: Scope, through: tuple[str, ...]) -> list[str | None]:
    """An argument as words. "…" stands for one that is not known, None for any number of them."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(_resolved(part, scope, through)[0] or "…" for part in parts)]
        case ast.Name(id=name) if name in scope and name not in through:
            return [word for value in scope[name] for word in _resolved(value, scope, (*through, name))]
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [word for element in elements for word in _resolved(element, scope, through)]
        case ast.Starred(value=ast.Name(id=name)) if name not in scope:
            return [None]
        case ast.Starred(value=value):
            return _resolved(value, scope, through)
        case ast.BinOp(op=ast.Div(), right=right):
            return _resolved(right, scope, through)[-1:]
        case ast.Call(func=ast.Name(id="str"), args=[value]):
            return _resolved(value, scope, through)
        case ast.Attribute(value=ast.Name(id="sys"), attr="executable"):
            return ["python"]
    return ["…"]


def _names(test: str) -> set[str]:
    return {name for text in _strings(test) for name in re.findall(r"\w+", text)}


@cache
def _strings(test: str) -> list[str]:
    nodes = [node for definition, _ in _reached(test) for node in ast.walk(definition.node)]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@cache
def _reached(test: str) -> list[tuple[Definition, Scope]]:
    """The test, its fixtures and helpers, and theirs; each with the variables that it can see."""
    path, _, name = test.partition("::")
    waiting, seen, found = [_definitions(ROOT / path)[name]], set[Definition](), list[tuple[Definition, Scope]]()
    while waiting:
        definition = waiting.pop()
        if definition in seen:
            continue
        seen.add(definition)
        there = _definitions(definition.path)
        visible = [one.node for one in there.values() if isinstance(one.node, ast.Assign | ast.AnnAssign)]
        found.append((definition, _scope([*visible, definition.node])))
        for node in ast.walk(definition.node):
            used = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
            if used in there:
                waiting.append(there[used])
    return found


def _scope(nodes: list[ast.stmt]) -> Scope:
    scope: Scope = {}
    for outer in nodes:
        for node in ast.walk(outer):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        scope[target.id] = [node.value]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                scope[node.target.id] = [node.value]
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                scope.setdefault(node.target.id, []).append(node.value)
    return scope


@cache
def _definitions(path: Path) -> dict[str, Definition]:
    """By name: what a module of the tests defines, imports from others, or finds in the conftest.py beside it."""
    found: dict[str, Definition] = {}
    if path.name.startswith("test_") and (beside := path.with_name("conftest.py")).is_file():
        found |= _definitions(beside)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            module = ROOT / f"{(node.module or '').replace('.', '/')}.py"
            others = _definitions(module) if module.is_file() else {}
            found |= {one.asname or one.name: others[one.name] for one in node.names if one.name in others}
        for name in _defined(node):
            found[name] = Definition(path, node)
    return found


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for name in node.targets for target in ast.walk(name) if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
