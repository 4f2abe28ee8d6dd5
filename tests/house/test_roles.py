"""The roles keep the rules of the house: one source for every variable, one table of contents per role."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.preflight import inputs
from at_most_one.report.facts import RunFacts

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml"))
EVERYWHERE = yaml.safe_load((ROOT / "inventories/all.yml").read_text())


def options_of(role: str) -> dict[str, Any]:
    spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    options: dict[str, Any] = spec["argument_specs"]["main"]["options"]
    return options


def defaults_of(role: str) -> dict[str, Any]:
    path = ROOT / f"roles/{role}/defaults/main.yml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_described_with_the_same_value(role: str) -> None:
    options = options_of(role)
    for name, value in defaults_of(role).items():
        assert name in options, f"{name} of roles/{role}/defaults is missing in its argument_specs"
        if "{{" in str(value):
            assert "default" not in options[name], f"{name} is computed; its description has to say of what"
        else:
            assert options[name]["default"] == value


@pytest.mark.parametrize("role", ROLES)
def test_every_described_option_has_its_default_somewhere(role: str) -> None:
    known = {**EVERYWHERE, **defaults_of(role)}
    for name, option in options_of(role).items():
        if "default" in option:
            assert name in known, f"{name} has a default in argument_specs only, where Ansible does not take it from"
            assert known[name] == option["default"]


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_their_roles_prefix(role: str) -> None:
    prefixes = (
        f"{role}_",
        *(("app_", "archive_", "database_", "pm2_", "release_", "plan", "environment_name") if role == "run" else ()),
    )
    assert all(name.startswith(prefixes) for name in options_of(role))


@pytest.mark.parametrize("role", ROLES)
def test_task_files_stay_tables_of_contents(role: str) -> None:
    for path in sorted((ROOT / f"roles/{role}/tasks").glob("*.yml")):
        lines = len(path.read_text().splitlines())
        assert lines <= 48, f"{path} has {lines} lines: the design is asking for something"


def owner(name: str) -> str:
    """The role whose prefix a private name has; the longest where several fit."""
    return max((role for role in ROLES if name.lstrip("_").startswith(f"{role}_")), key=len, default="")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reads_another_roles_private_name(role: str) -> None:
    read = {
        name
        for path in sorted((ROOT / f"roles/{role}").rglob("*"))
        if path.is_file() and path.parent.name != "files"
        for name in re.findall(r"(?<![\w.])__?[a-z]\w+", path.read_text())
        if owner(name) not in ("", role)
    }
    assert not read, f"roles/{role} reads {sorted(read)}, which other roles keep for themselves"


def test_the_facts_that_roles_leave_are_no_mistaken_options() -> None:
    """run_inputs refuses what looks like a role's option and is none: a second run of the playbook finds these."""
    tasks = "".join(path.read_text() for path in ROOT.glob("roles/*/tasks/*.yml"))
    registered = set(re.findall(r"^ +register: ([a-z]\w*)$", tasks, re.MULTILINE))
    set_by_hand = {
        name
        for block in re.findall(r"set_fact:\n((?: {4,}.*\n)+)", tasks)
        for name in re.findall(r"^ +([a-z]\w*):", block, re.M)
    }
    assert {name for name in registered | set_by_hand if owner(name)} == inputs.FACTS


def test_a_run_forgets_only_what_a_role_leaves() -> None:
    """A name that no task sets any more has to leave facts.yml, too."""
    opening = ROOT / "roles/run/tasks/facts.yml"
    (task,) = yaml.safe_load(opening.read_text())
    tasks = "".join(path.read_text() for path in ROOT.glob("roles/*/tasks/*.yml") if path != opening)
    forgotten = {name for name, value in task["ansible.builtin.set_fact"].items() if not value}
    assert forgotten
    left = {name for name in forgotten if re.search(rf"^ +(register: {name}|{name}:.*)$", tasks, re.MULTILINE)}
    assert not forgotten - left, f"nothing sets {sorted(forgotten - left)} any more"


def test_the_input_of_the_report_is_described_field_by_field() -> None:
    """By the role that takes it, as the core reads it and as the run hands it over."""
    options = options_of("report")["report_facts"]["options"]
    handed_over = yaml.safe_load((ROOT / "roles/run/vars/main.yml").read_text())["_run_report"]
    fields = dataclasses.fields(RunFacts)
    assert [*handed_over] == [*options] == [field.name for field in fields]
    needed = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    assert {name for name, option in options.items() if option.get("required")} == needed
