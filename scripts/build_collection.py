#!/usr/bin/env python3
"""Build the Ansible collection from this tree: stage a copy in a collection's layout, then have ansible-galaxy pack it.

    build_collection.py [DESTINATION]       DESTINATION: dist/ by default; prints the path of the file

[tool.collection] of pyproject.toml has its name and version. The copy differs from the tree in names alone: modules,
filters, roles, playbooks, fragments and imports get the collection's in front of them. Where such a name stands is
found by structure: imports and loader calls in Python's syntax tree, tasks and values in that of YAML.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
# Directories of the tree, and where a collection has them.
LAYOUT = {
    "library": "plugins/modules",
    "module_utils": "plugins/module_utils",
    "action_plugins": "plugins/action",
    "callback_plugins": "plugins/callback",
    "filter_plugins": "plugins/filter",
    "inventory_plugins": "plugins/inventory",
    "doc_fragments": "plugins/doc_fragments",
    "roles": "roles",
    "playbooks": "playbooks",
    "plans": "plans",
}
FILES = {
    "LICENSE": "LICENSE",
    "CHANGELOG.md": "CHANGELOG.md",
    "docs/collection.md": "README.md",
    "inventories/all.yml": "inventories/all.yml",
    "scripts/plan_check.py": "scripts/plan_check.py",
}
PACKAGES = {directory: place.replace("/", ".") for directory, place in LAYOUT.items() if place.startswith("plugins/")}
BINARY = {".mo"}  # the catalogues as gettext reads them
TASK_LISTS = {"tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"}
ROLE_TASKS = {"ansible.builtin.import_role", "ansible.builtin.include_role"}
IMPORT_PLAYBOOK = "ansible.builtin.import_playbook"
Edit = tuple[int, int, str]  # of a text: from, to, what stands there instead


@dataclass(frozen=True)
class Names:
    """The collection's name, and the names in the tree that get it in front of them."""

    collection: str
    modules: frozenset[str]
    filters: frozenset[str]

    def full(self, name: str) -> str:
        return f"{self.collection}.{name}"

    def package(self, dotted: str) -> str:
        return f"ansible_collections.{self.collection}.{dotted}"


def names_of(root: Path, collection: str) -> Names:
    """Read which modules and filters the tree has."""
    filters: set[str] = set()
    for path in root.glob("filter_plugins/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "filters":
                returned = next(part.value for part in node.body if isinstance(part, ast.Return))
                filters.update(ast.literal_eval(key) for key in returned.keys if key)  # type: ignore[union-attr]  # a dict
    modules = frozenset(path.stem for path in root.glob("library/*.py"))
    return Names(collection, modules, frozenset(filters))


def python(source: str, names: Names) -> str:
    """A Python file of the collection: its imports, its calls of Ansible's loaders, the YAML of its documentation."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(line: int, column: int) -> int:
        """Characters before a place that the syntax tree counts in bytes."""
        return len(source.encode()[: lines[line - 1] + column].decode())

    tree, edits = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and (new := _imported(node, names)):
            start = place(node.lineno, node.col_offset) + len("from ")
            edits.append((start, start + len(node.module), new))
        elif isinstance(node, ast.Call) and (name := _loaded(node)):
            start = place(name.lineno, name.col_offset) + 1
            edits.append((start, start, names.full("")))
        elif isinstance(node, ast.Expr) and _extends_path(node.value):
            start = place(node.lineno, node.col_offset)
            edits.append((start, start + len(ast.get_source_segment(source, node) or ""), "pass"))
    for text in _documents(tree):
        start = source.index(text.value, place(text.lineno, text.col_offset))
        edits += [(start + a, start + b, new) for a, b, new in _documentation(text.value, names)]
    return _edited(source, edits)


def _imported(node: ast.ImportFrom, names: Names) -> str | None:
    """The collection's name of what the statement imports from; None for what is not the tree's."""
    first, _, rest = str(node.module).partition(".")
    if node.level:
        return None
    if first == "at_most_one":
        return names.package(f"plugins.module_utils.{node.module}")
    if first in PACKAGES:
        return names.package(f"{PACKAGES[first]}.{rest}")
    ours = rest.startswith("module_utils.at_most_one") or (
        rest == "module_utils" and all(alias.name.startswith("at_most_one") for alias in node.names)
    )
    return names.package(f"plugins.{rest}") if first == "ansible" and ours else None


def _loaded(node: ast.Call) -> ast.Constant | None:
    """The name that a call such as ``action_loader.get("in_process")`` asks Ansible's plugin loader for."""
    function = node.func
    if not (isinstance(function, ast.Attribute) and function.attr == "get" and isinstance(function.value, ast.Name)):
        return None
    if not function.value.id.endswith("_loader"):
        return None
    if not isinstance(node.args[0], ast.Constant):
        raise SystemExit(
            f"Line {node.lineno}: {function.value.id}.get() needs a literal name, so that it can be found."
        )
    return node.args[0]


def _extends_path(node: ast.expr) -> bool:
    """Whether the statement lets Python find module_utils/: a collection's files find each other by their names."""
    return ast.unparse(node).startswith(("sys.path.insert(", "ansible.module_utils.__path__.append("))


def _documents(tree: ast.Module) -> Iterator[Any]:
    """The texts that Ansible reads from a module, a plugin or a class of fragments."""
    for node in tree.body:
        fragments = node.body if isinstance(node, ast.ClassDef) and node.name == "ModuleDocFragment" else []
        for part in (node, *fragments):
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant):
                named = ast.unparse(part.targets[0]) in ("DOCUMENTATION", "EXAMPLES", "RETURN")
                if isinstance(part.value.value, str) and (named or fragments):
                    yield part.value


