"""What was reviewed is a row's content, not only its key: a row that has changed since stays and is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from at_most_one.duplicates import plan_file, surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres.connection import Connection, Login

from tests.database.cleaning import TABLE, Waiting, ids, run


class Reviewed:
    """A clean-up plan as a file, and the removal of its rows that are as they were."""

    def __init__(self, connection: Connection, plan: Plan, path: Path) -> None:
        self.plan = plan

        def fill(hand_over: Any) -> dict[str, Any]:
            return {"digest": surplus_rows.report(connection, plan, into=hand_over).digest}

        plan_file.write(str(path), fill)
        self.file = plan_file.RowsFile(str(path))
        self.contents = {row[0]: row[-1] for row in self.file.rows()}

    def remove(self, connection: Connection, **more: Any) -> surplus_rows.Removal:
        return surplus_rows.remove(
            connection,
            self.plan,
            rows=self.file.rows(),
            digest=self.file.digest(),
            run_id="run-1",
            **{"only_unchanged": True, **more},
        )


CANCELLING = Surplus("update", {"status": "cancelled"}, "stop")


@pytest.mark.parametrize("action", ["delete", "update"])
def test_a_row_that_has_changed_since_the_review_stays_and_is_named(
    connection: Connection, plan: Plan, example: Any, tmp_path: Path, action: str
) -> None:
    planned = plan if action == "delete" else replace(plan, surplus=CANCELLING)
    reviewed = Reviewed(connection, planned, tmp_path / "plan.json")
    first, other = (surplus_rows.report(connection, planned).groups[number].surplus for number in (0, 1))
    changed = sorted(str(row["id"]) for row in [*first[:2], other[0]])
    moved = other[1]["id"]
    run(connection, f"UPDATE {TABLE} SET notes = 'written after the review' WHERE id = ANY (%s::uuid[])", changed)
    run(connection, f"UPDATE {TABLE} SET notes = notes WHERE id = %s", moved)  # another place, the same content
    for check in (True, False):
        done = reviewed.remove(connection, check=check)
        assert (done.removed, done.rows_left, done.groups_left) == (22, 3, 2)
        assert [(row.row, row.why) for row in done.unarchived] == [([row], "changed") for row in changed]
    open_ones = ids(connection, "status IN ('active', 'paused')")
    assert open_ones & example.surplus == set(changed)
    assert ids(connection, "notes = 'written after the review'") == set(changed)


def test_every_column_counts_also_one_whose_type_has_no_binary_form(
    connection: Connection, plan: Plan, example: Any, tmp_path: Path
) -> None:
    names = {
        "rights": ("aclitem[]", "'{=r/aedpics_admin}'", "'{=rw/aedpics_admin}'"),
        "ratio": ("numeric", "1.0", "1.00"),
        "folded": ("aedpics.any_case", "'a'", "'A'"),
    }
    run(
        connection,
        "CREATE COLLATION aedpics.fold (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        " CREATE DOMAIN aedpics.any_case AS text COLLATE aedpics.fold",
    )
    for name, (kind, first, _) in names.items():
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN {name} {kind} DEFAULT {first}")
    reviewed = Reviewed(connection, plan, tmp_path / "plan.json")
    assert {len(content) for content in reviewed.contents.values()} == {32}
    rows = sorted(example.surplus)
    for row, (name, (_, _, second)) in zip(rows, names.items(), strict=False):
        run(connection, f"UPDATE {TABLE} SET {name} = {second} WHERE id = %s", row)
    done = reviewed.remove(connection)
    assert {row.row[0] for row in done.unarchived} == set(rows[: len(names)])
    assert done.removed == 25 - len(names)


def test_a_row_that_changes_while_its_batch_waits_for_it_stays(
    connection: Connection, plan: Plan, example: Any, tmp_path: Path, waiting: Waiting
) -> None:
    reviewed = Reviewed(connection, plan, tmp_path / "plan.json")
    changed = min(example.surplus)
    waiting.change(f"UPDATE {TABLE} SET notes = 'the last word' WHERE id = %s", changed)
    removal = waiting.start(reviewed.remove)
    waiting.other.commit()
    done = removal.result(10)
    assert (done.removed, done.rows_left) == (24, 1)
    assert [(row.row, row.why) for row in done.unarchived] == [([changed], "changed")]


def test_a_text_that_depends_on_the_search_path_is_compared_under_one_only(
    connection: Connection, plan: Plan, example: Any, tmp_path: Path, login: Login
) -> None:
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN source regclass DEFAULT '{TABLE}'")
    run(connection, f"ALTER ROLE CURRENT_USER IN DATABASE {login.dbname} SET search_path = aedpics")
    reviewed = Reviewed(connection, plan, tmp_path / "plan.json")
    assert reviewed.remove(connection).removed == 25


def test_rows_without_their_content_are_refused_unless_nobody_reviewed_them(
    connection: Connection, plan: Plan, example: Any
) -> None:
    found = surplus_rows.report(connection, plan)
    only_keys: dict[str, Any] = {"rows": found.rows, "digest": found.digest, "run_id": "run-1"}
    with pytest.raises(OperatorError, match=r"does not have the 1 parts of a primary key .* and the hash"):
        surplus_rows.remove(connection, plan, **only_keys, only_unchanged=True)
    assert len(ids(connection)) == 69
    assert surplus_rows.remove(connection, plan, **only_keys).removed == 25


def test_a_plan_that_nobody_reviewed_takes_rows_as_they_are_by_now(
    connection: Connection, plan: Plan, example: Any, tmp_path: Path
) -> None:
    reviewed = Reviewed(connection, plan, tmp_path / "plan.json")
    run(connection, f"UPDATE {TABLE} SET notes = 'written after the report'")
    assert reviewed.remove(connection, only_unchanged=False).removed == 25
    assert run(connection, "SELECT DISTINCT row ->> 'notes' FROM at_most_one.archived_row") == [
        ("written after the report",)
    ]
