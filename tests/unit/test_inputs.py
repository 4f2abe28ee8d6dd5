"""What a command asks for is checked before anything is connected: every finding at once, each with its next step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.errors import OperatorError
from at_most_one.plan import filled
from at_most_one.preflight import inputs
from at_most_one.preflight.inputs import Asked, Hosts
from at_most_one.verdicts import PHASES

SPEC = (
    "argument_specs: {main: {options: {run_front_door: {}, run_lease_minutes: {}}}, check: {options: {run_extra: {}}}}"
)
PLAN = (Path(__file__).parent / "plans/good.yml").read_text().replace("id: good", "id: rule")
GOOD = Hosts("app-1", ("app-1", "app-2"), {"app-1": "http://a", "app-2": "http://b"}, "https://app", "25%")


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """A project with one role and one plan, and a command in which nothing is wrong."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/rule.yml").write_text(PLAN)
    (tmp_path / "roles/run/meta").mkdir(parents=True)
    (tmp_path / "roles/run/meta/argument_specs.yml").write_text(SPEC)
    (tmp_path / "inventories/staging").mkdir(parents=True)
    (tmp_path / "inventories/staging/target.guard").touch()
    return Asked(
        project=tmp_path,
        home=tmp_path,
        base=tmp_path,
        options={"inventory": [str(tmp_path / "inventories/staging")], "subset": "staging"},
        playbook="deploy.yml",
        inventory=str(tmp_path / "inventories/staging"),
        host="app-1",
        environment="staging",
        limit="staging",
        plan="rule",
        names=["run_front_door", "run_extra", "app_name", "ansible_host", "run", "runner_ident"],
        required=["vault_password"],
        is_set=lambda name: True,
        reviewed_plan="",
    )


def refused(asked: Asked, hosts: Hosts | None = None) -> OperatorError:
    with pytest.raises(OperatorError) as error:
        inputs.plan_of(asked, hosts)
    return error.value


def without(*names: str) -> Callable[[str], bool]:
    return lambda name: name not in names


def test_a_right_command_gets_its_plan(asked: Asked) -> None:
    asked = replace(asked, names=[name for name in asked.names if name != "app_name"])
    plan = inputs.plan_of(asked)
    assert plan == inputs.plan_of(asked, GOOD) == filled(yaml.safe_load(PLAN))
    assert plan["title"]["ko"] == plan["title"]["en"], "every report finds a title"


@pytest.mark.parametrize(
    ("run", "skip", "whole", "phases"),
    [
        (["all"], [], True, list(PHASES)),
        (["all"], ["pm2-reload"], False, [phase for phase in PHASES if phase != "pm2_reload"]),
        (["all"], ["schedule"], True, list(PHASES)),
        (["healthcheck", "pm2-reload"], [], False, ["pm2_reload", "healthcheck"]),
        (["verify", "cleanup"], ["verify"], False, ["cleanup"]),
        (["always"], [], False, []),
    ],
)
def test_tags_ask_for_phases(run: list[str], skip: list[str], whole: bool, phases: list[str]) -> None:
    assert (inputs.is_whole(run, skip), inputs.asked_phases(run, skip)) == (whole, phases)


def test_what_an_earlier_run_of_the_playbook_has_left_is_no_mistake_unless_it_is_given(asked: Asked) -> None:
    left = replace(asked, names=sorted(inputs.FACTS))
    assert inputs.plan_of(left)["id"] == "rule"
    given = replace(left, options={**asked.options, "extra_vars": ["run_facts=1"]})
    assert "No role knows run_facts." in refused(given).seen


BARE = {"app_adapter": "none", "migrate_adapter": "sql"}


