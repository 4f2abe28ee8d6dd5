"""A rehearsal beside the lab, on a masked copy of its data; then the lab asks for the evidence as production does."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg2.errors
import pytest

from tests.deploy.conftest import PLANNED, ROOT, SESSIONS, Lab, Run, make, run_playbook

# Three whole runs. What evidence must be to count is held by tests/unit/test_evidence.py and tests/database as well.
pytestmark = pytest.mark.thorough

EVIDENCE = ROOT / "artifacts/local_staging/rehearsal/one-active-inspection-session.json"
REPORTS = ROOT / "artifacts/local_staging"
ENGLISH = ("-e", "report_language=en")


@pytest.fixture(scope="module")
def ground(lab: Lab) -> Lab:
    """The lab as the guide has it, with an INVALID index, which a dump of it will not have."""
    make("lab-reset")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        lab.rows(f"CREATE UNIQUE INDEX CONCURRENTLY idx_forgotten ON {SESSIONS} (inspector_id)")
    return lab


@pytest.fixture(scope="module")
def staging(ground: Lab) -> Lab:
    """A second environment, as new. A release that the lab has built is not built again: the commit is the same."""
    EVIDENCE.unlink(missing_ok=True)
    make("lab-staging")
    there = Lab(json.loads((ROOT / ".lab/staging/lab.json").read_text()))
    shutil.rmtree(f"{there.values['app_path']}.backups", ignore_errors=True)
    commit = ground.values["commit_after"]
    built, releases = (Path(f"{values['app_path']}.releases") / commit for values in (ground.values, there.values))
    if (built / ".at-most-one.json").exists() and not releases.exists():
        releases.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "--archive", "--link", built, releases], check=True)
        (releases / ".env.production").unlink()  # a link to the lab's own
    return there


@pytest.fixture(scope="module")
def rehearsed(staging: Lab, ground: Lab, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The rehearsal, once for all tests."""
    people = [ground.values["admin_email"], ground.values["inspector_email"]]
    source = {name: ground.values[f"database_{name}"] for name in ("host", "port", "user", "password", "sslmode")}
    options = tmp_path_factory.mktemp("options") / "clone.json"
    options.write_text(
        json.dumps(
            {
                "report_language": "en",
                "rehearsal_source_login": {**source, "dbname": ground.values["database_name"]},
                "rehearsal_masked_columns": [
                    {"column": "aedpics.user_profiles.email", "unless": {"email": people}},
                    {"column": "aedpics.user_profiles.full_name", "how": "text", "text": "somebody"},
                ],
            }
        )
    )
    return run_playbook("rehearse.yml", "-e", f"@{options}", limit="local_staging", inventory="local_staging")


def asked(*arguments: str) -> Run:
    """Deploy to the lab with the gate of production."""
    gates = '{"prepare_gates": ["rehearsal"]}'
    return run_playbook("deploy.yml", "-e", gates, *ENGLISH, *arguments)


def test_check_says_what_would_be_rehearsed(staging: Lab) -> None:
    before = (staging.content(), staging.catalog(), staging.pids(), staging.link)

    shown = run_playbook("rehearse.yml", "--check", *ENGLISH, limit="local_staging", inventory="local_staging")

    assert shown.code == 0, shown.output
    assert "Rehearsal of one-active-inspection-session in local_staging" in shown.output
    assert (staging.content(), staging.catalog(), staging.pids(), staging.link) == before
    assert not EVIDENCE.exists(), "a look is no evidence"


