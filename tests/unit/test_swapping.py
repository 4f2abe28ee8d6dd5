"""A mutant's code takes the place of the code that is loaded, wherever that was imported."""

from __future__ import annotations

import ast
import multiprocessing
from collections.abc import Callable

import pytest
from at_most_one.fence import building
from at_most_one.postgres import catalog_snapshot, fence_names
from at_most_one.postgres.connection import Login

from tests.mutants.scope import CORE, ROOT
from tests.mutants.swapping import depending, swap


def in_a_fork(question: Callable[[], bool]) -> bool:
    """The answer of a process that ends with it: what is swapped stays swapped."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(question()))
    child.start()
    child.join(30)
    return not answers.empty() and bool(answers.get())


def changed(file: str, old: str, new: str) -> str:
    source = (ROOT / CORE / file).read_text()
    assert source.count(old) == 1, "the test's own place"
    return source.replace(old, new)


def test_a_function_is_another_one_where_it_was_imported() -> None:
    source = changed("postgres/fence_names.py", "number: int = 1) -> str:", "number: int = 7) -> str:")
    before = fence_names.name_of("plan", 7)

    def has_changed() -> bool:
        swap("postgres/fence_names.py", source, "name_of")
        imported = vars(building)["name_of"]
        return imported is fence_names.name_of and imported("plan") == before

    assert in_a_fork(has_changed)
    assert fence_names.name_of("plan") != before, "not in this process"


def test_a_constant_is_another_one_where_it_was_imported() -> None:
    source = changed("postgres/fence_names.py", "at_most_one_fence_[0-9a-f]{12}", "at_most_one_fence_[0-9a-f]{11}")

    def has_changed() -> bool:
        swap("postgres/fence_names.py", source, "PATTERN")
        return "{11}" in fence_names.PATTERN and vars(catalog_snapshot)["PATTERN"] is fence_names.PATTERN

    assert in_a_fork(has_changed)


def test_constants_that_are_made_of_it_are_other_ones_too() -> None:
    tree = ast.parse("A = 1\nB: int = f(A)\nC = [B]\nD = 2\ndef f(): return A")
    assert depending(tree, "A") == ["A", "B", "C"]
    assert depending(tree, "f") == []


def test_a_method_is_another_one_for_objects_that_are_there() -> None:
    source = changed(
        "postgres/connection.py", 'return f"{self.user}@{self.host}', 'return f"{self.user} at {self.host}'
    )
    login = Login("db", 5432, "service", "deployer", "secret")

    def has_changed() -> bool:
        swap("postgres/connection.py", source, "Login.where")
        return login.where().startswith("deployer at db")

    assert in_a_fork(has_changed)


def test_what_cannot_be_loaded_is_an_error_and_changes_nothing() -> None:
    before = fence_names.name_of("plan")

    def is_refused() -> bool:
        with pytest.raises(ZeroDivisionError):
            swap("postgres/fence_names.py", "1 / 0", "name_of")
        return fence_names.name_of("plan") == before

    assert in_a_fork(is_refused)
