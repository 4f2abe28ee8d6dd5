"""make core-matrix: playbooks, tests and a deployment on each ansible-core and each Python of the hosts, one line each.

Each version has a copy of this tree in .lab/core, with an environment of its own: what requirements/dev.txt locks, with
another ansible-core. Its Python is the machine's, or that of Debian 13: its packages are unpacked into .lab/core, and
nothing of them is started but the interpreter, which needs no root. What came of it is kept in matrix/core.json,
from which the tables of the documents are made: they claim what was run, and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from matrix.run import MatrixError, counted

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".lab" / "core"
RESULTS = ROOT / "matrix" / "core.json"
UV = ROOT / ".venv" / "bin" / "uv"
SECONDS = 3_600  # for one step, on a busy machine
# The versions of ansible-core, the oldest first, with what its control node may have: what is found first is taken.
CORES: dict[str, tuple[str, ...]] = {
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.13", "3.12", "3.14"),
    "2.21": ("3.13", "3.12", "3.14"),
}
HOSTS = ("3.9", "3.11", "3.13")  # the oldest that runs modules, and two that distributions have
DEBIAN, DEBIAN_PYTHON = "trixie", "3.13"
ENVIRONMENTS = ("local", "local_staging", "staging", "production")
WALK = "tests/database/test_bare_database.py::test_from_duplicates_to_verified_and_back_without_node"
ON_CONTROL_NODE = {"run_inputs", "run_stop", "stop_unless"}  # modules that no host is asked to run
STEPS = ("playbooks", "modules", "deployment", "tests")
KEPT = {".venv"}  # of a copy that is there
STARTER = """#!/bin/sh
# Python of another distribution, started by the loader and with the libraries of that.
exec '{loader}' --argv0 "$0" --library-path '{libraries}' '{command}' "$@"
"""
COUNTING = """#!/bin/sh
echo >> '{log}'
exec '{command}' "$@"
"""
PAGES = {"README.md": "en", "README.ko.md": "ko", "docs/versions.md": "en"}
BEGIN, END = "<!-- From matrix/core.json, by make core-matrix. -->", "<!-- The end of what was run. -->"
HEADS = {
    "en": ("ansible-core", "its Python", "playbooks", "unit and house tests", "deployed, by the hosts' Python"),
    "ko": ("ansible-core", "사용한 Python", "플레이북", "단위·규칙 테스트", "배포 확인(서버의 Python)"),
}
WORDS = {
    "en": {"passed": "passed", "failed": "failed", "": "not run"},
    "ko": {"passed": "통과", "failed": "실패", "": "실행하지 않음"},
}


@dataclass(frozen=True)
class Python:
    """An interpreter. One that lies in the ``tree`` of another distribution is started by the loader of that."""

    version: str
    command: Path
    tree: Path | None = None


@dataclass(frozen=True)
class Result:
    """What came of one step: on which ansible-core and Python, and for hosts with which Python where it has some."""

    core: str
    python: str
    step: str
    hosts: str
    outcome: str  # passed or failed
    count: int  # of what has passed

    @property
    def place(self) -> tuple[str, str, str]:
        return series(self.core), self.step, self.hosts


def series(version: str) -> str:
    """2.21 of 2.21.5."""
    return ".".join(version.split(".")[:2])


# ---- What is needed --------------------------------------------------------------------------------------------------


def lock_file(core: str) -> Path:
    """The lock file that names ansible-core of this series."""
    return ROOT / "requirements" / ("dev.txt" if core == "2.19" else f"core-{core}.txt")


def locked(core: str) -> str:
    """The version of ansible-core that is installed for this series."""
    found = re.search(r"^ansible-core==(\S+)", lock_file(core).read_text(), re.MULTILINE)
    if not found:
        raise MatrixError(f"{lock_file(core).name} names no ansible-core. Expected: one version. Next: make lock.")
    return found[1]


def without_core(requirements: str) -> str:
    """A lock file without its entry for ansible-core, hashes included."""
    return re.sub(r"^ansible-core==.*\n(?:[ \t].*\n)*", "", requirements, flags=re.MULTILINE)


def find_python(wanted: Sequence[str]) -> Python | None:
    """The first of these versions that this machine has: on PATH, of the running environment, or of pyenv."""
    for version in wanted:
        for command in _places(version):
            if _starts(command, version):
                return Python(version, command)
    return None


def _places(version: str) -> Iterator[Path]:
    name = f"python{version}"
    yield Path(sys.base_prefix, "bin", name)
    if on_path := shutil.which(name):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"), reverse=True)


def _starts(command: Path, version: str) -> bool:
    """Whether it is that version. A shim that leads nowhere is on PATH as well."""
    program = "import ssl, sys; print(*sys.version_info[:2], sep='.')"
    try:
        done = subprocess.run([command, "-c", program], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def python_for(core: str) -> Python:
    """The machine's, or else that of Debian 13. Raises MatrixError where neither can be had."""
    wanted = CORES[core]
    found = find_python(wanted)
    if found:
        return found
    tree = WORK / "debian-13"
    command = tree / f"usr/bin/python{DEBIAN_PYTHON}"
    if not command.exists():
        unpack_debian(tree, wanted)
    return Python(DEBIAN_PYTHON, command, tree)