def test_the_database_alone_needs_no_application_and_is_asked_for_no_phase_of_it(asked: Asked) -> None:
    alone = replace(asked, names=[], settings=BARE, is_set=without("app_path", "app_url"))
    assert inputs.plan_of(alone)["id"] == "rule"
    assert alone.phases == ["prepare", "cleanup", "migrate", "verify"]
    assert replace(asked, run_tags=["healthcheck", "verify"]).phases == ["verify", "healthcheck"]
    shared = Hosts("app-1", ("app-1", "app-2"), {"app-1": "", "app-2": ""}, "", "1")
    assert inputs.plan_of(alone, shared), "no host has an address of its own to be asked at"
    without_backup = replace(alone, is_set=without("prepare_backup_path"))
    assert refused(without_backup).seen == "staging lacks prepare_backup_path."
    assert inputs.plan_of(replace(without_backup, settings={**BARE, "prepare_backup_keep": 0}))
    assert "not part of this run" in refused(replace(alone, run_tags=["pm2-reload"])).seen


def test_an_application_of_commands_needs_its_address_and_no_path(asked: Asked) -> None:
    commands = {**{name: ["{version}"] for name in ("status", "apply", "back")}, "path": "/srv"}
    settings = {**BARE, "app_adapter": "command", "app_commands": commands, "app_version": "1.4.2"}
    alone = replace(asked, names=[], settings=settings, is_set=without("app_path"))
    assert inputs.plan_of(alone)["id"] == "rule"
    assert alone.phases == list(PHASES)
    assert refused(replace(alone, is_set=without("app_path", "app_url"))).seen == "staging lacks app_url."


def test_the_migration_beside_the_plan_is_read_where_no_prisma_runs_it(asked: Asked) -> None:
    plan = inputs.plan_of(replace(asked, names=[]))
    alone = replace(asked, settings=BARE)
    assert inputs.migration_sql(alone, plan) == inputs.migration_sql(alone, {}) == ""
    path = asked.project / "plans/rule/prisma/migrations" / plan["migration"] / "migration.sql"
    path.parent.mkdir(parents=True)
    path.write_text("CREATE UNIQUE INDEX x;")
    assert inputs.migration_sql(alone, plan) == "CREATE UNIQUE INDEX x;"
    assert inputs.migration_sql(asked, plan) == "", "Prisma reads it in the release"


def test_a_playbook_that_makes_plans_needs_none(asked: Asked) -> None:
    asked = replace(asked, names=[], plan="none-yet")
    assert "There is no plan none-yet" in refused(asked).seen
    assert inputs.plan_of(replace(asked, needs_plan=False)) == {}


