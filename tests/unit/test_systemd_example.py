"""The files of examples/systemd describe one service, which the adapter takes as it is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from at_most_one.preflight import parts
from at_most_one.systemd.client import Unit, _state
from at_most_one.systemd.preflight import _through

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/systemd"
SERVICE = yaml.safe_load((EXAMPLE / "service.yml").read_text())
UNITS = [Unit(**one) for one in SERVICE["app_units"]]


def unit_file() -> dict[str, str]:
    lines = (EXAMPLE / "shop@.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_inventory_goes_together_and_stands_in_the_document() -> None:
    assert [*parts.findings(SERVICE, "deploy.yml", ("pm2_reload",), "the command")] == []
    assert parts.decide(SERVICE).systemd
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/systemd.md").read_text(), re.DOTALL)
    assert yaml.safe_load(shown) == SERVICE


def test_each_unit_starts_through_the_link_and_is_enabled_by_name() -> None:
    file = unit_file()
    values = {"ActiveState": "active", "WorkingDirectory": file["WorkingDirectory"]}
    assert _through(SERVICE["app_path"], _state(UNITS[0], values).directory)
    assert file["WantedBy"]
    assert "--port %i" in file["ExecStart"]
    assert [f"shop@{unit.url.rpartition(':')[2]}.service" for unit in UNITS] == [unit.name for unit in UNITS]


def test_the_proxy_knows_each_unit_and_goes_on_to_the_next() -> None:
    proxy = (EXAMPLE / "nginx.conf").read_text()
    assert re.findall(r"^    server ([\d.:]+) max_fails=0;$", proxy, re.MULTILINE) == [
        unit.url.removeprefix("http://") for unit in UNITS
    ]
    assert "proxy_next_upstream error timeout;" in proxy
    assert f"listen {SERVICE['app_instance_url'].rpartition(':')[2]};" in proxy


def test_the_rule_of_polkit_allows_what_the_adapter_does_to_these_units() -> None:
    rule = (EXAMPLE / "50-shop.rules").read_text()
    (pattern,) = re.findall(r"/\^(.+?)\$/\.test", rule)
    assert all(re.fullmatch(pattern, unit.name) for unit in UNITS)
    client = (ROOT / "module_utils/at_most_one/systemd/client.py").read_text()
    told = set(re.findall(r'systemd\.systemctl, "([a-z-]+)"', client))
    (allowed,) = re.findall(r"\[(.+?)\]\.indexOf", rule)
    assert set(re.findall(r'"([a-z-]+)"', allowed)) == told == {"restart", "stop", "reset-failed"}