def unpack_debian(tree: Path, wanted: Sequence[str]) -> None:
    """Download the packages of Python from the mirror of DEBIAN_MIRROR, or debootstrap's own, and unpack them."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in ("debootstrap", "dpkg-deb") if not shutil.which(name, path=path)]
    if missing:
        raise MatrixError(
            f"There is no Python {' or '.join(wanted)} here, nor {' and '.join(missing)}, which would bring the one of "
            "Debian 13. Expected: one or the other. Next: install a Python, or debootstrap (on Debian and Ubuntu: "
            "apt-get install debootstrap)."
        )
    packages, unpacked = tree.with_name("debian-13.packages"), tree.with_name("debian-13.partial")
    for place in (packages, unpacked):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    mirror = [address for address in [os.environ.get("DEBIAN_MIRROR")] if address]
    options = ["--download-only", "--variant=minbase", "--include=python3"]
    execute([str(shutil.which("debootstrap", path=path)), *options, DEBIAN, str(packages), *mirror])
    for package in sorted(packages.glob("var/cache/apt/archives/*.deb")):
        execute(["dpkg-deb", "--extract", str(package), str(unpacked)])
    unpacked.rename(tree)
    shutil.rmtree(packages, ignore_errors=True)


def execute(command: Sequence[str], cwd: Path = ROOT) -> None:
    """Run what brings something. Raises MatrixError with the last line that it printed."""
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        raise MatrixError(
            f"{shlex.join(command[:3])} ended with {done.returncode}, and {said[-1]} Expected: package registries and "
            "a mirror that can be reached. Next: see above, then make core-matrix again."
        )


def make_environment(place: Path, python: Python, requirements: Sequence[Path]) -> Path:
    """Its interpreter. Nothing is done where it was made of the same."""
    made_of = "\n".join([str(python.command), *(path.read_text() for path in requirements)])
    stamp, interpreter = place / "made-of.txt", place / "bin" / "python"
    if stamp.exists() and stamp.read_text() == made_of:
        return interpreter
    shutil.rmtree(place, ignore_errors=True)
    if python.tree:
        enter(place, python.tree, python)
    else:
        execute([str(UV), "venv", "--quiet", "--python", str(python.command), str(place)])
    files = [word for path in requirements for word in ("-r", str(path))]
    options = ["--quiet", "--python", str(interpreter), "--require-hashes", "--no-deps", *files]
    execute([str(UV), "pip", "install", *options])
    stamp.write_text(made_of)
    return interpreter


def enter(place: Path, tree: Path, python: Python) -> None:
    """Make an environment by hand, as its Python cannot be started without the loader of its distribution."""
    (loader,) = tree.glob("usr/lib*/ld-linux-*.so.*")
    (libc,) = tree.glob("usr/lib/*/libc.so.6")
    starter = STARTER.format(loader=loader, libraries=libc.parent, command=python.command)
    (place / "bin").mkdir(parents=True)
    for name in ("python", "python3", f"python{python.version}"):
        (place / "bin" / name).write_text(starter)
        (place / "bin" / name).chmod(0o755)
    (place / f"lib/python{python.version}/site-packages").mkdir(parents=True)
    settings = {"home": tree / "usr/bin", "include-system-site-packages": "false", "version": python.version}
    (place / "pyvenv.cfg").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))


def copy_tree(place: Path) -> None:
    """This tree as it stands, with what is not committed, as a repository of its own. Its environment stays."""
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        if old.is_symlink() or old.is_file():
            old.unlink()
        elif old.name not in KEPT:
            shutil.rmtree(old)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(ROOT / name):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    for name in ("collections/ansible_collections", ".lab/tools", ".lab/bin"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            (place / name).symlink_to((ROOT / name).resolve())
    execute(["git", "init", "--quiet"], place)
    execute(["git", "add", "--all"], place)
    someone = ["-c", "user.name=core-matrix", "-c", "user.email=core-matrix@localhost"]  # a checkout has a commit
    execute(["git", *someone, "commit", "--quiet", "--no-verify", "--message", "This tree as it stands"], place)


# ---- What is run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Whether a step has passed, how much of it has, and what it printed."""

    passed: bool
    count: int
    output: str