@pytest.mark.parametrize(
    ("change", "seen", "next_step"),
    [
        (
            {"plan": None},
            "The inventory of app-1 lacks plan",
            "ansible-playbook deploy.yml -i inventories/staging -l staging",
        ),
        (
            {"limit": None},
            "No target: --limit is missing.",
            "ansible-playbook deploy.yml -i inventories/staging -l staging",
        ),
        ({"limit": ""}, "No target: --limit is missing.", "deploy.yml -i inventories/staging -l staging"),
        ({"limit": " ,"}, "No target: --limit is missing.", "deploy.yml -i inventories/staging -l staging"),
        ({"plan": "other"}, "There is no plan other: plans/other.yml does not exist.", "-l staging -e plan=<its name>"),
        ({"plan": ""}, "plan is empty.", "-l staging -e plan=rule"),
        ({"names": ["run_lease_minute"]}, "No role knows run_lease_minute.", "correct the name, or take it out: "),
        ({"names": ["app_nome"]}, "No role knows app_nome.", "correct the name, or take it out: "),
        ({"reviewed_plan": "/nope.json"}, "/nope.json is not a file.", "-l staging --check"),
        (
            {"is_set": without("vault_password", "app_name")},
            "staging lacks vault_password.",
            "-l staging --ask-vault-pass",
        ),
        (
            {"is_set": without("app_name", "app_url")},
            "staging lacks app_name, app_url.",
            "ansible-vault create that file",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_right_command(
    asked: Asked, change: dict[str, Any], seen: str, next_step: str
) -> None:
    error = refused(replace(asked, **{"names": [], **change}))
    assert error.seen.startswith(seen)
    assert error.expected
    assert next_step in error.next_step
    assert len(error.findings) == 1


def test_an_unknown_variable_is_told_which_ones_look_like_it(asked: Asked) -> None:
    error = refused(
        replace(
            asked, names=["run_lease_minuts"], options={**asked.options, "extra_vars": ("run_lease_minuts=3", "a=1")}
        )
    )
    assert "run_lease_minutes" in error.expected.partition(", such as ")[2]
    assert error.next_step.endswith("-l staging -e a=1"), "the command leaves the wrong name out, and only that"


def test_in_a_project_of_somebody_else_only_mistakes_of_our_names_are_refused(asked: Asked, tmp_path: Path) -> None:
    """Without the roles beside the plans: their variables may begin as ours do."""
    theirs = replace(asked, base=tmp_path / "theirs", names=["app_nginx", "database_url", "run_every_day"])
    spec = SPEC.replace("run_front_door: {}", "run_front_door: {}, app_name: {}, database_user: {}")
    (tmp_path / "roles/run/meta/argument_specs.yml").write_text(spec)
    assert inputs.plan_of(theirs)["id"] == "rule"
    assert refused(replace(theirs, base=tmp_path)).seen == "No role knows app_nginx, database_url, run_every_day."
    assert refused(replace(theirs, names=["app_nmae"])).seen == "No role knows app_nmae."
    given = {**asked.options, "extra_vars": ("run_every_day=1",)}
    assert refused(replace(theirs, options=given)).seen == "No role knows run_every_day.", "-e is for this very run"


def test_no_other_rule_is_offered_in_the_place_of_one_that_is_gone(asked: Asked) -> None:
    """Copied at night, the command would take the other one back."""
    (asked.project / "plans/a-first-one.yml").touch()
    for plan, offered in (("rul", "rule"), ("gone", "<its name>"), ("", "<its name>")):
        error = refused(replace(asked, names=[], playbook="rollback.yml", plan=plan))
        assert error.next_step == f"ansible-playbook rollback.yml -i inventories/staging -l staging -e plan={offered}"
        assert error.expected == "one of a-first-one, rule."


@pytest.mark.parametrize(
    ("playbook", "run", "skip", "wrong"),
    [
        ("deploy.yml", ["pm2-relaod"], [], "pm2-relaod"),
        ("deploy.yml", ["prepare", "clean-up"], [], "clean-up"),
        ("deploy.yml", ["all"], ["pm2_relaod"], "pm2_relaod"),
        ("deploy.yml", ["nightly", "rollback"], [], "nightly, rollback"),
        ("rollback.yml", ["rolback"], [], "rolback"),
        ("rollback.yml", ["verify"], [], "verify"),
    ],
)
def test_tags_that_name_no_phase_are_refused(
    asked: Asked, playbook: str, run: list[str], skip: list[str], wrong: str
) -> None:
    """Such a run ended well, as one with nothing to do; or reloaded what was to be skipped."""
    error = refused(replace(asked, names=[], playbook=playbook, run_tags=run, skip_tags=skip))
    assert error.seen == f"{playbook} has no phase {wrong}."
    assert error.expected == f"one of {', '.join(PHASES if playbook == 'deploy.yml' else ['rollback'])}."
    assert len(error.findings) == 1


@pytest.mark.parametrize(
    ("playbook", "run", "skip"),
    [
        ("deploy.yml", ["pm2-reload", "mine"], []),
        ("deploy.yml", ["all"], ["schedule", "pm2-reload"]),
        ("deploy.yml", ["always"], []),
        ("rollback.yml", ["rollback"], ["mine"]),
        ("monitor.yml", ["schedule"], []),
    ],
)
def test_other_tags_are_let_through(asked: Asked, playbook: str, run: list[str], skip: list[str]) -> None:
    assert inputs.plan_of(replace(asked, names=[], playbook=playbook, run_tags=run, skip_tags=skip))["id"] == "rule"


def test_a_project_without_a_plan_is_told_where_to_see_one(asked: Asked, tmp_path: Path) -> None:
    error = refused(replace(asked, names=[], project=tmp_path / "theirs"))
    assert error.seen == "There is no plan rule: theirs/plans/rule.yml does not exist."
    assert error.next_step.startswith(f"write it as {tmp_path}/plans/README.md explains")


def test_everything_that_is_wrong_is_named_at_once(asked: Asked) -> None:
    hosts = Hosts("app-3", ("app-1",), {"app-1": "https://app", "app-2": "http://b"}, "https://app", "two")
    error = refused(
        replace(asked, plan="other", names=["run_x"], reviewed_plan="/no", is_set=without("app_name")), hosts
    )
    assert [finding.name for finding in error.findings] == [
        *("plan", "variable", "reviewed plan", "value", "gateway", "left out", "batch", "address"),
    ]
    assert all(finding.seen and finding.expected and finding.next_step for finding in error.findings)


def test_without_its_guard_an_inventory_gets_the_command_that_copies_it(asked: Asked) -> None:
    (Path(asked.inventory) / "target.guard").unlink()
    said = refused(replace(asked, plan=None)).next_step
    assert said.startswith(
        f"cp inventories/production/target.guard {asked.inventory}/, then ansible-playbook deploy.yml"
    )


@pytest.mark.parametrize("batch", ["1", "12", "1%", "99%", "100%"])
def test_a_batch_is_a_number_or_a_share(asked: Asked, batch: str) -> None:
    assert inputs.plan_of(replace(asked, names=[]), replace(GOOD, batch=batch))


@pytest.mark.parametrize("batch", ["0", "two", "0%", "101%", "1.5", "", "2\n"])
def test_anything_else_is_none(asked: Asked, batch: str) -> None:
    assert [finding.name for finding in refused(replace(asked, names=[]), replace(GOOD, batch=batch)).findings] == [
        "batch"
    ]


def test_a_limit_that_leaves_out_a_host_is_refused_where_the_database_is_changed(asked: Asked) -> None:
    """Behind one address its pages would meet another build, or after a rollback a table without its index."""
    one = replace(GOOD, played=("app-1",))
    for playbook in ("deploy.yml", "rollback.yml"):
        error = refused(replace(asked, names=[], playbook=playbook, limit="app-1"), one)
        assert error.seen.startswith("-l app-1 leaves out app-2: ")
        assert error.next_step.startswith(f"ansible-playbook {playbook} -i inventories/staging -l staging;")
    assert inputs.plan_of(replace(asked, names=[], playbook="purge.yml", limit="app-1"), one)
    assert inputs.plan_of(replace(asked, names=[], limit="app-1", settings=BARE), one), "no host serves anything"


def test_one_host_needs_no_address_of_its_own(asked: Asked) -> None:
    alone = Hosts("app-1", ("app-1",), {"app-1": "https://app"}, "https://app", "1")
    assert inputs.plan_of(replace(asked, names=[]), alone)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("a: [\n\nb", "plans/rule.yml:3: the file cannot be read as YAML: "),
        ("- a\n", "plans/rule.yml:1: (top level) is a list."),
        ("", "plans/rule.yml:1: (top level) is missing."),
        ("\xff", "plans/rule.yml:1: the file cannot be read as YAML: "),
        ("a: 2025-13-45", "plans/rule.yml:1: the file cannot be read as YAML: "),
    ],
)
def test_a_plan_that_is_no_mapping_is_named(asked: Asked, content: str, seen: str) -> None:
    (asked.project / "plans/rule.yml").write_text(content, encoding="latin-1")
    assert seen in refused(replace(asked, names=[])).seen


def test_every_fault_of_a_plan_is_named_with_its_line(asked: Asked) -> None:
    (asked.project / "plans/rule.yml").write_text(PLAN.replace("shop", "7").replace("ceiling: 8", "ceiling: many"))
    findings = refused(replace(asked, names=[])).findings
    assert [finding.seen for finding in findings] == [
        "plans/rule.yml:5: schema is 7 (int).",
        "plans/rule.yml:20: ceiling is 'many'.",
    ]
    assert findings[0].next_step == "correct it, then ansible-playbook deploy.yml -i inventories/staging -l staging"


def test_a_hook_that_no_phase_includes_is_named(asked: Asked) -> None:
    hooks = asked.project / "hooks"
    hooks.mkdir()
    for name in ("before_cleanup.yml", "after_rollback.yml", "load_balancer.yml"):
        (hooks / name).touch()
    asked = replace(asked, names=[])
    assert inputs.plan_of(asked)
    (hooks / "before_clean_up.yml").touch()
    error = refused(asked)
    assert error.seen == "No phase includes hooks/before_clean_up.yml."
    assert error.next_step.startswith("mv hooks/before_clean_up.yml hooks/before_cleanup.yml, then ansible-playbook")


@pytest.fixture
def shops(asked: Asked) -> Asked:
    """A command about a plan with two tenants, which names none of them."""
    (asked.project / "plans/rule.yml").write_text(f"{PLAN}tenants: {{schemas: [shop_a, shop_b]}}\n")
    return replace(asked, names=[], settings={"migrate_adapter": "sql"})


def test_one_tenant_has_a_plan_of_its_own(shops: Asked) -> None:
    plan = inputs.plan_of(replace(shops, plan="rule@shop_b"))
    assert (plan["id"], plan["schema"]) == ("rule@shop_b", "shop_b")
    assert "tenants" not in plan
    assert inputs.plan_of(replace(shops, tenant="shop_b")) == plan, "as tenants.yml says it"
    path = shops.project / "plans/rule/prisma/migrations" / plan["migration"] / "migration.sql"
    path.parent.mkdir(parents=True)
    path.write_text("CREATE UNIQUE INDEX x ON shop.orders (id);")
    assert inputs.migration_sql(shops, plan)
    assert inputs.migration_sql(replace(shops, plan="rule@shop_b"), plan) == "", "it names one schema"


def test_all_tenants_and_those_that_do_not_matter_have_the_plan_as_it_is(shops: Asked) -> None:
    for asked in (
        replace(shops, tenants="each"),
        replace(shops, tenants="each", plan="rule@shop_a"),
        replace(shops, tenants="any"),
    ):
        assert inputs.plan_of(asked)["tenants"] == {"schemas": ["shop_a", "shop_b"]}
        assert inputs.plan_of(asked)["id"] == "rule"


@pytest.mark.parametrize(
    ("change", "seen", "next_step"),
    [
        (
            {},
            "Plan rule has tenants, and the command names none of them.",
            "ansible-playbook tenants.yml -i inventories/staging -l staging; or "
            "ansible-playbook deploy.yml -i inventories/staging -l staging -e plan=rule@shop_a",
        ),
        ({"plan": "rule@"}, "Plan rule has tenants, and the command names none", "-e plan=rule@shop_a"),
        ({"plan": "rule@shop_c"}, "shop_c is no tenant of plan rule.", "-l staging -e plan=rule@shop_"),
        ({"plan": "rule@a.b", "listed": []}, "a.b is no tenant of plan rule.", "-e plan=rule@shop_a"),
        ({"plan": "rule@a.b.c"}, "a.b.c is no tenant of plan rule.", "-e plan=rule@shop_a"),
        ({"plan": "rule@shop_$", "listed": ["shop_$b"]}, "shop_$ is no tenant of plan rule.", "-e 'plan=rule@shop_$b'"),
        (
            {"playbook": "rollback.yml"},
            "Plan rule has tenants, and the command names none of them.",
            "ansible-playbook tenants.yml -i inventories/staging -l staging -e tenants_action=rollback; or "
            "ansible-playbook rollback.yml -i inventories/staging -l staging -e plan=rule@shop_a",
        ),
        ({"playbook": "monitor.yml"}, "Plan rule has tenants, and", "-e tenants_action=monitor; or ansible-"),
        ({"plan": "rule@shop_a", "listed": ["shop_z"]}, "shop_a is no tenant of plan rule.", "-e plan=rule@shop_z"),
        ({"tenants": "each", "plan": "rule@shop_c"}, "shop_c is no tenant of plan rule.", "-e plan=rule@shop_"),
        ({"tenants": "each", "run_tags": ["cleanup"]}, "Only a part is asked for (cleanup).", "without --tags"),
        ({"tenants": "each", "settings": {}}, "migrate_adapter is prisma, and the plan", "-e migrate_adapter=sql"),
        ({"plan": "rule@shop_a", "settings": {}}, "migrate_adapter is prisma, and the plan", "-e migrate_adapter=sql"),
    ],
)
def test_a_command_names_the_tenants_that_it_is_about(
    shops: Asked, change: dict[str, Any], seen: str, next_step: str
) -> None:
    error = refused(replace(shops, **change))
    assert error.seen.startswith(seen)
    assert next_step in error.next_step
    assert len(error.findings) == 1


def test_the_list_of_the_inventory_counts_before_that_of_the_plan(shops: Asked) -> None:
    assert inputs.plan_of(replace(shops, plan="rule@shop_z", listed=["shop_z"]))["schema"] == "shop_z"


def test_what_tenants_yml_does_not_do_is_not_answered_with_it(shops: Asked) -> None:
    error = refused(replace(shops, playbook="purge.yml"))
    assert error.next_step == "ansible-playbook purge.yml -i inventories/staging -l staging -e plan=rule@shop_a"


def test_a_tenant_in_another_database_is_named_with_it_and_reached_there(shops: Asked) -> None:
    there = replace(shops, plan="rule@eu.shop_z", listed=["eu.shop_z"], database="eu")
    plan = inputs.plan_of(there)
    assert (plan["id"], plan["schema"]) == ("rule@eu.shop_z", "shop_z")
    here = replace(shops, plan="rule@shop_a", database="shops", settings={**shops.settings, "database_name": "shops"})
    assert inputs.plan_of(here)["schema"] == "shop_a"
    for asked in (replace(there, database="shops"), replace(here, database="eu")):
        error = refused(asked)
        assert error.seen == f"database_login leads to database {asked.database}, and {asked.named} is not there."
        assert "take database_login and database_of_tenant out" in error.next_step


def test_a_tenant_has_one_name(shops: Asked) -> None:
    named: dict[str, Any] = {"plan": "rule@shops.shop_a", "listed": ["shops.shop_a"], "database": "shops"}
    error = refused(replace(shops, **named, settings={**shops.settings, "database_name": "shops"}))
    assert error.seen == "shops.shop_a names database_name of staging, which is meant without being named."
    assert error.next_step.endswith("-l staging -e plan=rule@shop_a")


@pytest.mark.parametrize("change", [{"plan": "rule@shop_a"}, {"tenants": "each"}])
def test_a_plan_without_tenants_is_of_none(asked: Asked, change: dict[str, Any]) -> None:
    error = refused(replace(asked, names=[], settings={"migrate_adapter": "sql"}, **change))
    assert error.seen == "Plan rule has no tenants, and the command is about tenants of it."
    assert "add it to plans/rule.yml" in error.next_step


def test_reports_that_cannot_be_written_stop_it_before_it_opens(asked: Asked, tmp_path: Path) -> None:
    asked = replace(asked, names=[], artifacts=str(tmp_path / "yet/to/be/made"))
    assert inputs.plan_of(asked)["id"] == "rule"
    (tmp_path / "file").touch()
    asked = replace(asked, artifacts=str(tmp_path / "file/artifacts"))
    stop = refused(asked)
    assert stop.seen == f"{tmp_path}/file cannot be written to, and reports go to {tmp_path}/file/artifacts/staging."
    assert stop.next_step.endswith("-l staging -e at_most_one_artifacts=<directory>")
    assert inputs.plan_of(replace(asked, playbook="discover.yml", needs_plan=False)) == {}, "it writes no report"
