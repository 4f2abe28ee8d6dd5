"""Put a mutant's code in the place of the code that is loaded, in a process that ends with the trial.

The modules, and whoever has imported from them, stay: a function gets the other one's code, a constant is replaced
wherever it was imported under its name. What another module has computed from a constant when it was loaded stays as it
was, so that such a mutant may survive although a test would notice it.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from tests.mutants.finding import assigned

_PACKAGE = "at_most_one"


def swap(file: str, source: str, scope: str) -> None:
    """Let ``file`` of the core be ``source``, which differs from it in ``scope`` alone: a function or a constant."""
    name = f"{_PACKAGE}.{file.removesuffix('.py').replace('/', '.')}"
    module = importlib.import_module(name)
    other = _loaded(module, source)
    functions = dict(_functions(other))
    for place, function in _functions(module):
        if place in functions and function.__code__.co_freevars == functions[place].__code__.co_freevars:
            _replace(function, functions[place])
    for constant in depending(ast.parse(source), scope):
        _assign(module, constant, getattr(other, constant))
    before, after = getattr(module, scope, None), getattr(other, scope, None)
    if isinstance(before, type):  # a class by itself: what stands in its body
        for attribute, value in vars(after).items():
            if not attribute.startswith("__") and not isinstance(value, (FunctionType, property, classmethod)):
                setattr(before, attribute, value)


def _loaded(module: ModuleType, source: str) -> ModuleType:
    """A module of the other source, which nothing has imported."""
    other = ModuleType(module.__name__)
    other.__package__, other.__file__ = module.__package__, module.__file__
    sys.modules[module.__name__] = other  # dataclasses look their module up
    try:
        exec(compile(source, str(module.__file__), "exec"), vars(other))
    finally:
        sys.modules[module.__name__] = module
    return other


def _replace(function: FunctionType, other: FunctionType) -> None:
    function.__code__ = other.__code__
    if function.__defaults__ != other.__defaults__:
        function.__defaults__ = other.__defaults__
    if function.__kwdefaults__ != other.__kwdefaults__:
        function.__kwdefaults__ = other.__kwdefaults__


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    for name, value in list(vars(module).items()):
        yield from _within(name, value, module.__name__)


def _within(name: str, value: Any, module: str) -> Iterator[tuple[str, FunctionType]]:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    while hasattr(value, "__wrapped__"):  # a context manager, a cached function
        value = value.__wrapped__
    if getattr(value, "__module__", None) != module:
        return
    if isinstance(value, FunctionType):
        yield name, value
    elif isinstance(value, type):
        for attribute, part in list(vars(value).items()):
            yield from _within(f"{name}.{attribute}", part, module)


def _assign(module: ModuleType, name: str, value: Any) -> None:
    """Replace a constant where it is, and where it was imported from there."""
    before = getattr(module, name)
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__name__", "").partition(".")[0] in (_PACKAGE, "tests") and (
            vars(loaded).get(name) is before
        ):
            setattr(loaded, name, value)


def depending(tree: ast.Module, scope: str) -> list[str]:
    """The module's constants that ``scope`` is, or that are made of it."""
    parts = {
        name: {one.id for one in ast.walk(statement) if isinstance(one, ast.Name)} - {name}
        for statement in tree.body
        for name in assigned(statement)
    }
    found = {scope} & parts.keys()
    while more := {name for name, used in parts.items() if name not in found and used & found}:
        found |= more
    return sorted(found)