@dataclass(frozen=True)
class HostPython:
    """An interpreter for modules on hosts that notes each of its starts, so that a step proves that it was used."""

    version: str
    command: Path
    log: Path

    def starts(self) -> int:
        """How many there were since the last question."""
        count = len(self.log.read_text().splitlines())
        self.log.write_text("")
        return count


def ran(tree: Path, command: Sequence[str], **more: str) -> tuple[bool, str]:
    """Run a command in the copy, with its environment and nothing of ours."""
    ours = ("ANSIBLE_", "MAKE", "MFLAGS", "PYTHON", "PYTEST_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join([str(tree / ".venv/bin"), str(ROOT / ".lab/bin"), kept["PATH"]])
    words = [str(tree / ".venv/bin" / command[0]), *command[1:]]
    environment = {**kept, "PATH": path, "NO_COLOR": "1", **more}
    try:
        done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"{shlex.join(command)} did not end within {SECONDS} s\n"
    return done.returncode == 0, done.stdout + done.stderr


def parse_playbooks(tree: Path) -> Outcome:
    """Every playbook parses against every inventory, every module is documented."""
    names = sorted(path.name for path in tree.glob("*.yml") if path.name != "requirements.yml")
    modules = sorted(path.stem for path in tree.glob("library/*.py"))
    parses = [
        ["ansible-playbook", *names, "-i", f"inventories/{one}", "-l", one, "--syntax-check"] for one in ENVIRONMENTS
    ]
    answers = [ran(tree, command) for command in [*parses, ["ansible-doc", "--type", "module", "--json", *modules]]]
    return Outcome(all(passed for passed, _ in answers), len(names), "".join(said for ok, said in answers if not ok))


def start_modules(tree: Path, python: HostPython) -> Outcome:
    """Every module is brought to a host, starts there, and refuses an option that it does not have."""
    names = sorted({path.stem for path in tree.glob("library/*.py")} - ON_CONTROL_NODE)
    refused = "answer.msg is not search('missing required arguments|Unsupported parameters')"
    tasks = [{name: {"no_such_option": 1}, "register": "answer", "failed_when": refused} for name in names]
    play, hosts = tree / ".lab/modules.yml", tree / ".lab/hosts.yml"
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    variables = {"ansible_connection": "local", "ansible_python_interpreter": str(python.command)}
    hosts.write_text(json.dumps({"all": {"hosts": {"host": variables}}}))
    python.starts()
    passed, said = ran(tree, ["ansible-playbook", "-i", str(hosts), str(play)])
    started = python.starts()
    return Outcome(passed and started >= len(names), len(names), f"{said}Started {started} times.\n")


def deploy(tree: Path, python: HostPython) -> Outcome:
    """docs/bare-database.md: from duplicates to deployed, again, monitored and rolled back, on a real PostgreSQL."""
    python.starts()
    outcome = tested(tree, [WALK], HOSTS_PYTHON=str(python.command))
    started = python.starts()
    return Outcome(outcome.passed and started > 0, started, f"{outcome.output}Started {started} times.\n")


def run_tests(tree: Path) -> Outcome:
    """Pure functions, and the project's own rules."""
    return tested(tree, ["tests/unit", "tests/house", "--numprocesses", "auto"])


def tested(tree: Path, arguments: Sequence[str], **more: str) -> Outcome:
    report = tree / ".lab/tests.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-m", "not thorough", f"--junitxml={report}"]
    ended_well, said = ran(tree, ["python", "-m", "pytest", *options, *arguments], **more)
    passed, failed, skipped = counted(report)
    return Outcome(ended_well and bool(passed) and not failed and not skipped, passed, said)


