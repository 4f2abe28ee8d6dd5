"""What prepare shows of the change: what it sets off by itself is in the reader's language, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
from at_most_one.duplicates.effects import Effect
from at_most_one.findings import joined

from filter_plugins.at_most_one import told, word

TEMPLATES = Path(__file__).parents[2] / "roles/prepare/templates"
SET_OFF = [
    Effect("trigger", "audit", "app.orders", "AFTER DELETE FOR EACH ROW", "app.audit"),
    Effect("event trigger", "watch", "the database", "sql_drop", "app.watch"),
    Effect("rule", "keep", "app.orders", "ON DELETE", "does something also"),
]
ACTING = [Effect("foreign key", "lines_order", "app.lines", "ON DELETE", "CASCADE")]


def preview(language: str) -> list[str]:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"at_most_one_told": told, "at_most_one_word": word}
    found = {"effects": [one.phrase for one in SET_OFF], "foreign_keys": [one.phrase for one in ACTING]}
    answer: dict[str, Any] = {
        "complete": False,
        "history": {"strategy": "locked"},
        "facts": {"trial": {**found, "rows": 0, "wrote": []}},
        "phrases": {name: joined(phrases).as_data() for name, phrases in found.items()},
    }
    parts = dict.fromkeys(("application", "commands", "prisma", "tool"), False)
    return (
        environment.get_template(f"change.{language}.j2")
        .render(
            {"__prepare_database": answer, "run_facts": {"parts": parts}, "report_language": language},
            environment_name="production",
            app_name="orders",
        )
        .splitlines()
    )


@pytest.mark.parametrize(
    ("language", "said", "acting"),
    [
        (
            "en",
            "trigger audit of app.orders (AFTER DELETE FOR EACH ROW: app.audit); event trigger watch of the database "
            "(sql_drop: app.watch); rule keep of app.orders (ON DELETE: does something also)",
            "foreign key lines_order of app.lines (ON DELETE: CASCADE)",
        ),
        (
            "ko",
            "app.orders의 트리거 audit(AFTER DELETE FOR EACH ROW: app.audit); 데이터베이스의 이벤트 트리거 watch"
            "(sql_drop: app.watch); app.orders의 규칙(rule) keep(ON DELETE: 다른 동작을 추가로 실행)",
            "app.lines의 외래 키 lines_order(ON DELETE: CASCADE)",
        ),
    ],
)
def test_what_the_plan_allows_by_name_is_in_the_reader_s_language(language: str, said: str, acting: str) -> None:
    lines = preview(language)
    assert [line for line in lines if line.endswith(f": {said}")]
    assert [line for line in lines if line.endswith(f": {acting}")]


def test_the_korean_preview_has_no_english_but_names_and_sql() -> None:
    assert [line for line in preview("ko") if re.search(r"\b(of|trigger|foreign|something)\b", line)] == []