def test_forward_back_forward_leaves_a_deployed_environment_and_evidence(rehearsed: Run, staging: Lab) -> None:
    assert rehearsed.code == 0, rehearsed.output
    assert staging.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert staging.duplicate_groups() == 0
    assert staging.served(20) == {staging.values["commit_after"]}

    evidence = json.loads(EVIDENCE.read_text())
    assert evidence["outcome"] == "passed"
    assert [(turn["name"], turn["outcome"]) for turn in evidence["turns"]] == [
        ("forward", "deployed"),
        ("back", "rolled_back"),
        ("again", "deployed"),
    ]
    assert evidence["commit"]["after"] == staging.values["commit_after"]
    states = evidence["states"]
    for digest in ("schema_sha256", "content_sha256"):
        assert states["back"][digest] == states["before"][digest] != states["forward"][digest]
        assert states["again"][digest] == states["forward"][digest]
    assert states["before"]["tables"][SESSIONS]["rows"] - states["forward"]["tables"][SESSIONS]["rows"] == 25
    assert evidence["recovery_seconds"] == evidence["turns"][1]["seconds"] > 0
    assert {phase["name"] for phase in evidence["turns"][0]["phases"]} >= {"prepare", "cleanup", "healthcheck"}
    assert f"The way back takes {evidence['recovery_seconds']:.0f} s" in rehearsed.output
    kept = staging.rows("SELECT outcome, evidence FROM at_most_one.rehearsal")
    assert kept == [("passed", evidence)], "the journal has the same document"


def test_each_turn_begins_without_what_the_run_before_it_left(rehearsed: Run, staging: Lab) -> None:
    """Three runs in one process: each report is of its own run alone."""
    turns = json.loads(EVIDENCE.read_text())["turns"]
    forward, back, again = (json.loads((REPORTS / turn["run_id"] / "report.json").read_text()) for turn in turns)
    assert [report["outcome"] for report in (forward, back, again)] == ["deployed", "rolled_back", "deployed"]
    assert [report["cleanup"]["removed"] for report in (forward, back, again)] == [25, 0, 25]
    assert again["traffic"]["requests"] > 0
    assert again["traffic"] != forward["traffic"]
    assert back["traffic"]["requests"] == 0
    assert {index["verdict"] for index in back["indexes"]} == {"missing"}
    assert {index["verdict"] for index in again["indexes"]} == {"present"}
    assert again["commit"]["after"] == staging.values["commit_after"] != back["commit"]["after"]
    pids = [{one["new_pid"] for one in report["instances"]} for report in (forward, back, again)]
    assert [len(found) for found in pids] == [2, 2, 2]
    assert staging.pids() == sorted(pids[2])


def test_the_copy_is_masked_and_the_invalid_index_of_the_source_is_named(
    rehearsed: Run, staging: Lab, ground: Lab
) -> None:
    assert "INVALID indexes of the source (the copy has them only when it is of a template): " in rehearsed.output
    assert "aedpics.idx_forgotten on inspection_sessions" in rehearsed.output
    there, here = (dict(lab.rows("SELECT id::text, email FROM aedpics.user_profiles")) for lab in (staging, ground))
    assert there.keys() == here.keys()
    checks = {ground.values["admin_email"], ground.values["inspector_email"]}
    assert {email for email in there.values() if not email.startswith("masked-")} == checks
    assert len(set(there.values())) == len(here)
    assert staging.rows("SELECT DISTINCT full_name FROM aedpics.user_profiles") == [("somebody",)]
    assert ground.value("SELECT count(*) FROM aedpics.user_profiles WHERE full_name = 'somebody'") == 0
    assert ground.values["database_password"] not in rehearsed.output


def test_a_backup_was_made_before_the_rows_left(rehearsed: Run, staging: Lab) -> None:
    backups = sorted(Path(f"{staging.values['app_path']}.backups").iterdir())
    turns = json.loads(EVIDENCE.read_text())["turns"]
    assert [path.name for path in backups] == [
        f"one-active-inspection-session-{turn['run_id']}.dump" for turn in turns if turn["name"] != "back"
    ]
    assert [path.stat().st_mode & 0o777 for path in backups] == [0o600, 0o600]
    # Besides the rows of the beginning, the second one has what the checks of the first way forward left on the canary.
    kept = staging.rows(
        f"""SELECT details->'backup'->>'path', (details->'backup'->'tables'->>'{SESSIONS}')::int
                 - (SELECT count(*) FROM {SESSIONS} WHERE equipment_serial = %s AND created_at < step.finished_at)
              FROM at_most_one.step WHERE phase = 'prepare' ORDER BY finished_at""",
        staging.values["canary_serial"],
    )
    rows = json.loads(EVIDENCE.read_text())["states"]["before"]["tables"][SESSIONS]["rows"]
    assert kept == [(str(path), rows) for path in backups]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "holds a deployment of one-active-inspection-session that was not taken back"),
        (["--tags", "cleanup"], "Only some phases are asked for"),
        (["-e", "rehearsal_allowed=false"], "local_staging is no environment to rehearse in"),
    ],
)
def test_it_refuses_what_would_be_no_rehearsal(
    rehearsed: Run, staging: Lab, arguments: list[str], message: str
) -> None:
    before, evidence = (staging.content(), staging.catalog()), EVIDENCE.read_bytes()
    refused = run_playbook("rehearse.yml", *arguments, *ENGLISH, limit="local_staging", inventory="local_staging")
    assert refused.code != 0
    assert message in " ".join(refused.failures)
    assert (staging.content(), staging.catalog()) == before
    assert EVIDENCE.read_bytes() == evidence, "the evidence that is there still stands"


