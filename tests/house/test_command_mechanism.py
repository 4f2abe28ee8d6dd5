"""What the tests of the documents' commands find: each case is a document, or a test, that is wrong in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.command_blocks import BlockError, blocks, commands_of, spans
from tests.house.command_checks import mistakes, syntax_checked
from tests.house.command_proofs import faults, key, run_by_ci, typing_faults, uncovered
from tests.house.test_command_blocks import unreasoned

DEPLOYED = "tests/deploy/test_deployment.py::test_reports_what_it_did"


def page(*lines: str, label: str = "console", mark: str = "") -> str:
    return "\n".join(["A sentence.", "", *([f"<!-- {mark} -->"] if mark else []), f"```{label}", *lines, "```", ""])


def texts(text: str) -> list[str]:
    return [command.text for block in blocks("page.md", text) for command in block.commands]


def test_a_block_is_taken_apart() -> None:
    text = page(
        "$ make lab-up     # a comment",
        "$ ansible-playbook deploy.yml -l production -e plan=<name> \\",
        "    -e '{\"prepare_gates\": []}'",
        "$ . .lab/lab.env; A=b ls -l && pm2 save | grep <40 digits>",
    )
    (block,) = blocks("page.md", text)
    assert [(command.line, command.text) for command in block.commands] == [
        (4, "make lab-up"),
        (5, "ansible-playbook deploy.yml -l production -e plan=SOME-VALUE -e '{\"prepare_gates\": []}'"),
        (7, ". .lab/lab.env"),
        (7, "A=b ls -l"),
        (7, "pm2 save"),
        (7, "grep SOME-VALUE"),
    ]
    assert texts(page("# all of it", "make lab-up", "", "make demo", label="sh")) == ["make lab-up", "make demo"]


def test_a_command_within_a_sentence_is_found() -> None:
    text = "Run `make bench BENCH=writers`, or `rollback.yml -l local`; `-e plan=x` and `make` are words.\n"
    assert [command.text for command in spans("page.md", text)] == [
        "make bench BENCH=writers",
        "ansible-playbook rollback.yml -l local",
        "ansible-playbook -e plan=x",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (page("$ make demo", label=""), "a fence labelled ''"),
        (page("$ make demo", label="shell"), "a fence labelled 'shell'"),
        ("A sentence.\n\n    make demo\n", "indented lines"),
        ("* a point:\n\n      make demo\n", "indented lines"),
        ("* a point:\n  ```\n  make demo\n  ```\n", "a fence labelled ''"),
        (page("make demo"), "has no prompt"),
        (page("key: value", label="yaml", mark="not run in tests: it is only data."), "marked as not run"),
        ("<!-- not run in tests: there is nothing below it. -->\n\nA sentence.\n", "a mark without a block"),
    ],
)
def test_a_block_that_could_hide_a_command_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        texts(text)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("make no-such-target", "No rule to make target 'no-such-target'"),
        ("make bench BENHC=writers", "the Makefile knows no BENHC"),
        ("ansible-playbook deply.yml -l production", "there is no playbook deply.yml"),
        ("ansible-playbook deploy.yml -i inventories/prod -l production", "there is no inventory inventories/prod"),
        ("ansible-playbook deploy.yml -l prodction", "prodction is no group of inventories/production"),
        ("ansible-playbook deploy.yml -l production --chekc", "unrecognized arguments: --chekc"),
        ("ansible-playbook deploy.yml -l production -e migrate_strategi=auto", "knows the variable migrate_strategi"),
        ("ansible-playbook deploy.yml -l production -e '{\"prepare_gate\": []}'", "knows the variable prepare_gate"),
        ("ansible-playbook deploy.yml -l production --tags verfy", "has no tag verfy"),
        ("ansible-playbook rollback.yml -l production --tags verify", "has no tag verify"),
        ("ansible-playbook --tags verfy", "has no tag verfy"),
        (".venv/bin/python -m bench.cutoff", "there is no module bench.cutoff"),
        (".venv/bin/python matrix/ran.py", "there is no matrix/ran.py"),
        (".venv/bin/python matrix/run.py --qick", "matrix/run.py has no option --qick"),
        ("cat docs/no-such-page.md", "there is no docs/no-such-page.md"),
    ],
)
def test_a_name_of_nothing_is_found(line: str, mistake: str) -> None:
    (command,) = commands_of(line, "page.md", 1)
    assert mistake in " ".join(mistakes(command))


def test_ansible_itself_refuses_a_wrong_limit() -> None:
    (command,) = commands_of("ansible-playbook deploy.yml -l prodction", "page.md", 1)
    code, output = syntax_checked(command)
    assert code != 0
    assert "--limit prodction: " in output
    assert "AMO-1036" in output


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (page("$ deploy-everything --now"), "deploy-everything --now is run by no test"),
        (page("$ make bench"), "make bench is run by no test"),
        (page("$ cd somewhere"), "cd somewhere is run by no test"),
        (page("$ PLAN=x"), "PLAN=x is run by no test"),
        (page("$ ansible-playbook rollback.yml -l production --tags rollback"), "is run by no test"),
        (page("$ ansible-playbook watch.yml -l production -e watch_rate_per_s=9"), "is run by no test"),
        (page("SELECT 1;", label="sql"), "the SQL is run by no test"),
        (
            page("$ make test", mark="not run in tests: it takes an hour and a half."),
            "marked as not run, and all of it",
        ),
        (page("$ make bench", mark="not run in tests: later"), "shorter than a sentence"),
    ],
)
def test_a_command_that_nobody_runs_needs_its_reason_and_no_other_does(text: str, fault: str) -> None:
    (block,) = blocks("page.md", text)
    assert fault in " ".join(unreasoned(block))


def test_a_reason_is_enough() -> None:
    (block,) = blocks("page.md", page("$ make bench", mark="not run in tests: it takes an hour and a half."))
    assert unreasoned(block) == []


def test_a_sum_is_run_when_its_parts_are() -> None:
    (block,) = blocks("page.md", page("$ make demo"))
    parts: dict[str, tuple[str, ...]] = {"deploy.yml": (), "python scripts/demo_summary.py": ()}
    assert uncovered(block, proven=parts) == []
    for part in parts:
        assert uncovered(block, proven={name: () for name in parts if name != part}) == ["page.md:4: make demo"]


def test_ci_runs_what_its_targets_need() -> None:
    assert run_by_ci() >= {"test", "lint", "setup-dev", "tools", "lab-up", "test-all", "matrix-night", "systemd"}
    assert not run_by_ci() & {"bench", "chaos", "lab-down", "demo"}


def test_what_differs_from_place_to_place_is_no_part_of_the_key() -> None:
    keys = {
        key(command)
        for line in (
            "ansible-playbook deploy.yml -l production -e watch_minutes=60 --diff --check",
            "ansible-playbook -i inventories/local deploy.yml -C -D -l local -e watch_minutes=<number>",
        )
        for command in commands_of(line, "page.md", 1)
    }
    assert keys == {"deploy.yml --check --diff -e watch_minutes="}


@pytest.mark.parametrize(
    ("wanted", "tests", "fault"),
    [
        ("deploy.yml", ("tests/deploy/test_deployment.py::test_no_more",), "there is no tests/deploy/test_deployment"),
        ("deploy.yml", ("tests/deploy/no_more.py::test_it",), "there is no tests/deploy/no_more.py"),
        ("deploy.yml --check", (DEPLOYED,), "does not run deploy.yml in the mode of deploy.yml --check"),
        (
            "rollback.yml --check --diff",
            ("tests/deploy/test_rollback.py::test_forward_back_forward",),
            "does not run rollback.yml in the mode of rollback.yml --check --diff",
        ),
        ("deploy.yml --tags verify", (DEPLOYED,), "does not run deploy.yml in the mode"),
        ("rollback.yml", (DEPLOYED,), "does not run rollback.yml"),
        ("deploy.yml -e watch_minutes=", (DEPLOYED,), "sets no watch_minutes"),
        ("make lab-staging", (DEPLOYED,), "does not call make lab-staging"),
    ],
)
def test_a_proof_that_proves_something_else_is_found(wanted: str, tests: tuple[str, ...], fault: str) -> None:
    assert fault in " ".join(faults(wanted, tests))


def test_a_test_that_runs_it_no_more_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same registry, over a test that was changed."""
    module = tmp_path / "tests/deploy/test_it.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr("tests.house.command_proofs.ROOT", tmp_path)
    (tmp_path / "Makefile").write_text("deploy-tests:\n\t$(PYTEST) tests/deploy\n")
    helper = 'OPTIONS = ("-e", "watch_minutes=1")\n\n\ndef run(*words):\n    run_playbook(*words)\n\n\n'
    wanted, right = "deploy.yml -e watch_minutes=", '    run("deploy.yml", *OPTIONS)\n'
    for number, (before, body, proves) in enumerate(
        [
            ("", right, True),
            ("", '    # run("deploy.yml", *OPTIONS)\n    assert True\n', False),
            ("", '    print("deploy.yml -e watch_minutes=1")\n', False),
            ("", '    run("deploy.yml", "--check", *OPTIONS)\n', False),
            ("", '    run("deploy.yml")\n', False),
            ("", '    run("deploy.yml", *OPTIONS, *more)\n', False),
            ("@pytest.mark.skip\n", right, False),
        ]
    ):
        module.write_text(f"{helper}{before}def test_{number}():\n{body}")
        # Each is read once, so each has a file of its own.
        (own := module.with_name(f"test_it_{number}.py")).write_text(module.read_text())
        found = faults(wanted, (f"tests/deploy/{own.name}::test_{number}",))
        assert (found == []) is proves, (body, found)


def test_a_test_that_reads_another_page_is_found() -> None:
    by_hand = "tests/database/test_by_hand.py::test_a_migration_is_marked_by_hand"
    assert typing_faults("docs/prisma-history.md", by_hand) == []
    assert typing_faults("docs/rollback.md", by_hand) == [f"{by_hand} has no docs/rollback.md"]
    assert "has no ```sql" in " ".join(typing_faults("docs/prisma-history.md", DEPLOYED))
