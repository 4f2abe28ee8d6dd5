"""The commands that messages offer: this run's inventory, limit and values; no secret; safe to paste in a shell."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from ansible.cli.playbook import PlaybookCLI
from at_most_one.system import project
from at_most_one.system.command_line import about, command, fill, of_tenant

PROJECT = "/srv/at-most-one"


def options(*arguments: str) -> dict[str, Any]:
    """As ansible-playbook reads them."""
    cli = PlaybookCLI(["ansible-playbook", *arguments])
    cli.init_parser()
    assert cli.parser is not None
    return dict(vars(cli.parser.parse_args(list(arguments))))


def given(*arguments: str) -> str:
    return command("deploy.yml", options("deploy.yml", "-i", f"{PROJECT}/inventories/local", *arguments), PROJECT)


def test_the_target_is_the_one_that_was_given() -> None:
    assert given("-l", "local") == "ansible-playbook deploy.yml -i inventories/local -l local"


def test_an_inventory_elsewhere_keeps_its_path_and_several_stay_several() -> None:
    several = options("deploy.yml", "-i", "/elsewhere/of mine", "-i", "host1,", "-l", "x:!y")
    expected = ["-i", "/elsewhere/of mine", "-i", "host1,", "-l", "x:!y"]
    assert shlex.split(command("rollback.yml", several, PROJECT))[2:] == expected


@pytest.mark.parametrize(
    "extra",
    [
        ["-e", "plan=other"],
        ["-e", "plan=other migrate_strategy=concurrent"],
        ["-e", "cleanup_note='two words'"],
        ["-e", '{"prepare_gates": ["a b", "it\'s"], "cleanup_batch_size": 5}'],
        ["-e", "@/tmp/more values.yml"],
        ["-e", "a=$HOME;id"],
    ],
)
def test_values_arrive_as_they_were_given(extra: list[str]) -> None:
    from ansible.parsing.splitter import parse_kv

    def read(arguments: list[str]) -> list[Any]:
        texts = options(*arguments)["extra_vars"]
        parts = [text if text[0] == "@" else json.loads(text) if text[0] == "{" else parse_kv(text) for text in texts]
        return (
            [parts[0]]
            if isinstance(parts[0], str)
            else sorted({k: v for part in parts for k, v in part.items()}.items())
        )

    _, *again = shlex.split(given("-l", "local", *extra))
    assert read(again) == read(["deploy.yml", *extra])


@pytest.mark.parametrize(
    "extra",
    [
        "database_password=hunter2",
        "vault_database_host=hunter2",
        "notify_slack_url=https://hooks.example/hunter2",
        "app_url=https://me:hunter2@host/",
        '{"app_user_login": {"email": "a@b", "password": "hunter2"}}',
        '{"database_login": {"__ansible_vault": "hunter2"}}',
        '{"things": [{"api_key": "hunter2"}]}',
    ],
)
def test_no_secret_is_repeated(extra: str) -> None:
    shown = given("-l", "local", "-e", extra, "-e", "plan=kept")
    assert "hunter2" not in shown
    assert shown.endswith("-l local -e plan=kept")


def test_a_takeover_is_not_allowed_twice() -> None:
    assert "takeover" not in given("-l", "local", "-e", "run_takeover=true")


def test_the_vaults_options_are_repeated_and_tags_only_for_the_same_playbook() -> None:
    started = options("deploy.yml", "-l", "x", "--tags", "cleanup,migrate", "--ask-vault-pass", "--check")
    again, back = command("deploy.yml", started, PROJECT), command("rollback.yml", started, PROJECT)
    assert again == "ansible-playbook deploy.yml -l x --ask-vault-pass --tags cleanup,migrate"
    assert back == "ansible-playbook rollback.yml -l x --ask-vault-pass"


def test_a_placeholder_of_a_module_is_filled() -> None:
    started = options("deploy.yml", "-i", "/elsewhere", "-l", "x", "-e", "plan=p")
    text = "Seen. Next: ansible-playbook rollback.yml -l <environment> drops them."
    assert fill(text, started, PROJECT) == (
        "Seen. Next: ansible-playbook rollback.yml -i /elsewhere -l x -e plan=p drops them."
    )
    text = "Next: ansible-playbook deploy.yml -l <environment> without plan --check, review it."
    assert fill(text, started, PROJECT) == "Next: ansible-playbook deploy.yml -i /elsewhere -l x --check, review it."


def test_an_installed_collection_names_its_playbooks_as_ansible_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "COLLECTION", "some.rule")
    started = options("some.rule.deploy", "-i", "/srv/theirs/mine", "-l", "web", "--tags", "verify")
    assert command("deploy.yml", started, "/srv/theirs") == (
        "ansible-playbook some.rule.deploy -i mine -l web --tags verify"
    )
    said = "ansible-playbook rollback.yml -l <environment>, or ansible-playbook rehearse.yml -i inventories/staging."
    assert fill(said, started, "/srv/theirs") == (
        "ansible-playbook some.rule.rollback -i mine -l web, or ansible-playbook some.rule.rehearse "
        "-i inventories/staging."
    )
    assert command("site.yml", started, "/srv/theirs").startswith("ansible-playbook site.yml "), "not one of ours"


def test_what_one_playbook_is_asked_is_repeated_for_no_other_one() -> None:
    asked = options("control.yml", "-l", "local", "-e", "control_action=pause plan=other")
    assert command("history.yml", asked, PROJECT) == "ansible-playbook history.yml -l local -e plan=other"
    assert fill("ansible-playbook control.yml -l <environment>", asked, PROJECT).endswith(
        "-e control_action=pause -e plan=other"
    )


def test_what_tenants_yml_has_begun_is_repeated_by_it_and_never_taken_back_in_all_of_them() -> None:
    asked = options("tenants.yml", "-l", "local", "-e", "tenants_action=rollback plan=other tenants_on_failure=stop")
    assert command("tenants.yml", asked, PROJECT) == (
        "ansible-playbook tenants.yml -l local -e tenants_action=rollback -e plan=other -e tenants_on_failure=stop"
    )
    said = "ansible-playbook deploy.yml -l <environment>, ansible-playbook rollback.yml -l <environment>"
    assert fill(said, asked, PROJECT) == (
        "ansible-playbook tenants.yml -l local -e plan=other -e tenants_on_failure=stop, "
        "ansible-playbook rollback.yml -l local -e plan=other"
    )
    asked = options("rollback.yml", "-l", "local", "-e", "tenants_action=rollback")
    assert command("deploy.yml", asked, PROJECT) == "ansible-playbook deploy.yml -l local"


def test_what_a_tenant_s_run_names_is_about_that_tenant() -> None:
    asked = options("tenants.yml", "-l", "local", "-e", "plan=other tenants_on_failure=stop run_lease_minutes=9")
    said = "ansible-playbook {}.yml -l <environment>"
    with about("other@eu.shop"):
        for name in ("rollback", "history", "control", "monitor", "purge"):
            assert fill(said.format(name), asked, PROJECT) == (
                f"ansible-playbook {name}.yml -l local -e run_lease_minutes=9 -e plan=other@eu.shop"
            )
        assert fill(said.format("deploy"), asked, PROJECT) == (
            "ansible-playbook tenants.yml -l local -e plan=other -e tenants_on_failure=stop -e run_lease_minutes=9"
        ), "what is left is done in all of them"
        assert "plan" not in fill(f"{said.format('rollback')} without plan", asked, PROJECT)
    assert fill(said.format("rollback"), asked, PROJECT).endswith("-l local -e plan=other -e run_lease_minutes=9")

    by_the_inventory = options("tenants.yml", "-l", "local")
    with about("other@지점$"):
        assert command("rollback.yml", by_the_inventory, PROJECT).endswith("-l local -e 'plan=other@지점$'")
    with about("other"):
        assert command("rollback.yml", by_the_inventory, PROJECT).endswith("-l local"), "the plan of no tenant"


def test_a_filter_finds_the_tenant_in_its_template() -> None:
    asked = options("tenants.yml", "-l", "local", "-e", "plan=other")
    tell = of_tenant(lambda name: command(name, asked, PROJECT))
    assert tell({"plan": "other", "plan_tenant": "shop"}, "rollback.yml").endswith("-l local -e plan=other@shop")
    assert tell({"plan": "other@shop", "plan_tenant": "shop"}, "rollback.yml").endswith("-e plan=other@shop")
    assert tell({"plan": "other"}, "rollback.yml").endswith("-l local -e plan=other")