def host_pythons(place: Path, versions: Sequence[str]) -> Iterator[HostPython]:
    """Those that this machine has, each with psycopg2; a line for each that it does not have."""
    for version in versions:
        found = find_python([version])
        if found is None:
            print(f"hosts with Python {version:<5} not run: there is no Python {version} here", flush=True)
            continue
        interpreter = make_environment(WORK / f"hosts-{version}", found, [ROOT / "requirements/hosts.txt"])
        command, log = place / f"hosts-python{version}", place / f"hosts-python{version}.log"
        log.write_text("")
        command.write_text(COUNTING.format(log=log, command=interpreter))
        command.chmod(0o755)
        yield HostPython(version, command, log)


def run(core: str, steps: Sequence[str], versions: Sequence[str]) -> list[Result]:
    """The steps on one version of ansible-core, a line for each. Raises MatrixError where it cannot be brought."""
    python, version, place = python_for(core), locked(core), WORK / core
    tree = place / "checkout"
    copy_tree(tree)
    requirements = [lock_file(core)]
    if core != "2.19":
        others = place / "requirements.txt"
        others.write_text(without_core((ROOT / "requirements/dev.txt").read_text()))
        requirements.append(others)
    make_environment(tree / ".venv", python, requirements)
    hosts = list(host_pythons(place, versions)) if {*ON_HOSTS} & {*steps} else []
    results = []
    for step in steps:
        works = {on.version: partial(ON_HOSTS[step], tree, on) for on in hosts} if step in ON_HOSTS else {}
        for on, work in ({"": partial(ALONE[step], tree)} if step in ALONE else works).items():
            started = time.monotonic()
            outcome = work()
            word = "passed" if outcome.passed else "failed"
            result = Result(version, python.version, step, on, word, outcome.count)
            print(f"ansible-core {version:<8} Python {python.version:<5} {step:<11} {f'hosts {on}' if on else '':<11} "
                  f"{word} ({outcome.count}), {time.monotonic() - started:.0f} s", flush=True)  # fmt: skip
            if not outcome.passed:
                print(outcome.output, file=sys.stderr, flush=True)
            keep([result])
            results.append(result)
    return results


ALONE: dict[str, Callable[[Path], Outcome]] = {"playbooks": parse_playbooks, "tests": run_tests}
ON_HOSTS: dict[str, Callable[[Path, HostPython], Outcome]] = {"modules": start_modules, "deployment": deploy}


# ---- What is written -------------------------------------------------------------------------------------------------


def kept() -> list[Result]:
    return [Result(**one) for one in json.loads(RESULTS.read_text())]


