"""new_service.yml: what it writes is an inventory, says what is still to be filled in, and overwrites nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.command_checks import environment
from tests.support.playbooks import ROOT, Run, run_playbook

GIVEN = ("-e", "new_service_name=shop", "-e", "new_service_url=https://shop.example.org")


def new_service(directory: Path, *given: str) -> Run:
    return run_playbook("new_service.yml", *(given or GIVEN), "-e", f"new_service_path={directory}", limit=None)


def files(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def to_fill_in(written: dict[str, str]) -> list[str]:
    """The names of the values that a person has to give."""
    marked = r'^(\w+): (?:""|\[\]) # \[fill in\]'
    service = re.findall(marked, written["shop/group_vars/shop/service.yml"], re.MULTILINE)
    needed, _ = written["shop/group_vars/shop/vault.example.yml"].split("# May stay empty")
    return [*service, *re.findall(r'^(\w+): ""', needed, re.MULTILINE)]


def known() -> set[str]:
    """The names that an inventory may set."""
    specs = [yaml.safe_load(path.read_text()) for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")]
    options = {name for spec in specs for entry in spec["argument_specs"].values() for name in entry.get("options", {})}
    common = yaml.safe_load((ROOT / "inventories/all.yml").read_text())
    return options | {*common} | {"environment_name", "rehearsal_allowed"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inventories")
    predicted = new_service(directory, *GIVEN, "--check")
    assert (predicted.code, files(directory)) == (0, {}), predicted.output
    done = new_service(directory)
    assert done.code == 0, done.output
    return directory


def test_a_person_fills_in_at_most_20_values(shop: Path) -> None:
    assert sorted(files(shop)) == [
        "shop/group_vars/shop/service.yml",
        "shop/group_vars/shop/vault.example.yml",
        "shop/hosts.yml",
        "shop/target.guard",
    ]
    assert len(to_fill_in(files(shop))) <= 20
    service: dict[str, Any] = yaml.safe_load(files(shop)["shop/group_vars/shop/service.yml"])
    assert set(service) <= known()


def lacking(shop: Path) -> list[str]:
    """What deploy.yml says that the inventory lacks."""
    run = run_playbook("deploy.yml", "--check", limit="shop", inventory=str(shop / "shop"))
    assert run.code != 0
    said = " ".join(run.failures)
    assert "plan" in said
    found = re.search(r"shop lacks ([\w, ]+)\.", said)
    assert found, said
    return found[1].split(", ")


def test_what_is_not_filled_in_is_named_before_anything_starts(shop: Path) -> None:
    wanted = to_fill_in(files(shop))
    vault = {name: "x" for name in wanted if name.startswith("vault_")}
    assert lacking(shop) == list(vault)
    (shop / "shop/group_vars/shop/vault.yml").write_text(yaml.safe_dump(vault))
    assert {*lacking(shop), "plan"} == {*wanted} - {*vault}


def test_nothing_is_overwritten(shop: Path) -> None:
    (shop / "shop/hosts.yml").write_text("---\n# mine\n")
    before = files(shop)
    again = new_service(shop)
    assert again.code != 0
    assert "is there already. Nothing was written." in " ".join(again.failures)
    assert files(shop) == before


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        ("Shop-1", "https://shop.example.org", 'new_service_name is "Shop-1"'),
        ("all", "https://shop.example.org", 'new_service_name is "all"'),
        ("shop", "https://shop.example.org/", "new_service_url is not an address"),
        ("shop", "https://somebody:hunter2@shop.example.org", "new_service_url is not an address"),
    ],
)
def test_a_name_or_an_address_that_is_none_is_refused(tmp_path: Path, name: str, url: str, said: str) -> None:
    run = new_service(tmp_path, "-e", f"new_service_name={name}", "-e", f"new_service_url={url}")
    assert run.code != 0
    assert said in " ".join(run.failures)
    assert "hunter2" not in run.output.replace(f"new_service_url={url}", "")
    assert files(tmp_path) == {}


def test_an_application_that_commands_deploy_needs_an_address_and_no_host(tmp_path: Path) -> None:
    name, adapter = ("-e", "new_service_name=shop"), ("-e", "new_service_adapter=command")
    assert new_service(tmp_path, *name, *adapter).code != 0, "it is asked at its address"
    done = new_service(tmp_path, *name, *adapter, "-e", "new_service_url=https://shop.example.org")
    assert done.code == 0, done.output
    written = files(tmp_path)
    assert "shop-runner" in written["shop/hosts.yml"]
    service = yaml.safe_load(written["shop/group_vars/shop/service.yml"])
    assert (service["app_adapter"], service["migrate_adapter"]) == ("command", "sql")
    assert (service["app_url"], service["healthcheck_checks"]) == ("https://shop.example.org", ["root", "health"])
    assert all("{version}" in service["app_commands"][name] for name in ("status", "apply", "back"))
    assert set(service) <= known()


def test_the_database_alone_needs_no_address_and_no_application(tmp_path: Path) -> None:
    assert new_service(tmp_path, "-e", "new_service_name=shop").code != 0, "an application is asked at its address"
    done = new_service(tmp_path, "-e", "new_service_name=shop", "-e", "new_service_adapter=none")
    assert done.code == 0, done.output
    written = files(tmp_path)
    assert to_fill_in(written) == [
        *("plan", "database_name", "database_user", "vault_database_host", "vault_database_password"),
    ]
    service = yaml.safe_load(written["shop/group_vars/shop/service.yml"])
    assert (service["app_adapter"], service["migrate_adapter"]) == ("none", "sql")
    assert not {"app_path", "app_url", "healthcheck_checks"} & set(service)
    assert set(service) <= known()


def test_units_of_systemd_are_asked_for_and_named_before_anything_starts(tmp_path: Path) -> None:
    done = new_service(tmp_path, *GIVEN, "-e", "new_service_adapter=systemd", "-e", "report_language=en")
    assert done.code == 0, done.output
    written = files(tmp_path)
    assert "put every host into hosts.yml" in done.events
    assert to_fill_in(written) == [
        *("plan", "app_units", "app_path", "database_name", "database_user"),
        *("vault_host", "vault_user", "vault_database_host", "vault_database_password"),
    ]
    text = written["shop/group_vars/shop/service.yml"]
    service = yaml.safe_load(text)
    assert (service["app_adapter"], service["app_name"], service["app_units"]) == ("systemd", "shop", [])
    assert set(service) <= known()
    assert "pm2" not in "".join(written.values()).lower()
    assert "app_ecosystem" not in service
    example = yaml.safe_load((ROOT / "examples/systemd/service.yml").read_text())
    assert yaml.safe_load("\n".join(re.findall(r"^#   (- \{.*\})$", text, re.MULTILINE))) == example["app_units"]

    stopped = run_playbook("deploy.yml", "--check", limit="shop", inventory=str(tmp_path / "shop"))
    assert stopped.code != 0
    assert "app_adapter is systemd, and app_units has no unit." in " ".join(stopped.failures)


def test_make_hands_the_adapter_on() -> None:
    given = ("NAME=shop", "URL=https://shop.example.org")
    for words, adapter in ((given, "pm2"), ((*given, "ADAPTER=systemd"), "systemd")):
        command = ["make", "--no-print-directory", "-n", "-o", "setup", "new-service", *words]
        shown = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout
        assert f"-e new_service_adapter='{adapter}'" in shown
