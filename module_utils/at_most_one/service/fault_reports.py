"""Follow the faults that were there before a change: what people are told of them, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .health_checks import Check, faults_of
from .known_faults import REFUSE

_REPAIR = {
    "en": {
        "monitoring": 'qualify each column of the endpoint\'s query with its table; "column reference is ambiguous" in '
        "the application's log names the column.",
        "race": "map the unique violation (Prisma P2002, PostgreSQL 23505) of the insert that opens a session to 409.",
    },
    "ko": {
        "monitoring": "이 API의 쿼리에서 각 열 앞에 테이블 이름을 붙이십시오. 어느 열인지는 애플리케이션 로그의 "
        '"column reference is ambiguous"에 있습니다.',
        "race": "세션을 여는 INSERT의 고유 제약 위반(Prisma P2002, PostgreSQL 23505)을 409로 바꾸십시오.",
    },
}


@dataclass(frozen=True)
class Followed:
    """What is known once the service was asked. A fault is a mapping as report.json has it."""

    faults_before: Mapping[str, Sequence[int]]  # what the release before the change answers
    found: Sequence[Mapping[str, Any]]  # its faults, with what became of each: repaired, known (still there) or None
    told: Sequence[Mapping[str, Any]]  # those that this call reports


def before_change(
    checks: Sequence[Check],
    faults_before: Mapping[str, Sequence[int]],
    found: Sequence[Mapping[str, Any]],
    *,
    policy: Mapping[str, str],
    language: str,
) -> Followed:
    """The running release was asked. What ``faults_before`` has of it already counts before its answer now.

    Code that does not know the rule yet answers a lost race with 500: it is reported only of a new release.
    """
    seen = {**faults_of(checks), **faults_before}
    new = [
        {
            **_words(one),
            **{"check": one.name, "statuses": list(one.statuses)},
            **{"policy": policy.get(one.name, REFUSE), "repair": _REPAIR[language][one.name], "after": None},
        }
        for one in checks
        if one.statuses and set(one.statuses) <= set(seen[one.name])
    ]
    return Followed(seen, [*found, *new], [one for one in new if one["check"] != "race"])


def after_change(
    checks: Sequence[Check], faults_before: Mapping[str, Sequence[int]], found: Sequence[Mapping[str, Any]]
) -> Followed:
    """The new release was asked: what it made of the faults that were there before."""
    became = {one.name: "known" if one.known else "repaired" if one.ok else None for one in checks}
    after = [{**one, "after": became.get(one["check"])} for one in found]
    return Followed(faults_before, after, [one for one in after if (one["check"], one["after"]) == ("race", "known")])


def _words(check: Check) -> dict[str, Any]:
    """What was asked and what came, each with its phrase."""
    data = check.as_data()
    phrases = {name: data["phrases"][name] for name in ("request", "got") if name in data["phrases"]}
    return {"request": data["request"], "got": data["got"], "phrases": phrases}