def _documentation(text: str, names: Names) -> Iterator[Edit]:
    """Edits of DOCUMENTATION, EXAMPLES, RETURN or a fragment: tasks, fragments, the plugin's own name, M(...),
    O(...#module:...)."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    yield from _tasks(root, names)
    for key, value in _pairs(root):
        if key.value == "extends_documentation_fragment":
            for item in value.value:
                if item.value.startswith("at_most_one."):
                    yield (item.start_mark.index, item.start_mark.index, names.full(""))
        elif key.value == "plugin" and value.value == "target_guard":
            yield (value.start_mark.index, value.end_mark.index, names.full(value.value))
    for found in re.finditer(r"\bM\((\w+)\)|\b(?:O|RV)\((\w+)#module:", text):
        if found[found.lastindex or 1] in names.modules:
            start = found.start(found.lastindex or 1)
            yield (start, start, names.full(""))


def yaml_file(source: str, names: Names) -> str:
    """A YAML file of the collection: modules, roles and playbooks in its tasks and plays, filters in its values."""
    root = yaml.compose(source, Loader=yaml.SafeLoader)
    edits = list(_tasks(root, names))
    for scalar in _scalars(root):
        start, end = scalar.start_mark.index, scalar.end_mark.index
        edits += [(start + a, start + b, new) for a, b, new in _filters(source[start:end], names)]
    return _edited(source, edits)


def template(source: str, names: Names) -> str:
    """A Jinja template of the collection."""
    return _edited(source, list(_filters(source, names)))


def _filters(text: str, names: Names) -> Iterator[Edit]:
    """Edits that put the collection in front of each of its filters, which stand behind a bar."""
    for found in re.finditer(r"\|\s*(\w+)\b(?!\.)", text):
        if found[1] in names.filters:
            yield (found.start(1), found.start(1), names.full(""))


def _tasks(node: yaml.Node | None, names: Names) -> Iterator[Edit]:
    """Edits of a list of tasks or plays, and of the lists inside of each."""
    if not isinstance(node, yaml.SequenceNode):
        return
    for task in node.value:
        for key, value in _pairs(task):
            if key.value in TASK_LISTS:
                yield from _tasks(value, names)
            elif key.value in names.modules:
                yield (key.start_mark.index, key.start_mark.index, names.full(""))
            elif key.value in ROLE_TASKS:
                role = next(item for option, item in _pairs(value) if option.value == "name")
                yield (role.start_mark.index, role.start_mark.index, names.full(""))
            elif key.value == IMPORT_PLAYBOOK:
                yield (value.start_mark.index, value.end_mark.index, names.full(Path(value.value).stem))


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    return list(node.value) if isinstance(node, yaml.MappingNode) else []


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                yield from _scalars(part)


def _edited(text: str, edits: list[Edit]) -> str:
    for start, end, new in sorted(set(edits), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def stage(root: Path, target: Path, settings: dict[str, Any]) -> None:
    """Write the collection's files below ``target``."""
    names = names_of(root, f"{settings['namespace']}.{settings['name']}")
    for directory, place in LAYOUT.items():
        for path in sorted((root / directory).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = target / place / path.relative_to(root / directory)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix in BINARY:
                    shutil.copyfile(path, copy)
                else:
                    copy.write_text(_renamed(path, names), encoding="utf-8")
    for name, place in FILES.items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / place)
    _write_metadata(root, target, settings, names)


def _renamed(path: Path, names: Names) -> str:
    source = path.read_text(encoding="utf-8")
    kinds = {".py": python, ".yml": yaml_file, ".j2": template}
    return kinds[path.suffix](source, names) if path.suffix in kinds else source


def _write_metadata(root: Path, target: Path, settings: dict[str, Any], names: Names) -> None:
    """galaxy.yml, what a run needs of Python, and meta/: the versions of Ansible, the groups for module_defaults."""
    galaxy = {key: value for key, value in settings.items() if key not in ("requires_ansible", "python")}
    bounds = dict(
        re.findall(r"^([\w-]+)([<>=][^\s#]+)", (root / "requirements/run.in").read_text("utf-8"), re.MULTILINE)
    )
    logins = [
        name for name in sorted(names.modules) if "at_most_one.login" in (root / f"library/{name}.py").read_text()
    ]
    files: dict[str, Any] = {
        "galaxy.yml": {**galaxy, "readme": "README.md", "license_file": "LICENSE", "dependencies": {}},
        "meta/runtime.yml": {
            "requires_ansible": settings["requires_ansible"],
            "action_groups": {"database": logins},
        },
        "meta/execution-environment.yml": {"version": 1, "dependencies": {"python": "requirements.txt"}},
    }
    (target / "meta").mkdir()
    for name, content in files.items():
        (target / name).write_text("---\n" + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    (target / "requirements.txt").write_text("".join(f"{name}{bounds[name]}\n" for name in settings["python"]))


def read_settings() -> dict[str, Any]:
    """[tool.collection] of pyproject.toml."""
    tool: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return dict(tool["collection"])


def build(destination: Path) -> Path:
    """Stage and pack; the path of the file."""
    settings = read_settings()
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        stage(ROOT, Path(directory), settings)
        galaxy = Path(sys.executable).with_name("ansible-galaxy")
        subprocess.run(  # noqa: S603 (our own program, our own paths)
            [galaxy, "collection", "build", "--force", "--output-path", destination.absolute(), directory],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return destination / f"{settings['namespace']}-{settings['name']}-{settings['version']}.tar.gz"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"))
