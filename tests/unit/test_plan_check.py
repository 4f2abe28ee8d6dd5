"""plan-check names every fault of a plan at once: its line, its key, what is there and what belongs there."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import jsonschema
import pytest
import yaml
from at_most_one import plan
from at_most_one.migration import compare_text
from at_most_one.preflight import plan_source
from at_most_one.prisma import migration_sql

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parent / "plans/good.yml"
BROKEN: list[dict[str, Any]] = yaml.safe_load((GOOD.parent / "broken.yml").read_text())
SCHEMA = json.loads((ROOT / "plans/schema.json").read_text())
EDITOR = jsonschema.Draft202012Validator(SCHEMA)
# What a schema cannot say: these faults are of several values together, or of what a text means.
BEYOND_A_SCHEMA = re.compile(
    r"without the index that enforces|share a name|not a regular expression"
    r"|the same request for every row|not to be written as JSON|names the schema"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with the good plan in it, and its migration."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/good.yml").write_text(GOOD.read_text())
    migration(tmp_path, MIGRATION)
    return tmp_path


def migration(project: Path, text: str) -> None:
    path = project / "release/prisma/migrations/20260101_one_open_order/migration.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def plan_check(project: Path, *arguments: str) -> tuple[int, str]:
    """Its exit status, and what it prints."""
    command = [sys.executable, str(ROOT / "scripts/plan_check.py"), *arguments]
    done = run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_there_are_25_broken_plans() -> None:
    assert len(BROKEN) >= 25


@pytest.mark.parametrize("broken", BROKEN, ids=[broken["what"] for broken in BROKEN])
def test_every_fault_of_a_broken_plan_is_named_with_its_line(broken: dict[str, Any], tmp_path: Path) -> None:
    text = GOOD.read_text()
    assert text.count(broken["replace"]) == 1
    path = tmp_path / "good.yml"
    path.write_text(text.replace(broken["replace"], broken["by"]))
    found = plan_source.read(path).faults
    assert [(fault.line, fault.key) for fault in found] == [(line, key) for line, key, *_ in broken["faults"]]
    for fault, (_, key, seen, expected) in zip(found, broken["faults"], strict=True):
        assert seen in fault.seen
        assert expected in fault.expected
        assert key == "(file)" or fault.seen.startswith(f"{key} is ")


def test_a_merged_mapping_may_be_overridden(tmp_path: Path) -> None:
    path, text = tmp_path / "good.yml", GOOD.read_text()
    text = text.replace("  - name: one_open_order\n", "  - &first\n    name: one_open_order\n")
    merged = "  - <<: *first\n    name: orders_by_name\n    unique: false\n"
    path.write_text(text.replace("  - name: orders_by_name\n", merged))
    source = plan_source.read(path)
    assert source.faults == ()
    assert [one["name"] for one in source.content["indexes"]] == ["one_open_order", "orders_by_name"]


def test_a_file_has_no_name_behind_which_a_tenant_would_stand(tmp_path: Path) -> None:
    path = tmp_path / "good@shop.yml"
    path.write_text(GOOD.read_text().replace("id: good", "id: good@shop"))
    (fault,) = plan_source.read(path).faults
    assert (fault.line, fault.key) == (2, "id")
    assert "a name without @" in fault.expected


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((text, text) for text in ("no", "010", "12:30", "1.10", "2026-01-02", "x")),
        *(("false", False), ("7", 7), ("'no'", "no"), ("null", None), ("", None)),
    ],
)
def test_a_value_for_surplus_rows_is_what_is_written(tmp_path: Path, written: str, value: Any) -> None:
    """Of a column whose name YAML reads as something else, too."""
    path = tmp_path / "good.yml"
    path.write_text(GOOD.read_text().replace("  action: delete", f"  action: update\n  values: {{no: {written}}}"))
    source = plan_source.read(path)
    assert source.faults == ()
    assert source.content["surplus"]["values"] == {"no": value}
    assert type(source.content["surplus"]["values"]["no"]) is type(value)


class TestTheSchemaForEditors:
    """It says what the reader says, about every key, as far as a schema can."""

    def test_every_plan_points_to_it(self) -> None:
        for path in (ROOT / "plans").glob("*.yml"):
            assert "# yaml-language-server: $schema=schema.json\n" in path.read_text()
            EDITOR.validate(yaml.safe_load(path.read_text()))

    def test_it_describes_every_key_of_a_plan(self) -> None:
        assert {name for name, of in SCHEMA["properties"].items() if "description" in of} == set(plan._PLAN_KEYS)

    @pytest.mark.parametrize("broken", BROKEN, ids=[broken["what"] for broken in BROKEN])
    def test_it_refuses_what_the_reader_refuses(self, broken: dict[str, Any]) -> None:
        try:
            content = yaml.safe_load(GOOD.read_text().replace(broken["replace"], broken["by"]))
        except yaml.YAMLError:
            return  # an editor underlines it without a schema
        assert EDITOR.is_valid(content) is readable(content)

    def test_any_value_in_any_place_has_the_same_verdict(self) -> None:
        content = full()
        EDITOR.validate(content)
        assert readable(content)
        tried = 0
        for place in places(content):
            for value in (
                None,
                "",
                " ",
                "x",
                "asc",
                1,
                -1,
                True,
                [],
                ["a"],
                ["a", "a"],
                [None],
                {},
                {"a": "b"},
                LEFT_OUT,
            ):
                changed = put(content, place, value)
                tried += 1
                assert EDITOR.is_valid(changed) is readable(changed), f"{place}: {value!r} {plan.faults(changed)}"
        assert tried > 500


LEFT_OUT = object()


def full() -> dict[str, Any]:
    """A plan in which every key stands."""
    content: dict[str, Any] = yaml.safe_load(GOOD.read_text())
    content["title"]["ko"] = "고객과 날짜별 열린 주문은 최대 1건"
    content["surplus"] |= {
        "action": "update",
        "values": {"status": "closed", "count": 1},
        "writes": [],
        "publications": [],
    }
    content["indexes"][1] |= {"table": "customers", "unique": False}
    content["indexes"][0]["columns"][1] |= {"nulls": "last"}
    content["proof"] |= {"accepts": [201], "as": "admin"}
    content["proof"]["create"] |= {"method": "PUT", "body": {"customer": 7}}
    content["tenants"] = {"schemas": ["shop_a"]}
    return content


def readable(content: Any) -> bool:
    return all(BEYOND_A_SCHEMA.search(fault.seen) for fault in plan.faults(content))


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a plan's content, and in every mapping one for a key that is not there."""
    inside: list[Any] = []
    if isinstance(value, dict):
        inside = [*value.items(), *([("another", None)] if place != ("surplus", "values") else [])]
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [found for part, of in inside for found in [(*place, part), *places(of, (*place, part))]]


