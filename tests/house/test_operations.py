"""Files for AWX and GitHub: every playbook that they start is there, and every variable that they set is a role's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OBJECTS: dict[str, Any] = yaml.safe_load((ROOT / "awx/objects.yml").read_text())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


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


def test_production_is_behind_an_approval() -> None:
    names = {template["name"] for template in OBJECTS["awx_job_templates"]}
    nodes = OBJECTS["awx_workflow"]["nodes"]
    assert set(nodes) - {"approval"} <= names
    deploys = next(t for t in OBJECTS["awx_job_templates"] if t["name"] == nodes[-1])
    assert (nodes[-2], deploys["playbook"], deploys["limit"]) == ("approval", "deploy.yml", "production")
    assert {schedule["unified_job_template"] for schedule in OBJECTS["awx_schedules"]} <= names


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_starts_what_there_is(path: Path, variables: set[str]) -> None:
    text = path.read_text()
    for playbook in re.findall(r"ansible-playbook (\S+\.yml)", text):
        assert (ROOT / playbook).is_file()
    set_here = set(re.findall(r'-e "?(\w+)=', text))
    assert set_here <= variables
    for name in re.findall(r"-i inventories/(\w+)", text):
        assert (ROOT / f"inventories/{name}/hosts.yml").is_file()
    assert "uses:" not in text, "an action of others would have to be pinned and read"


def test_production_is_deployed_by_hand_and_by_approval() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
    assert list(workflow[True]) == ["workflow_dispatch"]  # YAML 1.1 reads "on" as true
    assert {job["environment"] for job in workflow["jobs"].values()} == {"production"}
