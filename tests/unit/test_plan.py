"""A plan is complete and consistent, or the error names the key at fault."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.errors import OperatorError
from at_most_one.plan import (
    Expected,
    IndexKey,
    SortKey,
    Surplus,
    Tenants,
    filled,
    for_other_tenant,
    for_tenant,
    is_tenant,
    parse,
    tenant_place,
)

PLANS = Path(__file__).resolve().parents[2] / "plans"
PLAN_FILE = PLANS / "one-active-inspection-session.yml"


@pytest.fixture
def data() -> dict[str, Any]:
    """The shipped plan, fresh for every test to change."""
    return copy.deepcopy(yaml.safe_load(PLAN_FILE.read_text()))


class TestTheShippedPlan:
    def test_says_what_the_guide_says(self, data: dict[str, Any]) -> None:
        plan = parse(data)
        assert (plan.schema, plan.table, plan.key) == ("aedpics", "inspection_sessions", ("equipment_serial",))
        assert plan.keep == (SortKey("started_at", "desc", "last"),)
        assert plan.expected == Expected(groups=10, rows=25)
        assert plan.ceiling == 52
        assert [index.name for index in plan.indexes] == [
            "idx_inspection_sessions_active_session_per_equipment",
            "idx_inspection_schedules_equipment_date",
            "idx_inspection_schedules_active",
        ]
        assert plan.rule_index is plan.indexes[0]
        assert plan.migration == "20251110_add_partial_unique_indexes"

    def test_an_index_is_on_the_plans_table_unless_it_says_otherwise(self, data: dict[str, Any]) -> None:
        plan = parse(data)
        assert [index.table for index in plan.indexes] == ["inspection_sessions", *["inspection_schedules"] * 2]
        assert plan.indexes[1].keys[0] == IndexKey("aed_data_id", None, None, None, None, None)


class TestEveryShippedPlan:
    @pytest.mark.parametrize("file", sorted(PLANS.glob("*.yml")), ids=lambda file: file.stem)
    def test_is_named_after_its_id_and_counts_below_its_ceiling(self, file: Path) -> None:
        plan = parse(yaml.safe_load(file.read_text()))
        assert plan.id == file.stem
        assert plan.expected.rows is not None
        assert plan.expected.rows <= plan.ceiling

    def test_none_shares_an_index_a_family_or_a_migration_with_another(self) -> None:
        plans = [parse(yaml.safe_load(file.read_text())) for file in sorted(PLANS.glob("*.yml"))]
        assert len(plans) >= 2
        for one, other in itertools.permutations(plans, 2):
            assert one.migration != other.migration
            strangers = [index.name for index in other.indexes if re.search(one.family.pattern, index.name)]
            assert strangers == [], "the one plan's verify would call them unexpected"


class TestTheSecondPlan:
    def test_has_another_shape_than_the_first(self) -> None:
        plan = parse(yaml.safe_load((PLANS / "one-valid-inspection-per-day.yml").read_text()))
        assert (plan.table, plan.key) == ("inspections", ("equipment_serial", "inspection_date"))
        assert plan.surplus == Surplus("update", {"overall_status": "superseded"}, "stop")
        assert [index.name for index in plan.indexes] == [plan.rule_index.name]
        assert "'superseded'" in plan.predicate, "an updated row has to leave the rule"


class TestDigest:
    def test_does_not_depend_on_the_order_of_keys(self, data: dict[str, Any]) -> None:
        assert parse(dict(reversed(data.items()))).sha256 == parse(data).sha256

    @pytest.mark.parametrize(("key", "value"), [("ceiling", 53), ("predicate", "status = 'active'")])
    def test_changes_with_any_value(self, data: dict[str, Any], key: str, value: Any) -> None:
        changed = {**copy.deepcopy(data), key: value}
        changed["indexes"][0]["predicate"] = changed["predicate"]
        assert parse(changed).sha256 != parse(data).sha256


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            target = target[part]
        target[last] = value

    return change


FAULTS = [
    ("id", None, "id", "missing"),
    ("tabel", "x", "tabel", "an unknown key"),
    ("schema", "  ", "schema", "non-empty text"),
    ("title.en", None, "title.en", "missing"),
    ("title.ko", " ", "title.ko", "a non-empty text"),
    ("title.de", "x", "title.de", "an unknown key"),
    ("primary_key", [], "primary_key", "empty or missing"),
    ("primary_key", "id", "primary_key", "a list of names"),
    ("key", ["equipment_serial", "equipment_serial"], "key", "names something twice"),
    ("keep", None, "keep", "a list with at least one entry"),
    ("keep.0.direction", "down", "keep[0].direction", "one of asc, desc"),
    ("keep.0.nulls", None, "keep[0].nulls", "one of first, last"),
    ("surplus.action", "hide", "surplus.action", "one of delete, update"),
    ("surplus.action", "update", "surplus.values", "values with action update"),
    ("surplus.values", {"status": "cancelled"}, "surplus.values", "values with action update"),
    ("surplus.references", "ignore", "surplus.references", "one of stop, repoint"),
    ("surplus.triggers", "audit", "surplus.triggers", "a list of names"),
    ("surplus.triggers", ["audit", "audit"], "surplus.triggers", "names something twice"),
    ("surplus.writes", [1], "surplus.writes", "a list of names"),
    ("expected.rows", -1, "expected.rows", "zero or more"),
    ("expected.rows", True, "expected.rows", "a whole number"),
    ("ceiling", None, "ceiling", "the largest number of rows"),
    ("ceiling", "52", "ceiling", "a whole number"),
    ("indexes", [], "indexes", "at least one entry"),
    ("indexes.1.columns", [], "indexes[1].columns", "at least one entry"),
    ("indexes.1.columns.0", {"order": "asc"}, "indexes[1].columns[0]", "not exactly one of column and expression"),
    ("indexes.1.columns.0", {"column": "a", "expression": "b"}, "indexes[1].columns[0]", "one of the two"),
    ("indexes.1.unique", "yes", "indexes[1].unique", "true or false"),
    ("indexes.1.name", "idx_inspection_schedules_active", "indexes", "share a name"),
    ("indexes.1.name", f"{'장비_' * 9}x", "indexes[1].name", "64 bytes long. Expected: 63 at most"),
    ("family.pattern", "(", "family.pattern", "not a regular expression"),
    ("family.neighbours", "x", "family.neighbours", "a list of names"),
    ("migration", 20251110, "migration", "a non-empty text"),
]


class TestFaults:
    @pytest.mark.parametrize(("path", "value", "key", "words"), FAULTS)
    def test_the_error_names_the_key_and_what_belongs_there(
        self, data: dict[str, Any], path: str, value: Any, key: str, words: str
    ) -> None:
        _set(path, value)(data)
        with pytest.raises(OperatorError) as stop:
            parse(data)
        assert stop.value.details["key"] == key
        assert words in str(stop.value)
        assert f"{key} " in stop.value.seen

    @pytest.mark.parametrize("key", ["id", "schema", "table", "predicate", "keep", "indexes", "family", "migration"])
    def test_a_missing_key_is_named(self, data: dict[str, Any], key: str) -> None:
        del data[key]
        with pytest.raises(OperatorError) as stop:
            parse(data)
        assert str(stop.value.details["key"]).split(".")[0] == key

    def test_every_fault_is_named_at_once(self, data: dict[str, Any]) -> None:
        data |= {"schema": None, "ceiling": "52", "surplus": {"action": "hide"}}
        with pytest.raises(OperatorError) as stop:
            parse(data)
        assert stop.value.details["keys"] == ["schema", "surplus.action", "ceiling"]
        assert [finding.name for finding in stop.value.findings] == ["schema", "surplus.action", "ceiling"]
        assert "schema is missing." in stop.value.seen
        assert "ceiling is '52'." in stop.value.seen

    @pytest.mark.parametrize("data", [None, [], "plan", 1])
    def test_something_else_than_a_mapping_is_refused(self, data: Any) -> None:
        with pytest.raises(OperatorError, match="a mapping"):
            parse(data)


class TestTheRulesIndex:
    """Without a unique index on exactly the rule's table, key and predicate the plan would enforce nothing."""

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("indexes.0.unique", False),
            ("indexes.0.table", "inspection_schedules"),
            ("indexes.0.columns", ["equipment_serial", "status"]),  # one active and one paused could coexist
            ("indexes.0.columns", [{"expression": "lower(equipment_serial)"}]),
            ("indexes.0.predicate", "status = 'active'"),
            ("indexes.0.predicate", None),
            ("predicate", "status IN ('active')"),
        ],
    )
    def test_an_index_that_does_not_enforce_the_rule_is_refused(
        self, data: dict[str, Any], path: str, value: Any
    ) -> None:
        _set(path, value)(data)
        with pytest.raises(OperatorError, match="without the index that enforces the rule"):
            parse(data)

    def test_the_order_of_its_columns_is_free(self, data: dict[str, Any]) -> None:
        data["key"] = ["equipment_serial", "inspector_id"]
        data["indexes"][0]["columns"] = ["inspector_id", {"column": "equipment_serial", "order": "desc"}]
        assert parse(data).rule_index.name == data["indexes"][0]["name"]