def put(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    target: Any = changed
    for part in place[:-1]:
        target = target[part]
    if value is not LEFT_OUT:
        target[place[-1]] = value
    elif isinstance(target, list) or place[-1] in target:
        del target[place[-1]]
    return changed


MIGRATION = """
SET search_path TO shop;
DROP INDEX IF EXISTS one_open_order;
CREATE UNIQUE INDEX "one_open_order" ON "orders" USING btree (customer ASC, "day" DESC NULLS FIRST)
  WHERE (STATUS in ('open','held')); -- another spelling of the same
CREATE INDEX CONCURRENTLY orders_by_name ON shop.orders ((lower(name)) COLLATE "C" text_pattern_ops)
  INCLUDE (id) WITH (fillfactor = 70);
"""


class TestTheMigration:
    """Compared with the plan as far as a text tells; the catalog compares at the start of a run."""

    def test_the_same_in_another_spelling_is_no_difference(self) -> None:
        rule = plan.parse(yaml.safe_load(GOOD.read_text()))
        statements = migration_sql.split(MIGRATION)
        assert compare_text.faults(rule, statements) == []
        assert compare_text.notes(rule, statements) == []

    @pytest.mark.parametrize(
        ("replace", "by", "key", "expected"),
        [
            ("CREATE UNIQUE", "CREATE", "indexes[0].unique", "false, as statement 3 of 20260101_one_open_order"),
            ('ON "orders"', 'ON "Orders"', "indexes[0].table", "Orders, as"),
            ("search_path TO shop", "search_path TO public", "schema", "public, as statement 3"),
            ("ON shop.orders", "ON public.orders", "schema", "public, as statement 4"),
            ('customer ASC, "day"', '"day"', "indexes[0].columns", '"day" DESC NULLS FIRST, as'),
            ("ASC", "DESC", "indexes[0].columns", "customer DESC"),
            ("NULLS FIRST", "NULLS LAST", "indexes[0].columns", "NULLS LAST"),
            ("lower(name)", "upper(name)", "indexes[1].columns", "upper(name)"),
            ('COLLATE "C"', "", "indexes[1].columns", "text_pattern_ops, as"),
            ("text_pattern_ops", "", "indexes[1].columns", 'COLLATE "C", as'),
            ("INCLUDE (id)", "INCLUDE (id, day)", "indexes[1].include", "id, day, as"),
            ("INCLUDE (id)", "", "indexes[1].include", "nothing, as"),
            ("USING btree", "USING gist", "indexes[0].method", "gist, as"),
            ("WITH (", "NULLS NOT DISTINCT WITH (", "indexes[1].nulls_not_distinct", "true, as"),
            ("'held'", "'draft'", "indexes[0].predicate", "(STATUS in ('open','draft')), as"),
            ("WHERE (STATUS in ('open','held'))", "", "indexes[0].predicate", "no condition, as"),
            ("fillfactor = 70)", "fillfactor = 70) WHERE x", "indexes[1].predicate", "x, as"),
            ("(customer ASC", "customer ASC", "indexes[0].columns", "PostgreSQL's own order"),
            ("CREATE INDEX CONCURRENTLY", "-- ", "migration", "a CREATE INDEX for each planned index"),
            (
                "fillfactor = 70);",
                "fillfactor = 70); DROP INDEX IF EXISTS one_open_order;",
                "migration",
                "kept to the end",
            ),
        ],
    )
    def test_what_it_builds_otherwise_is_named_by_the_plans_key(
        self, replace: str, by: str, key: str, expected: str
    ) -> None:
        rule = plan.parse(yaml.safe_load(GOOD.read_text()))
        assert replace in MIGRATION
        found = compare_text.faults(rule, migration_sql.split(MIGRATION.replace(replace, by, 1)))
        assert key in [fault.key for fault in found]
        assert any(expected in fault.expected for fault in found), found


class TestTheCommand:
    def test_a_good_plan_and_its_migration(self, project: Path) -> None:
        assert plan_check(project) == (0, "plans/good.yml: nothing is wrong\n")
        code, said = plan_check(project, "good", "--release", "release")
        assert (code, said.splitlines()[0]) == (
            0,
            "plans/good.yml: migration 20260101_one_open_order in release is written as the plan is",
        )

    def test_every_error_at_once_with_the_command_to_repeat(self, project: Path) -> None:
        text = (project / "plans/good.yml").read_text()
        (project / "plans/good.yml").write_text(text.replace("shop", "7").replace("btree", "[]"))
        code, said = plan_check(project, "good")
        assert code == 1
        assert "plans/good.yml:5: schema is 7 (int).\n  Expected: a non-empty text.\n  Next: correct it" in said
        assert "plans/good.yml:34: indexes[1].method is a list." in said
        again = re.search(r"then (\S+) (\S+) plans/good.yml$", said, re.MULTILINE)
        assert again
        assert run([*again.groups(), "plans/good.yml"], cwd=project, capture_output=True, check=False).returncode == 1

    def test_in_korean(self, project: Path) -> None:
        assert plan_check(project, "--language", "ko") == (0, "plans/good.yml: 문제 없음\n")
        code, said = plan_check(project, "none", "--language", "ko")
        assert code == 1
        assert "plans/none.yml이(가) 없습니다.\n  기대: 다음 중 하나여야 합니다: good." in said
        assert "계획 1개 중 1개에 문제가 있습니다" in said

    def test_a_migration_that_differs_is_named_by_the_plans_line(self, project: Path) -> None:
        migration(project, MIGRATION.replace("'held'", "'draft'") + "ALTER TABLE shop.orders ADD note text;")
        code, said = plan_check(project, "good", "--release", "release")
        assert code == 1
        assert "plans/good.yml:28: indexes[0].predicate is status IN ('open', 'held').\n" in said
        assert "because statement 5 begins with ALTER TABLE" in said

    def test_a_release_without_the_migration_says_which_it_has(self, project: Path) -> None:
        (project / "release/prisma/migrations/20260101_one_open_order").rename(
            project / "release/prisma/migrations/20260102_other"
        )
        code, said = plan_check(project, "good", "--release", "release")
        assert code == 1
        assert "plans/good.yml:40: migration is 20260101_one_open_order, which release/prisma/migrations does" in said
        assert "one of 20260102_other." in said
