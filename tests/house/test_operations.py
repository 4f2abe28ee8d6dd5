"""Files for AWX and GitHub: every playbook that they start is there, and every variable that they set is a role's."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_lines import watched
from tests.support.guarded_git import guarded

ROOT = Path(__file__).parents[2]
OBJECTS: dict[str, Any] = yaml.safe_load((ROOT / "awx/objects.yml").read_text())


@pytest.fixture(scope="module")
def variables() -> set[str]:
    """Every variable of every role."""
    specs = [yaml.safe_load(path.read_text()) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    return {name for spec in specs for name in spec["argument_specs"]["main"]["options"]}


@pytest.mark.parametrize("template", OBJECTS["awx_job_templates"], ids=lambda template: template["name"])
def test_a_job_template_starts_what_there_is(template: dict[str, Any], variables: set[str]) -> None:
    assert (ROOT / template["playbook"]).is_file()
    assert template["limit"] in yaml.safe_load((ROOT / f"inventories/{template['inventory']}/hosts.yml").read_text())
    assert template["inventory"] in OBJECTS["awx_inventories"]
    asked = {question["variable"] for question in template.get("survey", [])}
    assert asked <= variables
    for question in template.get("survey", []):
        assert question.keys() >= {"question_name", "variable", "type", "required"}


def test_a_job_keeps_its_reports_where_the_next_one_looks_for_them() -> None:
    """Its checkout goes with it. The variable is a common one, which run_inputs would not miss."""
    (play,) = yaml.safe_load((ROOT / "awx/configure.yml").read_text())
    (made,) = [task["awx.awx.job_template"] for task in play["tasks"] if "awx.awx.job_template" in task]
    assert re.findall(r"'(\w+)': awx_artifacts", made["extra_vars"]) == ["at_most_one_artifacts"]
    assert "at_most_one_artifacts" in yaml.safe_load((ROOT / "inventories/all.yml").read_text())
    assert OBJECTS["awx_artifacts"] == ""


def test_production_is_behind_an_approval() -> None:
    names = {template["name"] for template in OBJECTS["awx_job_templates"]}
    nodes = OBJECTS["awx_workflow"]["nodes"]
    assert set(nodes) - {"approval"} <= names
    deploys = next(t for t in OBJECTS["awx_job_templates"] if t["name"] == nodes[-1])
    assert (nodes[-2], deploys["playbook"], deploys["limit"]) == ("approval", "deploy.yml", "production")
    assert {schedule["unified_job_template"] for schedule in OBJECTS["awx_schedules"]} <= names


def jobs(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"]
    return found


def script(name: str, step: str) -> str:
    """What a step of a workflow's only job runs."""
    (job,) = jobs(name).values()
    return str(next(one["run"] for one in job["steps"] if one["name"] == step))


@pytest.mark.parametrize("name", ["rehearse", "deploy", "monitor"])
def test_a_workflow_starts_what_there_is(name: str, variables: set[str]) -> None:
    (job,) = jobs(name).values()
    given, text = job["with"], (ROOT / f".github/workflows/{name}.yml").read_text()
    assert job["uses"] == "./.github/workflows/run.yml", "an action of others would have to be pinned and read"
    assert (
        given.keys()
        <= yaml.safe_load((ROOT / ".github/workflows/run.yml").read_text())[True]["workflow_call"]["inputs"].keys()
    )
    for playbook in re.findall(r"\b\w+\.yml\b", text.replace(job["uses"], "")):
        assert (ROOT / playbook).is_file()
    assert (ROOT / f"inventories/{given['inventory']}/hosts.yml").is_file()
    assert set(re.findall(r'"(\w+)": ', given.get("extra_vars", ""))) <= variables


def test_production_is_deployed_by_hand_and_by_approval() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
    assert list(workflow[True]) == ["workflow_dispatch"]  # YAML 1.1 reads "on" as true
    assert {job["with"]["environment"] for job in workflow["jobs"].values()} == {"production"}


def test_the_development_container_is_pinned_and_makes_what_there_is() -> None:
    """It was started nowhere: the command line of its specification reads it, and that is all."""
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert re.search(r"-3\.11-\w+@sha256:[0-9a-f]{64}$", settings["image"])
    made = re.findall(r"make ([a-z-]+)", settings["postCreateCommand"])
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made == ["setup-dev", "test-packages"]
    assert {*made} <= {*targets}


@pytest.mark.parametrize("name", ["run", "test"])
def test_a_workflow_checks_out_without_showing_its_token(tmp_path: Path, name: str) -> None:
    token, source, bare = "planted-github-token", tmp_path / "source", tmp_path / "owner/project"
    commands: tuple[list[str | Path], ...] = (
        ["git", "init", "--quiet", source],
        [
            "git",
            "-C",
            source,
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x",
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            "x",
        ],
        ["git", "clone", "--quiet", "--bare", source, bare],
    )
    for command in commands:
        subprocess.run(command, check=True)
    commit = subprocess.check_output(["git", "-C", bare, "rev-parse", "HEAD"], text=True).strip()
    (tmp_path / "work").mkdir()
    with guarded(bare, token, user="x-access-token") as address, watched() as seen:
        place = {
            "GITHUB_SERVER_URL": address.replace(f"x-access-token:{token}@", "").removesuffix("/project"),
            "GITHUB_REPOSITORY": "project",
            "GITHUB_SHA": commit,
            "TOKEN": token,
        }
        # The server of the tests gives files and knows nothing of depths.
        checkout = script(name, "Check out").replace(" --depth 1", "")
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0", **place}
        subprocess.run(["bash", "-e", "-c", checkout], cwd=tmp_path / "work", env=environment, check=True)
    assert (tmp_path / "work/.git/HEAD").read_text().strip() == commit
    assert token not in seen.text
    assert "git-remote-http" in seen.text, "it was looked at while it worked"
    assert all(
        token not in file.read_text(errors="replace") for file in (tmp_path / "work").rglob("*") if file.is_file()
    )


@pytest.mark.parametrize(("wrote", "code"), [(True, 0), (True, 2), (False, 2)])
def test_a_workflow_shows_the_report_of_its_own_run_and_ends_as_it_did(tmp_path: Path, wrote: bool, code: int) -> None:
    """The artifacts are those of a machine that ran before; the playbook is what writes a report, or does not."""
    runs, playbook, summary = (
        tmp_path / "artifacts/local",
        tmp_path / ".venv/bin/ansible-playbook",
        tmp_path / "summary",
    )
    for directory in (runs / "old", runs / "new", playbook.parent):
        directory.mkdir(parents=True)
    for name in ("old", "new"):
        (runs / name / "report.md").write_text(name)
    (runs / "latest").symlink_to("old")
    link = f"ln -sfn new {runs}/latest; " if wrote else ""
    playbook.write_text(f'#!/bin/sh\n{link}printf "%s\\n" "$@" > {tmp_path}/arguments; exit {code}\n')
    playbook.chmod(0o755)
    given = {"PLAYBOOK": "deploy.yml", "INVENTORY": "local", "EXTRA_VARS": '{"plan": "a b"}', "CHECK": "--check --diff"}
    environment = {"PATH": os.environ["PATH"], "GITHUB_STEP_SUMMARY": str(summary), **given}

    command = script("run", "Run, and show the report that this run has written")
    done = subprocess.run(["bash", "-e", "-c", command], cwd=tmp_path, env=environment, check=False)

    assert done.returncode == code
    assert (summary.read_text() if summary.exists() else "") == ("new" if wrote else "")
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *("deploy.yml", "-i", "inventories/local", "-l", "local", "-e", '{"plan": "a b"}', "--check", "--diff")
    ]
