"""monitor/: alert rules, dashboard and pipelines name what monitor.yml writes and what there is to start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.findings import Finding
from at_most_one.monitoring import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
STACK = ROOT / "monitor"
RULES: list[dict[str, Any]] = yaml.safe_load((STACK / "alerts.yml").read_text())["groups"][0]["rules"]
TESTS: dict[str, Any] = yaml.safe_load((STACK / "alerts_test.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((STACK / "dashboard.json").read_text())
GITLAB: dict[str, Any] = yaml.safe_load((STACK / "gitlab-ci.yml").read_text())
FACTS: dict[str, Any] = {
    "environment": "production",
    "plan": "p",
    "database": {
        "verified": {"duplicates_left": 0, "indexes": [{"name": "i", "verdict": "present"}]},
        "fence": {"state": "lowered"},
        "journal": {"archive": {"rows": 1, "bytes": 1, "oldest_days": 1, "overdue": []}},
        "use": {"indexes": [{"name": "i", "scans": 1, "bytes": 1, "hit_percent": 1.0, "bloat_percent": 1.0}]},
    },
    "hosts": {"web1": {"pm2": {"instances": []}}},
}
METRIC = re.compile(r"\bat_most_one_\w+")


def written() -> dict[str, set[str]]:
    """The labels of every metric that the monitor can write, by its name."""
    text = prometheus.metrics(FACTS, [Finding("x", "seen.", "expected.", "next.")], 1.0)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def expressions() -> list[str]:
    queries = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in RULES), *queries, *shown]


def test_every_metric_that_is_asked_for_is_written_and_the_dashboard_shows_each() -> None:
    asked = {name for text in expressions() for name in METRIC.findall(text)}
    assert asked == {*written()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_labels_that_its_metric_has_and_a_command_that_there_is(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "summary_ko", "next"}
    assert re.search("[가-힣]", notes["summary_ko"])
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(notes.values())))
    assert named <= written()[METRIC.findall(rule["expr"])[0]]
    assert set(re.findall(r"\$labels\.\w+", notes["summary"])) == set(re.findall(r"\$labels\.\w+", notes["summary_ko"]))
    program, playbook, *_ = notes["next"].split()
    assert (program, (ROOT / playbook).is_file()) == ("ansible-playbook", True)
    assert rule["labels"] in ({"severity": "page"}, {"severity": "work"})


def test_every_alert_is_tested_when_it_fires() -> None:
    expected = {
        name
        for test in TESTS["tests"]
        for query in test["promql_expr_test"]
        for sample in query["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert expected == {rule["alert"] for rule in RULES}


@pytest.mark.thorough  # it only says that the tests of the rules pass; the package of promtool takes 96 MB of disk
def test_prometheus_takes_the_rules_and_their_tests_pass(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed. Expected: it in PATH. Next: make test-packages THOROUGH=1"
    # The dashboard's expressions as rules, so that they are parsed too; Grafana's variables hold a pattern.
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    recorded = [{"record": f"shown:{place}", "expr": re.sub(r"\$\w+", ".*", text)} for place, text in enumerate(shown)]
    parsed = tmp_path / "shown.yml"
    parsed.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": recorded}]}))
    for command in (["check", "rules", "alerts.yml", str(parsed)], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *command], cwd=STACK, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def keeps(whole: Any, part: Any) -> bool:
    """Whether nothing of a document was lost on its way through the types that read it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and keeps(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(keeps, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize("more", [{}, {"panles": []}], ids=["ours", "misspelt"])
def test_grafanas_own_types_know_all_of_the_dashboard(more: dict[str, Any]) -> None:
    """They are generated from Grafana's schema, and drop what it does not have."""
    register_default_plugins()
    read = Dashboard.from_json(DASHBOARD | more)
    assert keeps(json.loads(JSONEncoder().encode(read)), DASHBOARD | more) == (not more)


def test_the_dashboard_is_built_as_grafana_reads_it() -> None:
    """What its pages rely on beside the types."""
    assert DASHBOARD.keys() >= {"uid", "title", "schemaVersion", "panels", "templating", "time", "refresh"}
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in {"stat", "table", "timeseries"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF")[: len(panel["targets"])]
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables
            (labels,) = {frozenset(written()[name]) for name in METRIC.findall(target["expr"])}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize("name", [name for name, job in GITLAB.items() if "extends" in job])
def test_a_job_of_gitlab_starts_what_there_is(name: str) -> None:
    values = GITLAB[name]["variables"]
    assert (ROOT / values["PLAYBOOK"]).is_file()
    assert (ROOT / f"inventories/{values['INVENTORY']}/hosts.yml").is_file()
    specs = [yaml.safe_load(path.read_text()) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    known = {option for spec in specs for option in spec["argument_specs"]["main"]["options"]}
    assert set(re.findall(r"-e (\w+)=", values["OPTIONS"])) <= known


def test_production_is_changed_by_hand_alone() -> None:
    jobs = {name: job for name, job in GITLAB.items() if job_changes_production(job)}
    assert {name: [rule["when"] for rule in job["rules"]] for name, job in jobs.items()} == {
        "deploy": ["manual"],
        "rollback": ["manual"],
    }


def job_changes_production(job: Any) -> bool:
    named = job.get("environment", {}) if isinstance(job, dict) else {}
    return bool(named.get("name") == "production" and named.get("action") != "verify")


REPORT: dict[str, Any] = {
    **{"run_id": "20251110T033000Z-abc123", "environment": "production", "plan": {"id": "p"}, "error": None},
    **{"commit": {"before": "a" * 40, "after": "b" * 40}, "outcome": "deployed", "check_mode": False},
}


def recorded(
    directory: Path, values: dict[str, Any], code: int = 0
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """What the program did with a report, and what it asked of gh, which stands in for itself here."""
    report, gh, asked = directory / "report.json", directory / "gh", directory / "asked"
    report.write_text(json.dumps({**REPORT, **values}))
    asked.mkdir()
    gh.write_text(
        f"#!/bin/sh\nnumber=$(ls {asked} | wc -l)\n"
        f'printf \'{{"path": "%s", "body": %s}}\' "$4" "$(cat)" > {asked}/$number\n'
        f"echo '{{\"id\": 7}}'; exit {code}\n"
    )
    gh.chmod(0o755)
    command = [sys.executable, str(STACK / "github_deployment.py"), str(report), "owner/service"]
    environment = {"PATH": f"{directory}:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done, [json.loads(file.read_text()) for file in sorted(asked.iterdir())]


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, "success"),
        ({"outcome": "unchanged"}, "success"),
        ({"outcome": "rolled_back"}, "success"),
        ({"outcome": "rolled_back", "error": "it stopped."}, "failure"),
        ({"outcome": "stopped", "error": "it stopped."}, "failure"),
    ],
)
def test_github_is_told_the_commit_of_the_service_and_how_it_ended(
    tmp_path: Path, values: dict[str, Any], state: str
) -> None:
    done, asked = recorded(tmp_path, values)
    assert (done.returncode, done.stderr) == (0, "")
    deployment, status = asked
    assert deployment["path"] == "repos/owner/service/deployments"
    assert (deployment["body"]["ref"], deployment["body"]["environment"]) == ("b" * 40, "production")
    assert (status["path"], status["body"]["state"]) == ("repos/owner/service/deployments/7/statuses", state)


@pytest.mark.parametrize("values", [{"check_mode": True}, {"outcome": None}])
def test_github_is_told_nothing_of_a_check_or_of_a_run_at_work(tmp_path: Path, values: dict[str, Any]) -> None:
    done, asked = recorded(tmp_path, values)
    assert (done.returncode, asked) == (0, [])


def test_what_github_refuses_is_an_error_with_its_next_step(tmp_path: Path) -> None:
    done, _ = recorded(tmp_path, {}, code=1)
    assert done.returncode == 1
    assert "Next: gh auth status" in done.stderr


def test_the_options_of_the_traces_are_those_of_the_pinned_callback() -> None:
    """The trace itself needs packages that are not pinned, and a collector."""
    page = (ROOT / "docs/monitor.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"\n## Traces of a run\n(.*?)(?=\n## |\Z)", page, re.DOTALL)
    (name,) = re.findall(r"ANSIBLE_CALLBACKS_ENABLED=(\S+)", section)
    namespace, collection, plugin = name.split(".")
    path = ROOT / f"collections/ansible_collections/{namespace}/{collection}/plugins/callback/{plugin}.py"
    found = re.search(r'DOCUMENTATION = r"""\n(.*?)"""', path.read_text(), re.DOTALL)
    assert found
    documented = yaml.safe_load(found[1])
    known = {variable["name"] for option in documented["options"].values() for variable in option["env"]}
    used = set(re.findall(r"\b(?:ANSIBLE_OPENTELEMETRY_\w+|OTEL_\w+|TRACEPARENT)\b", section))
    assert used - known == {"OTEL_EXPORTER_OTLP_ENDPOINT"}, "the exporter's own"
    needed = {requirement.partition(" ")[0] for requirement in documented["requirements"]}
    assert needed - set(re.findall(r"opentelemetry-[a-z-]+", section)) == {"opentelemetry-api"}, "which both bring"