class TestOptions:
    def test_an_update_takes_values_as_text(self, data: dict[str, Any]) -> None:
        data["surplus"] = {"action": "update", "values": {"status": "cancelled", "current_step": 3, "notes": None}}
        surplus = parse(data).surplus
        assert surplus.values == {"status": "cancelled", "current_step": "3", "notes": None}
        assert surplus.references == "stop"

    def test_a_title_without_korean_is_the_english_one(self, data: dict[str, Any]) -> None:
        del data["title"]["ko"]
        plan = parse(data)
        assert plan.title["ko"] == plan.title["en"] == filled(data)["title"]["ko"]
        assert (
            plan.sha256 == parse(filled(data)).sha256 == parse({**data, "title": {**data["title"], "ko": None}}).sha256
        )

    def test_figures_may_be_left_open(self, data: dict[str, Any]) -> None:
        del data["expected"]
        assert parse(data).expected == Expected(None, None)

    def test_an_index_may_say_everything(self, data: dict[str, Any]) -> None:
        column = {"column": "name", "order": "desc", "nulls": "last", "opclass": "text_pattern_ops", "collation": "C"}
        data["indexes"].append(
            {"name": "x", "columns": [column], "method": "btree", "include": ["id"], "nulls_not_distinct": True}
        )
        index = parse(data).indexes[-1]
        assert index.keys == (IndexKey("name", None, "desc", "last", "text_pattern_ops", "C"),)
        assert (index.include, index.nulls_not_distinct, index.predicate) == (("id",), True, None)

    def test_an_expression_is_pointed_to_a_generated_column(self, data: dict[str, Any]) -> None:
        data["indexes"][0]["columns"] = [{"expression": "lower(equipment_serial)"}]
        with pytest.raises(OperatorError, match="add a generated column for the expression"):
            parse(data)