def merged(old: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """The newest of each place; what another version or another Python of a series has shown is dropped with it."""
    of = {series(one.core): (one.core, one.python) for one in new}
    stays = [one for one in old if of.get(series(one.core), (one.core, one.python)) == (one.core, one.python)]
    return sorted({one.place: one for one in [*stays, *new]}.values(), key=_order)


def _order(one: Result) -> tuple[int, int, int]:
    hosts = HOSTS.index(one.hosts) if one.hosts in HOSTS else -1
    return list(CORES).index(series(one.core)), STEPS.index(one.step), hosts


def keep(new: Sequence[Result]) -> None:
    results = merged(kept(), new)
    lines = ",\n".join(f"  {json.dumps(asdict(one))}" for one in results)
    RESULTS.write_text(f"[\n{lines}\n]\n" if lines else "[]\n")
    write_tables(results)


def table(results: Sequence[Result], language: str) -> str:
    """A row for each version of ansible-core; what was not run is said to be."""
    words, heads = WORDS[language], HEADS[language]
    lines = [heads, ("---",) * len(heads)]
    for core in CORES:
        found = {(one.step, one.hosts): one for one in results if series(one.core) == core}
        first = next(iter(found.values()), None)
        named = (first.core, first.python) if first else (core, words[""])
        alone = (_said(found.get((step, "")), words) for step in ALONE)
        lines.append((*named, *alone, ", ".join(_deployed(found, words)) or words[""]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _said(result: Result | None, words: dict[str, str]) -> str:
    if result is None or result.outcome == "failed":
        return words[result.outcome if result else ""]
    return f"{result.count:,} {words['passed']}"


def _deployed(found: dict[tuple[str, str], Result], words: dict[str, str]) -> Iterator[str]:
    """The Python versions of the hosts where every module started and a deployment went through."""
    for hosts in HOSTS:
        outcomes = {one.outcome for step in ON_HOSTS if (one := found.get((step, hosts)))}
        if "failed" in outcomes:
            yield f"{hosts} {words['failed']}"
        elif all((step, hosts) in found for step in ON_HOSTS):
            yield hosts


def has_passed(results: Sequence[Result], core: str) -> bool:
    """Whether a whole deployment went through on this series, and nothing that was run has failed."""
    found = [one for one in results if series(one.core) == core]
    return {"playbooks", *ON_HOSTS} <= {one.step for one in found} and all(one.outcome == "passed" for one in found)


def page(text: str, results: Sequence[Result], language: str) -> str:
    """A document with its table as the results have it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MatrixError(f"A document has no place for the table. Expected: {BEGIN} and {END} around it.")
    return f"{before}{BEGIN}\n{table(results, language)}\n\n{END}{after}"


def write_tables(results: Sequence[Result]) -> None:
    for name, language in PAGES.items():
        path = ROOT / name
        path.write_text(page(path.read_text(), results, language))


def chosen(given: str, known: Sequence[str], what: str) -> list[str]:
    """Names with commas between them, in the order of ``known``; all of those where none is given."""
    names = {name for name in given.split(",") if name}
    if unknown := names - {*known}:
        raise MatrixError(
            f"There is no {what} {', '.join(sorted(unknown))}. Expected: any of {', '.join(known)}. Next: correct it."
        )
    return [name for name in known if name in names or not names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only these versions of ansible-core, separated by commas")
    parser.add_argument("--steps", default="", help=f"only these of {', '.join(STEPS)}, separated by commas")
    parser.add_argument(
        "--hosts", default="", help=f"only these of {', '.join(HOSTS)} on the hosts, separated by commas"
    )
    parser.add_argument("--table", action="store_true", help="run nothing; write the tables of the documents again")
    options = parser.parse_args()
    try:
        cores, steps = chosen(options.only, list(CORES), "ansible-core"), chosen(options.steps, STEPS, "step")
        versions = chosen(options.hosts, HOSTS, "Python of the hosts")
        if options.table:
            write_tables(kept())
            return 0
    except MatrixError as stop:
        print(f"make core-matrix: {stop}", file=sys.stderr)
        return 1
    good = 0
    for core in cores:
        try:
            results = run(core, steps, versions)
        except MatrixError as stop:
            print(f"make core-matrix: ansible-core {core}: {stop}", file=sys.stderr, flush=True)
            continue
        good += bool(results) and all(one.outcome == "passed" for one in results)
    print(f"{good} of {len(cores)} versions of ansible-core passed")
    return 0 if good == len(cores) else 1


if __name__ == "__main__":
    sys.exit(main())
