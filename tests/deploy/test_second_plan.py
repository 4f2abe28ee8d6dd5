"""The next rule is a plan and a migration, not code: another table, two key columns, a text status, rows updated.

It is deployed on top of the first one, run again, and taken back, without and with its rows.
"""

from __future__ import annotations

from typing import Any

import psycopg2.errors
import pytest

from tests.deploy.conftest import PLANNED, ROOT, Lab, Run, light_build, make, run_playbook

# The same procedure for other data: tests/database holds updates, several key columns and other predicates.
pytestmark = pytest.mark.thorough

PLAN = "one-valid-inspection-per-day"
INDEX = "idx_inspections_valid_per_equipment_and_day"
MIGRATION = "20251201_add_valid_inspection_per_day"
RECORDS = "aedpics.inspections"
DEPLOY = ("-e", f"plan={PLAN}", "-e", "app_branch=second-rule")

State = dict[str, Any]


def state_of(lab: Lab) -> State:
    """What the second plan may change, and what it may not."""
    return {
        "records": dict(lab.rows(f"SELECT id::text, r::text FROM {RECORDS} r")),
        "catalog": [row for row in lab.catalog() if row[0] != "at_most_one"],
        "sessions": lab.sessions(),
        "served": lab.served(),
    }


def surplus_of(lab: Lab) -> set[str]:
    """By the rule's words alone: valid records of a device and day that are not the one written last."""
    return {
        row[0]
        for row in lab.rows(
            f"""SELECT id::text FROM (SELECT id, row_number() OVER (PARTITION BY equipment_serial, inspection_date
                                        ORDER BY created_at DESC, id) AS place FROM {RECORDS}
                  WHERE overall_status NOT IN ('superseded', 'cancelled')) ranked WHERE place > 1"""
        )
    }


def statuses(lab: Lab) -> dict[str, str]:
    return dict(lab.rows(f"SELECT id::text, overall_status FROM {RECORDS}"))


@pytest.fixture(scope="module")
def deployed(lab: Lab) -> tuple[Lab, State, set[str], Run]:
    """The first plan deployed, the second one's duplicates there, then the second one deployed."""
    make("lab-reset")
    first = run_playbook("deploy.yml")
    assert first.code == 0, first.output
    make("lab-commit", "NAME=second-rule")
    lab.rows((ROOT / "lab/sql/second-rule.sql").read_text())
    before, surplus = state_of(lab), surplus_of(lab)
    before["statuses"] = statuses(lab)
    assert len(surplus) == 12
    return lab, before, surplus, run_playbook("deploy.yml", *DEPLOY, *light_build(lab))


Deployed = tuple[Lab, State, set[str], Run]


def test_reports_what_it_did(deployed: Deployed) -> None:
    lab, before, _, run = deployed
    assert run.code == 0, run.output
    report = run.report
    assert (report["outcome"], report["plan"]["id"]) == ("deployed", PLAN)
    assert report["cleanup"] == {"groups": 8, "planned": 12, "removed": 12, "archived": 12, "unarchived": []}
    assert [(index["name"], index["verdict"]) for index in report["indexes"]] == [(INDEX, "present")]
    assert report["duplicates_left"] == 0
    assert {report["commit"]["before"]} == before["served"]
    assert lab.served(20) == {report["commit"]["after"]} != before["served"]


def test_surplus_rows_are_superseded_and_archived_as_they_were(deployed: Deployed) -> None:
    lab, before, surplus, run = deployed
    after = statuses(lab)
    assert set(after) == set(before["statuses"]), "no row has left"
    changed = {id_ for id_, status in after.items() if status != before["statuses"][id_]}
    assert changed == surplus
    assert {after[id_] for id_ in surplus} == {"superseded"}
    others = {id_: row for id_, row in before["records"].items() if id_ not in surplus}
    assert others == {id_: row for id_, row in state_of(lab)["records"].items() if id_ not in surplus}
    archived = lab.rows(
        "SELECT primary_key->>'id', action, \"row\"->>'overall_status' FROM at_most_one.archived_row WHERE run_id = %s",
        run.report["run_id"],
    )
    assert {(id_, action, status) for id_, action, status in archived} == {
        (id_, "update", before["statuses"][id_]) for id_ in surplus
    }


def test_its_index_refuses_a_second_record_and_lets_what_is_superseded_be(deployed: Deployed) -> None:
    lab, _, surplus, _ = deployed
    again = f"""INSERT INTO {RECORDS} (equipment_serial, inspector_id, inspection_date, overall_status)
                SELECT equipment_serial, inspector_id, inspection_date, %s FROM {RECORDS} WHERE id::text = %s"""
    with lab.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(again, ("superseded", min(surplus)))
        with pytest.raises(psycopg2.errors.UniqueViolation) as refused:
            cursor.execute(again, ("pass", min(surplus)))
        cursor.execute("ROLLBACK")
    assert refused.value.diag.constraint_name == INDEX
    assert lab.fences() == 0, "the fence is lowered"


def test_the_first_rule_still_holds_and_its_own_plan_says_so(deployed: Deployed) -> None:
    lab, before, _, _ = deployed
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert {id_: row for id_, row in lab.sessions().items() if id_ in before["sessions"]} == before["sessions"]
    run = run_playbook("deploy.yml", "--tags", "verify", "-e", "app_branch=second-rule")
    assert run.code == 0, run.output


def test_a_second_run_changes_nothing(deployed: Deployed) -> None:
    lab, _, _, _ = deployed
    records, pids = state_of(lab)["records"], lab.pids()
    run = run_playbook("deploy.yml", *DEPLOY)
    assert run.code == 0, run.output
    assert (run.report["outcome"], run.changed) == ("unchanged", 0)
    assert (state_of(lab)["records"], lab.pids()) == (records, pids)


def test_it_is_taken_back_first_without_then_with_its_rows(deployed: Deployed) -> None:
    lab, before, surplus, _ = deployed
    superseded = {id_: row for id_, row in state_of(lab)["records"].items() if id_ in surplus}

    back = run_playbook("rollback.yml", "-e", f"plan={PLAN}", "-e", "rollback_restore_rows=false")

    assert back.code == 0, back.output
    assert back.report["outcome"] == "rolled_back"
    after = state_of(lab)
    assert after["catalog"] == before["catalog"], "the index has gone, everything else is there"
    assert after["served"] == before["served"]
    assert {id_: row for id_, row in after["records"].items() if id_ in surplus} == superseded, "rows stay where asked"
    history = "SELECT rolled_back_at IS NOT NULL FROM aedpics._prisma_migrations WHERE migration_name = %s"
    assert lab.rows(history, MIGRATION) == [(True,)]

    rows = run_playbook("rollback.yml", "-e", f"plan={PLAN}", "-e", "rollback_restore_rows=true")

    assert rows.code == 0, rows.output
    after = state_of(lab)
    assert after["records"] == before["records"], "every record as it was"
    assert after["catalog"] == before["catalog"]
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True)), "the first rule was never touched"


def test_it_is_deployed_and_taken_back_once_more(deployed: Deployed) -> None:
    lab, before, _, _ = deployed
    forward = run_playbook("deploy.yml", *DEPLOY)
    assert forward.code == 0, forward.output
    assert forward.report["cleanup"]["removed"] == 12

    back = run_playbook("rollback.yml", "-e", f"plan={PLAN}", "-e", "rollback_restore_rows=true")
    assert back.code == 0, back.output
    after = state_of(lab)
    assert (after["records"], after["catalog"]) == (before["records"], before["catalog"])
