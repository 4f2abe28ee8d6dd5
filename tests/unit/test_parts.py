"""Which phases and parts take part, and which settings do not go together."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.preflight import parts
from at_most_one.preflight.parts import Parts
from at_most_one.verdicts import PHASES

BARE = {"app_adapter": "none", "migrate_adapter": "sql"}
NONE = {"app_adapter": "none"}
HISTORY = {
    **{"status": ["ask", "{migration}"], "applied": ["set", "{migration}"], "not_applied": ["set", "base"]},
    "path": "/srv",
}
TOOL = {"migrate_adapter": "command", "migrate_history": HISTORY}
COMMANDS = {
    **{name: [name, "{version}"] for name in ("status", "apply", "back")},
    "path": "/srv",
}
SERVED = {
    **{"app_adapter": "command", "migrate_adapter": "sql"},
    **{"app_commands": COMMANDS, "app_version": "1.4.2"},
}
UNITS = [
    {"name": "shop@3001.service", "url": "http://127.0.0.1:3001"},
    {"name": "shop@3002.service", "url": "http://127.0.0.1:3002"},
]
UNDER_SYSTEMD = {"app_adapter": "systemd", "app_units": UNITS}


def found(
    settings: dict[str, Any], playbook: str = "deploy.yml", phases: tuple[str, ...] = PHASES, *, tenants: bool = False
) -> list[str]:
    findings = [*parts.findings(settings, playbook, phases, "the command", tenants=tenants)]
    assert all(one.seen and one.expected and one.next_step for one in findings)
    return [one.seen for one in findings]


@pytest.mark.parametrize(
    ("settings", "expected", "left_out"),
    [
        ({}, Parts(application=True, prisma=True), ()),
        ({"migrate_adapter": "sql"}, Parts(application=True, prisma=False), ()),
        (BARE, Parts(application=False, prisma=False), ("pm2_reload", "healthcheck")),
        (TOOL, Parts(application=True, prisma=False, tool=True), ()),
        ({**TOOL, **NONE}, Parts(application=False, prisma=False, tool=True), ("pm2_reload", "healthcheck")),
        ({"app_adapter": "pm2", "migrate_adapter": "prisma"}, Parts(), ()),
        (SERVED, Parts(application=False, prisma=False, commands=True), ()),
        ({**SERVED, **TOOL}, Parts(application=False, prisma=False, tool=True, commands=True), ()),
        ({**SERVED, "rollback_commit": "1.4.1"}, Parts(application=False, prisma=False, commands=True), ()),
        (UNDER_SYSTEMD, Parts(systemd=True), ()),
        ({**UNDER_SYSTEMD, "migrate_adapter": "sql"}, Parts(prisma=False, systemd=True), ()),
    ],
)
def test_the_adapters_decide_what_takes_part(
    settings: dict[str, str], expected: Parts, left_out: tuple[str, ...]
) -> None:
    assert found(settings) == []
    assert (parts.decide(settings), parts.decide(settings).left_out) == (expected, left_out)


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"app_adapter": "runit"}, "app_adapter is runit."),
        ({"app_adapter": "systemd"}, "app_units has no unit."),
        ({**UNDER_SYSTEMD, "app_units": [*UNITS, UNITS[0]]}, "has shop@3001.service, http://127.0.0.1:3001."),
        ({**UNDER_SYSTEMD, "app_units": [{**UNITS[0], "name": "shop@.service"}]}, "app_units has shop@.service."),
        ({**UNDER_SYSTEMD, "app_units": [{**UNITS[0], "name": "--all"}]}, "app_units has --all."),
        ({**UNDER_SYSTEMD, "app_units": [{"name": "shop.service"}]}, "has an entry without name or url."),
        ({**UNDER_SYSTEMD, "app_units": "shop"}, "app_units has no unit."),
        ({**UNDER_SYSTEMD, "watch_minutes": 5}, "app_adapter is systemd, and the watch asks PM2"),
        ({"migrate_adapter": "knex"}, "migrate_adapter is knex."),
        ({"app_commit": "4f743598c145"}, "app_commit is 4f743598c145."),
        ({"app_commit": "v1.4.2"}, "app_commit is v1.4.2."),
        ({"app_commit": "A" * 40}, f"app_commit is {'A' * 40}."),
        ({"app_adapter": "none"}, "app_adapter is none and migrate_adapter is prisma"),
        ({"migrate_strategy": "locked"}, "migrate_strategy is locked and migrate_adapter is prisma."),
        ({**BARE, "migrate_strategy": "prisma"}, "migrate_strategy is prisma and migrate_adapter is sql."),
        ({**TOOL, "migrate_strategy": "prisma"}, "migrate_strategy is prisma and migrate_adapter is command."),
        ({"migrate_adapter": "command"}, "migrate_history lacks status, applied, not_applied, path."),
        ({**TOOL, "migrate_history": {**HISTORY, "path": ""}}, "migrate_history lacks path."),
        ({**TOOL, "migrate_history": {**HISTORY, "status": ["ask", "0007"]}}, "lacks {migration} in status."),
        ({**SERVED, "app_commands": None}, "app_commands lacks status, apply, back, path."),
        ({**SERVED, "app_commands": {**COMMANDS, "apply": ["deploy", "2"]}}, "lacks {version} in apply."),
        ({**SERVED, "app_version": None}, "app_version is not set."),
        ({**SERVED, "app_version": 1.1}, "app_version is 1.1."),
        ({**SERVED, "app_version": "--all"}, "app_version is --all."),
        ({**SERVED, "rollback_commit": "-f"}, "rollback_commit is -f."),
        ({**SERVED, "migrate_adapter": "prisma"}, "app_adapter is command and migrate_adapter is prisma"),
        ({**SERVED, "watch_minutes": 5}, "the watch asks PM2 for the instances"),
        ({**BARE, "watch_minutes": 5}, "watch is about an application"),
        ({**BARE, "rollback_commit": "a" * 40}, "rollback_commit is about an application"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], seen: str) -> None:
    (only,) = found(settings)
    assert seen in only


@pytest.mark.parametrize("adapter", ["none", "command"])
def test_prisma_without_a_release_is_one_message(adapter: str) -> None:
    settings = {**SERVED, "app_adapter": adapter, "migrate_adapter": "prisma"}
    (only,) = parts.findings(settings, "deploy.yml", PHASES, "the command")
    assert only.identifier == "AMO-2362"
    assert only.seen.endswith(f"a release that is built here, and with {adapter} there is none.")
    assert only.next_step == "set it in the inventory, or: the command -e migrate_adapter=sql"


@pytest.mark.parametrize(
    "settings",
    [
        *({**BARE, "migrate_strategy": "concurrent"}, {**BARE, "watch_minutes": 0}, {**BARE, "app_adapter": None}),
        *({"app_commit": ""}, {"app_commit": "4f743598c145" + "0" * 28}, {**BARE, "app_commit": "not asked for"}),
    ],
)
def test_what_goes_together_is_not(settings: dict[str, Any]) -> None:
    assert found(settings) == []


def test_the_environment_may_name_the_version_and_only_a_deployment_needs_one() -> None:
    fixed = {**COMMANDS, "apply": ["compose", "up"], "environment": {"TAG": "{version}"}}
    assert found({**SERVED, "app_commands": fixed}) == []
    without = {name: value for name, value in SERVED.items() if name != "app_version"}
    assert found(without, "rollback.yml", ()) == found(without, "monitor.yml", ()) == []
    assert "app_version is not set." in found(without, "rehearse.yml", ())
    assert "the watch" in found(without, "watch.yml", ())[0]


def test_a_phase_that_has_nothing_to_do_is_not_asked_for_alone() -> None:
    assert "pm2_reload: not part of this run" in found(BARE, phases=("pm2_reload",))[0]
    assert found(BARE, phases=("verify", "pm2_reload")) == found(BARE, "history.yml", ()) == []
    assert "watch is about" in found(BARE, "watch.yml", ())[0]


def test_a_tenant_is_migrated_by_what_knows_schemas() -> None:
    assert found({"migrate_adapter": "sql"}, tenants=True) == []
    (only,) = found({}, tenants=True)
    assert "migrate_adapter is prisma, and the plan has tenants" in only
    (only,) = found(NONE, tenants=True)
    assert "migrate_adapter is prisma, and the plan has tenants" in only


def test_the_history_of_a_tenant_is_asked_for_by_its_schema() -> None:
    assert found(TOOL) == []
    (only,) = found(TOOL, tenants=True)
    assert "status, applied, not_applied of migrate_history names no schema" in only
    named = {name: [*HISTORY[name], "{schema}"] for name in ("status", "applied", "not_applied")}
    assert found({**TOOL, "migrate_history": {**HISTORY, **named}}, tenants=True) == []
    (only,) = found({**TOOL, "migrate_history": {**HISTORY, **named, "applied": HISTORY["applied"]}}, tenants=True)
    assert "and applied of migrate_history" in only
    environment = {"environment": {"TENANT": "{schema}"}}
    assert found({**TOOL, "migrate_history": {**HISTORY, **environment}}, tenants=True) == []
