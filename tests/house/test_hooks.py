"""A project's own tasks before and after a phase: included where they exist, and their failure is the phase's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.preflight import inputs

from tests.support.playbooks import ROOT, Run, run_playbook

Play = dict[str, Any]


def phases(playbook: str) -> dict[str, Play]:
    """The plays that are phases, by the phase."""
    plays: list[Play] = yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text())
    return {play["vars"]["run_phase"]: play for play in plays if "run_phase" in play.get("vars", {})}


PHASES = phases("deploy") | phases("rollback")


def test_every_phase_has_both_hooks_within_what_is_rescued() -> None:
    assert tuple(PHASES) == inputs.HOOKED_PHASES
    for phase, play in PHASES.items():
        (task,) = play["tasks"]
        before, role, after = task["block"]
        assert role["ansible.builtin.import_role"]["name"] == phase
        assert [hook["vars"]["_run_hook"].rpartition("/")[2] for hook in (before, after)] == [
            "before_{{ run_phase }}.yml",
            "after_{{ run_phase }}.yml",
        ]
        assert [task["ansible.builtin.include_role"]["tasks_from"] for task in task["rescue"]] == ["stop"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one host, and the phase cleanup of deploy.yml with a debug in the place of its role."""
    play = copy.deepcopy(PHASES["cleanup"])
    task = play["tasks"][0]
    task["block"][1] = {"name": "The phase", "ansible.builtin.debug": {"msg": "the phase itself"}}
    task["rescue"] = [
        {"name": "Stop", "ansible.builtin.fail": {"msg": "stopped: {{ ansible_failed_result.msg }}"}},
    ]
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks/phase.yml").write_text(yaml.safe_dump([play]))
    (tmp_path / "phase.yml").write_text("- import_playbook: playbooks/phase.yml\n")
    common = yaml.safe_load((ROOT / "inventories/all.yml").read_text())
    variables = {name: common[name] for name in ("at_most_one_project", "project_path")}
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"hosts": {"one": {"ansible_connection": "local"}}, "vars": variables}})
    )
    (tmp_path / "hooks").mkdir()
    return tmp_path


def hook(project: Path, name: str, **task: Any) -> None:
    (project / f"hooks/{name}.yml").write_text(yaml.safe_dump([{"name": name, **task}]))


def said(project: Path, *arguments: str, playbook: str = "phase.yml") -> tuple[Run, list[str]]:
    """The run, and which of the messages it showed, in their order."""
    run = run_playbook(str(project / playbook), *arguments, limit=None, inventory=str(project / "hosts.yml"))
    messages = ("done before", "the phase itself", "done after")
    return run, sorted((one for one in messages if one in run.output), key=run.output.index)


def test_hooks_are_run_around_the_phase_and_nothing_without_them(project: Path) -> None:
    run, messages = said(project)
    assert (run.code, messages) == (0, ["the phase itself"]), run.output
    for moment in ("before", "after"):
        hook(project, f"{moment}_cleanup", **{"ansible.builtin.debug": {"msg": f"done {moment}"}})
    hook(project, "before_migrate", **{"ansible.builtin.fail": {"msg": "of another phase"}})
    run, messages = said(project, "--tags", "cleanup")
    assert (run.code, messages) == (0, ["done before", "the phase itself", "done after"]), run.output


@pytest.mark.parametrize(("moment", "seen"), [("before", []), ("after", ["the phase itself"])])
def test_a_hook_that_fails_stops_the_phase_with_its_own_error(project: Path, moment: str, seen: list[str]) -> None:
    hook(project, f"{moment}_cleanup", **{"ansible.builtin.fail": {"msg": "the load balancer says no"}})
    run, messages = said(project, playbook="playbooks/phase.yml")
    assert run.code != 0
    assert messages == seen
    assert run.failures[-1] == "stopped: the load balancer says no"