def edited(path: Path) -> Path:
    document = json.loads(EVIDENCE.read_text())
    document["turns"][1]["seconds"] = 1.0
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("case", ["none", "stale", "other commit", "other plan", "edited"])
def test_the_lab_refuses_what_is_no_evidence(rehearsed: Run, ground: Lab, tmp_path: Path, case: str) -> None:
    given: dict[str, tuple[dict[str, Any], str]] = {
        "none": ({"prepare_rehearsal_evidence": str(tmp_path / "none.json")}, "none.json does not exist"),
        "stale": ({"prepare_rehearsal_max_age_hours": 0}, "hours ago"),
        "other commit": ({"app_commit": ground.values["commit_before"]}, "The rehearsal was of commit"),
        "other plan": (
            {"plan": "one-valid-inspection-per-day", "prepare_rehearsal_evidence": str(EVIDENCE)},
            "The rehearsal was of plan one-active-inspection-session",
        ),
        "edited": ({"prepare_rehearsal_evidence": str(edited(tmp_path / "edited.json"))}, "was changed after"),
    }
    options, message = given[case]
    before = (ground.content(), ground.catalog(), ground.link)

    refused = asked("--tags", "prepare", "-e", json.dumps(options))

    assert refused.code != 0
    text = " ".join(refused.failures)
    assert message in text
    assert "Expected:" in text
    assert "Next:" in text
    assert [row for row in ground.catalog() if row[0] != "at_most_one"] == [
        row for row in before[1] if row[0] != "at_most_one"
    ]
    assert (ground.content(), ground.link) == (before[0], before[2])


def test_with_evidence_it_deploys_says_the_rehearsed_times_first_and_keeps_the_digest(
    rehearsed: Run, ground: Lab
) -> None:
    evidence = json.loads(EVIDENCE.read_text())
    ground.rows("DROP INDEX aedpics.idx_forgotten")

    run = asked()

    assert run.code == 0, run.output
    assert run.report["outcome"] == "deployed"
    shown = run.output.index(f"The way back: {evidence['recovery_seconds']:.0f} s")
    assert "Rehearsed in local_staging" in run.output[:shown]
    assert shown < run.output.index("What is about to change")
    kept = ground.value(
        "SELECT details->'checklist'->'rehearsal'->'facts'->'evidence' FROM at_most_one.step"
        " WHERE run_id = %s AND phase = 'prepare'",
        run.report["run_id"],
    )
    assert kept["sha256"] == evidence["sha256"] == seal(evidence)
    assert kept["runs"] == [turn["run_id"] for turn in evidence["turns"]]


def seal(document: dict[str, Any]) -> str:
    """As docs/rehearse.md says it: SHA-256 over the content without its seal, keys sorted, no white space."""
    content = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def _put_away(lab: Lab) -> Any:
    """The second environment ends with the tests that need it."""
    yield
    settings = ROOT / ".lab/staging/lab.json"
    if not settings.exists():
        return
    values = json.loads(settings.read_text())
    subprocess.run(
        [values["pm2_bin"], "kill"],
        env={"PATH": values["path"], "PM2_HOME": values["pm2_home"], "HOME": values["pm2_home"]},
        capture_output=True,
        check=False,
    )
