#!/usr/bin/env python3
"""Check plans without a server: every error at once, as file:line, with what was expected and what to do.

    plan_check.py [PLAN ...] [--release PATH] [--language en|ko]

PLAN is a name below plans/ or a file; without one every plan of the current directory is checked. PATH is a directory
with prisma/migrations: the plan's migration.sql there is compared with the plan. Ends with 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # a checkout, or an installed collection
CORE = next(path for path in (HOME / "module_utils", HOME / "plugins/module_utils") if path.is_dir())
sys.path.insert(0, str(CORE))

from at_most_one import catalogue, plan  # noqa: E402
from at_most_one.display.translations import WORDS as LABELS  # noqa: E402
from at_most_one.errors import OperatorError  # noqa: E402
from at_most_one.findings import Finding, joined, observed, say  # noqa: E402
from at_most_one.migration import compare_text  # noqa: E402
from at_most_one.preflight import plan_source  # noqa: E402
from at_most_one.prisma import files, migration_sql  # noqa: E402

WORDS = {
    "en": {
        "good": "nothing is wrong",
        "bad": "{} of {} plans are wrong",
        "same": "migration {} in {} is written as the plan is",
        "beside": "Prisma has to run {} itself (migrate_strategy: prisma), because {}",
    },
    "ko": {
        "good": "문제 없음",
        "bad": "계획 {1}개 중 {0}개에 문제가 있습니다",
        "same": "{1} 의 마이그레이션 {0} 이(가) 계획과 같습니다",
        "beside": "{} 은(는) Prisma가 직접 실행해야 합니다(migrate_strategy: prisma): {}",
    },
}


def paths(given: list[str]) -> list[Path]:
    """The files of the plans: as named, below plans/, or all of them."""
    if not given:
        return sorted(Path("plans").glob("*.yml"))
    return [Path(name) if name.endswith((".yml", ".yaml")) else Path("plans") / f"{name}.yml" for name in given]


def command(*arguments: str) -> str:
    """This command with other arguments, to copy."""
    python, script = (os.path.relpath(path) for path in (sys.executable, __file__))
    return shlex.join([sys.executable if python.startswith("..") else python, script, *arguments])


def check(path: Path, release: Path | None, words: dict[str, str]) -> tuple[list[Finding], list[str]]:
    """What is wrong with the plan, and what else a person should know of it."""
    if not path.is_file():
        known = [found.stem for found in paths([])]
        return [
            Finding(
                "plan",
                observed("AMO-1012", "{path} does not exist.", path=path),
                say("one of {known}.", known=", ".join(known))
                if known
                else say("a plan, as plans/README.md explains it."),
                command(known[0]) if known else say("write it, or let discover.yml write it."),
            )
        ], []
    source = plan_source.read(path)
    found = source.faults
    told: list[str] = []
    if release is not None and not found:
        found, told = compare(source, release, words)
    manual = os.path.relpath(HOME / "plans/README.md")
    again = command(str(path), *(("--release", str(release)) if release else ()))
    next_step = say("correct it there, as {manual} describes it, then {again}", manual=manual, again=again)
    return [
        Finding(one.key, joined([f"{path}:{one.line}", one.seen], ": "), one.expected, next_step) for one in found
    ], told


def compare(
    source: plan_source.Source, release: Path, words: dict[str, str]
) -> tuple[tuple[plan_source.LineFault, ...], list[str]]:
    """What of the plan its migration in the release is written otherwise."""
    rule = plan.parse(source.content)
    directory = release / "prisma/migrations"
    if not (directory / rule.migration / "migration.sql").is_file():
        there = sorted(path.parent.name for path in directory.glob("*/migration.sql"))
        expected = (
            say("one of {choices}", choices=", ".join(there))
            if there
            else say("a directory with a migration.sql there")
        )
        seen = say("{migration}, which {directory} does not hold", migration=rule.migration, directory=directory)
        missing = plan.Fault(("migration",), seen, expected)
        return source.located([missing]), []
    try:
        statements = migration_sql.split(files.read_script(release, rule.migration))
    except OperatorError as unreadable:
        return source.located(
            [plan.Fault(("migration",), unreadable.seen.rstrip("."), unreadable.expected.rstrip("."))]
        ), []
    found = source.located(compare_text.faults(rule, statements))
    beside = "; ".join(compare_text.notes(rule, statements))
    told = [words["beside"].format(rule.migration, beside)] if beside else []
    return found, told if found else [words["same"].format(rule.migration, release), *told]


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plans", nargs="*", metavar="PLAN", help="a name below plans/, or a file")
    parser.add_argument("--release", type=Path, help="a directory with prisma/migrations, to compare the migration")
    korean = os.environ.get("LC_ALL", os.environ.get("LANG", "")).startswith("ko")
    parser.add_argument("--language", choices=sorted(WORDS), default="ko" if korean else "en")
    given = parser.parse_args(arguments)
    chosen = paths(given.plans)
    if not chosen or (given.release and len(chosen) > 1):
        parser.error("no plan below plans/" if not chosen else "a release is compared with one plan: name it")
    words, labels, wrong = WORDS[given.language], LABELS[given.language], 0
    for path in chosen:
        findings, told = check(path, given.release, words)
        wrong += bool(findings)
        for one in findings:
            seen, expected, next_step = (catalogue.render(text, given.language) for text in one.phrases().values())
            print(f"{seen}\n  {labels['expected']} {expected}\n  {labels['next']} {next_step}")
        for line in [*told, *([] if findings else [words["good"]])]:
            print(f"{path}: {line}")
    if wrong:
        print(words["bad"].format(wrong, len(chosen)), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
