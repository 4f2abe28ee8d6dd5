"""What `make mutants` changes: each kind once, nothing that is only words, and names that outlast a new line above."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import sql_text
from tests.mutants.covering import Covering
from tests.mutants.finding import find
from tests.mutants.scope import CORE, FILES, ROOT, equivalent


def changed(text: str) -> set[str]:
    return {text[: one.start] + one.new + text[one.end :] for one in sql_text.changes(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WHERE a AND (b OR c)", {"true AND (b OR c)", "a AND true", "a AND (b OR false)"}),
        ("WHERE a BETWEEN 1 AND 2 AND b", {"true AND b", "a BETWEEN 1 AND 2 AND true"}),
        (
            "WHERE CASE a WHEN 'x' THEN b END FOR UPDATE OF {c}",
            {"true FOR UPDATE OF {c}", "CASE a WHEN 'x' THEN b END"},
        ),
        ("WHERE NOT a", {"true", "a"}),
        ("WHERE a NOT IN (b)", {"true", "a IN (b)"}),
        ("WHERE a IS DISTINCT FROM b", {"true", "a IS NOT DISTINCT FROM b"}),
        ("WHERE a <= 1", {"true", "a < 1", "a <= 2"}),
        ("WHERE a IN ('b', 'c')", {"true", "a NOT IN ('b', 'c')", "a IN ('b')", "a IN ('c')"}),
    ],
)
def test_conditions(text: str, expected: set[str]) -> None:
    assert {one.removeprefix("WHERE ") for one in changed(text)} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "SELECT a ORDER BY f(b, c), d LIMIT 1",
            {"SELECT a ORDER BY f(b, c) DESC, d LIMIT 1", "SELECT a ORDER BY f(b, c), d"},
        ),
        ("SELECT max(a) ORDER BY b DESC", {"SELECT min(a) ORDER BY b DESC", "SELECT max(a) ORDER BY b ASC"}),
        ("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", {"LOCK TABLE {} IN ACCESS SHARE MODE"}),
        ("SET LOCAL search_path = ''", {"SET LOCAL at_most_one.unused = ''"}),
        ("UPDATE {a} SET b = c", set()),
        ("CREATE TABLE IF NOT EXISTS a (b text NOT NULL)", set()),
    ],
)  # fmt: skip
def test_the_rest_of_sql(text: str, expected: set[str]) -> None:
    assert changed(text) == expected


SOURCE = '''
"""Words, WHERE nothing is true."""

_QUERY = "SELECT FROM a WHERE {b}"
CODES = ("57014", "40P01")


def both(one: int = 1, *, sure: bool = False) -> bool:
    """More words: not True."""
    try:
        check(one)
    except (KeyError, ValueError):
        raise OperatorError("not here", expected="SELECT WHERE a", found=not one) from None
    if one > 2 and not sure:
        one += 1
    return bool(_QUERY)
'''


def test_python(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(SOURCE)
    mutants = find(tmp_path, file.name)
    assert sorted(f"{one.scope} {one.name.partition(': ')[2]}" for one in mutants) == sorted(
        [
            'CODES CODES = ("57014", "40P01") -> CODES = ("40P01",)',
            'CODES CODES = ("57014", "40P01") -> CODES = ("57014",)',
            '_QUERY = "SELECT FROM a WHERE {b}" -> = "SELECT FROM a WHERE true"',
            "both nt = 1, *, sure: bool = False) -> bool: -> nt = 1, *, sure: bool = True) -> bool:",
            "both check(one) -> pass",
            "both except (KeyError, ValueError): -> except (KeyError,):",
            "both except (KeyError, ValueError): -> except (ValueError,):",
            'both raise OperatorError("not here", expected="SELECT WHERE a", found=not one) from None -> pass',
            "both if one > 2 and not sure: -> if one > 2 and (sure):",
            "both if one > 2 and not sure: -> if one > 2 or not sure:",
            "both if one > 2 and not sure: -> if one > 3 and not sure:",
            "both if one > 2 and not sure: -> if one >= 2 and not sure:",
            "both one += 1 -> one += 2",
            "both one += 1 -> pass",
        ]
    )
    names = [one.name for one in mutants]
    file.write_text("\n" + SOURCE)
    assert [one.name for one in find(tmp_path, file.name)] == names
    assert all(one.applied(SOURCE) != SOURCE for one in mutants)


def test_a_constant_is_judged_by_who_uses_it(tmp_path: Path) -> None:
    code = SOURCE.replace("bool(_QUERY)", "bool(_WHOLE)")
    (tmp_path / "sample.py").write_text(f'_PART = "WHERE a"\n_WHOLE = f"SELECT {{_PART}}"\n{code}')
    tests = {
        "slow": {"seconds": 2, "functions": ["sample.py both"]},
        "fast": {"seconds": 1, "functions": ["sample.py both"]},
        "other": {"seconds": 1, "functions": ["other.py both"]},
    }
    covering = Covering(tests, tmp_path)
    by_scope = {mutant.scope: covering.of(mutant) for mutant in find(tmp_path, "sample.py")}
    assert by_scope == {"both": ["fast", "slow"], "_PART": ["fast", "slow"], "_QUERY": [], "CODES": []}


def test_every_excused_mutant_is_one_and_has_its_reason() -> None:
    names = {mutant.name for name in FILES for mutant in find(ROOT / CORE, f"{name}.py")}
    assert equivalent().keys() <= names
    assert all(len(reason.split()) > 3 for reason in equivalent().values())
