"""The lab's inventory is production's but for addresses, credentials, gates and the lab's own paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

INVENTORIES = Path(__file__).parents[2] / "inventories"
SHARED = yaml.safe_load((INVENTORIES / "all.yml").read_text())

# What may differ, and why. Everything else stands in inventories/all.yml, once for all environments.
ADDRESSES = {"environment_name", "app_path", "app_url", "database_host", "database_port", "database_name"}
CREDENTIALS = {"database_user", "database_password", "database_sslmode", "app_admin_login", "app_user_login"}
MESSAGES = {"notify_slack_url", "notify_webhook_url", "notify_webhook_token", "notify_email_password"}
GATES = {"prepare_gates", "prepare_rehearsal_environment", "rehearsal_allowed", "run_required_values"}
PROGRAMS = {"pm2_bin", "pm2_home", "app_environment_path", "ansible_pipelining", "local_lab"}
MAY_DIFFER = ADDRESSES | CREDENTIALS | MESSAGES | GATES | PROGRAMS


def own_values(environment: str) -> dict[str, Any]:
    """What the environment's own files set."""
    files = sorted((INVENTORIES / environment / "group_vars" / environment).glob("*.yml"))
    values: dict[str, Any] = {}
    for file in files:
        if file.name != "vault.example.yml":
            values |= yaml.safe_load(file.read_text())
    return values


@pytest.mark.parametrize("environment", ["production", "staging", "local", "local_staging"])
def test_an_environment_sets_only_what_may_differ(environment: str) -> None:
    assert set(own_values(environment)) - MAY_DIFFER == set()
    assert (INVENTORIES / environment / "group_vars/all.yml").read_text() == (INVENTORIES / "all.yml").read_text()


def test_all_environments_suit_the_real_service() -> None:
    """It has .env.production and no .env, and nothing in its answers names its build or its process."""
    assert SHARED["prepare_shared_files"] == [".env.production"]
    assert {SHARED[name] for name in ("app_build_header", "app_build_key", "app_pid_header")} == {""}
    assert SHARED["app_instance_timeout_s"] > 10  # the listen_timeout that its wait_ready makes PM2 wait