class TestTenants:
    def test_each_is_a_plan_of_its_own_and_the_same_but_for_its_schema(self, data: dict[str, Any]) -> None:
        data |= {"tenants": {"schemas": ["seoul", "busan"]}}
        data["surplus"]["writes"] = ["aedpics.audit", "shared.log"]
        whole = parse(data)
        plans = [parse(for_tenant(data, schema)) for schema in ("seoul", "busan")]
        assert [plan.schema for plan in plans] == ["seoul", "busan"]
        assert [plan.id for plan in plans] == [f"{whole.id}@seoul", f"{whole.id}@busan"]
        assert {plan.file for plan in (whole, *plans)} == {whole.id}
        assert [plan.surplus.writes for plan in plans] == [("seoul.audit", "shared.log"), ("busan.audit", "shared.log")]
        assert plans[0].title == {language: f"{text} [seoul]" for language, text in whole.title.items()}
        assert len({plan.sha256 for plan in (whole, *plans)}) == 3
        own: dict[str, Any] = {"id": "", "schema": "", "title": {}, "sha256": ""}
        own |= {"surplus": whole.surplus, "tenants": None}
        assert replace(plans[0], **own) == replace(plans[1], **own) == replace(whole, **own)

    def test_a_title_in_english_alone_is_that_of_the_tenant_in_both(self, data: dict[str, Any]) -> None:
        del data["title"]["ko"]
        title = for_tenant(data, "seoul")["title"]
        assert title["ko"] == title["en"] == f"{data['title']['en']} [seoul]"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ({"schemas": ["b", "a"]}, Tenants(("b", "a"))),
            ({"query": " SELECT name FROM public.tenant "}, Tenants((), "SELECT name FROM public.tenant")),
            ({}, Tenants()),
            (None, Tenants()),
        ],
    )
    def test_they_are_listed_asked_for_or_left_to_the_inventory(
        self, data: dict[str, Any], value: Any, expected: Tenants
    ) -> None:
        assert parse(data).tenants is None
        assert parse({**data, "tenants": value}).tenants == expected

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("aedpics.is_open(status)", True),
            ("status = 'active'::aedpics.session_status", True),
            ('"aedpics" . is_open(status)', True),
            ("AEDPICS.is_open(status)", True),
            ("status = 'aedpics.active'", False),
            ("note = 'it''s aedpics.x'", False),
            ("shared.is_open(status)", False),
            ("my_aedpics.is_open(status)", False),
        ],
    )
    def test_a_condition_names_no_schema_of_a_tenant(self, data: dict[str, Any], text: str, names: bool) -> None:
        data["indexes"][1]["predicate"] = text
        parse(data)
        data["tenants"] = {}
        if not names:
            parse(data)
            return
        with pytest.raises(OperatorError) as stop:
            parse(data)
        assert stop.value.details["keys"] == ["indexes[1].predicate"]
        assert "names the schema aedpics" in stop.value.seen

    @pytest.mark.parametrize(
        ("name", "may"),
        [
            *((name, True) for name in ("shop_1", "a-b$", "지점", "Shop", "eu.shop", "A-1.지점")),
            *((name, False) for name in ("a.b.c", ".b", "a.", "a/b", "a b", 'a"b', "a@b", "a\n", "")),
        ],
    )
    def test_a_name_stands_in_commands_and_files(self, name: str, may: bool) -> None:
        assert is_tenant(name) is may
        assert not is_tenant(None)
        assert (is_tenant("a" * 63), is_tenant("a" * 64), is_tenant("지" * 22)) == (True, False, False)
        assert (is_tenant(f"{'a' * 63}.{'b' * 63}"), is_tenant(f"{'a' * 64}.b")) == (True, False), "each by itself"

    def test_one_in_another_database_is_named_with_it(self, data: dict[str, Any]) -> None:
        data |= {"tenants": {"schemas": ["seoul", "eu.seoul"]}}
        data["surplus"]["writes"] = ["aedpics.audit", "shared.log"]
        assert parse(data).tenants == Tenants(("seoul", "eu.seoul"))
        here, there = (parse(for_tenant(data, name)) for name in ("seoul", "eu.seoul"))
        assert (there.id, there.schema, there.file) == (f"{data['id']}@eu.seoul", "seoul", data["id"])
        assert there.title["en"].endswith(" [eu.seoul]")
        assert there.surplus.writes == here.surplus.writes == ("seoul.audit", "shared.log")
        assert there.sha256 != here.sha256
        assert for_other_tenant(for_tenant(data, "seoul"), "eu.seoul") == for_tenant(data, "eu.seoul")
        assert for_other_tenant(for_tenant(data, "eu.seoul"), "busan") == for_tenant(data, "busan")
        assert [tenant_place(name) for name in ("seoul", "eu.seoul")] == [("", "seoul"), ("eu", "seoul")]
