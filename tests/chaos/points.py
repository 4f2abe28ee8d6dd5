"""The points at which a run is struck, and which of them make a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Point:
    """One strike: ``way`` is deploy, concurrent (a deploy that builds so) or rollback; ``blow`` is one of ``BLOWS``.

    It comes before task ``task``, or inside the statement of ``shape`` that the task sends first. ``covers``: the tasks
    before which everything is as it is here. ``since``: the task before which a standby has received its last.
    """

    way: str
    blow: str
    task: int
    name: str
    shape: str = ""
    covers: tuple[str, ...] = field(default=(), compare=False)
    since: int = field(default=0, compare=False)

    @property
    def id(self) -> str:
        """What names it in chaos.json and in the directory of its logs."""
        return " | ".join(part for part in (self.way, self.blow, str(self.task), self.name, self.shape) if part)


@dataclass(frozen=True)
class Course:
    """One undisturbed run: its tasks in order, the statements that each of them sent, and what was done on a host."""

    tasks: Sequence[Mapping[str, Any]]
    statements: Sequence[tuple[int, str]]
    calls: Sequence[Mapping[str, Any]]


# These only change what the controller has in mind, which ends with it.
_IN_MIND = {
    f"ansible.builtin.{name}"
    for name in ("add_host", "assert", "debug", "fail", "group_by", "import_role", "import_tasks", "include_role")
} | {f"ansible.builtin.{name}" for name in ("include_tasks", "include_vars", "meta", "set_fact", "set_stats")}


# Points of no return, by the task before which the state is the one that they are named after.
_NO_RETURN = {
    "deploy": {
        "rows removed": "Ensure that the planned indexes are built and in Prisma's history",
        "history recorded": "Stop unless exactly the planned indexes hold, then lower the fence",
        "link switched": "Ensure that every instance serves the wanted release",
        "instances reloaded": "Remember when it ended",
        "run not yet closed": "Close the run in the journal",
    },
    "rollback": {
        "link switched back": "Ensure that every instance serves the release before",
        "run not yet closed": "Close the run in the journal",
    },
}
# The same by the statement in which the backend ends: way, and what its shape begins with.
_NO_RETURN_STATEMENTS = (
    ("deploy", "PREPARE at_most_one_batch"),  # fence raised, no row removed
    ("deploy", "EXECUTE at_most_one_batch"),  # rows half removed
    ("concurrent", "CREATE UNIQUE INDEX CONCURRENTLY"),  # indexes half built
    ("concurrent", 'INSERT INTO "aedpics"."_prisma_migrations"'),
    ("deploy", 'CREATE UNIQUE INDEX "at_most_one_fence'),  # fence half raised
    ("rollback", "DROP INDEX CONCURRENTLY"),
    ("rollback", "WITH setting AS MATERIALIZED"),  # rows half restored
)


def every(courses: Mapping[str, Course]) -> list[Point]:
    """All of them, in the order of each run; what ``statements`` strikes apart."""
    found: list[Point] = []
    for way, course in courses.items():
        names = {task["number"]: f"{task['play']}: {task['name']}" for task in course.tasks}
        if way != "concurrent":  # the same tasks as deploy
            found += _kills(way, course, names)
        for task, shape in dict.fromkeys(course.statements):
            if any(way == its_way and shape.startswith(begins) for its_way, begins in _NO_RETURN_STATEMENTS):
                found.append(Point(way, "end", task, names[task], shape))
        if way != "concurrent":
            found += _inside_each_phase(way, course, names)
            found += _before_each_phase(way, course, names)
    return found


def _kills(way: str, course: Course, names: Mapping[int, str]) -> list[Point]:
    """One for each state of the world in which a run can be killed between two tasks.

    Between the boundaries around a task that was skipped, or that only changes what the controller has in mind, nothing
    differs that outlives the controller.
    """
    acted = {call["number"] for call in course.calls if call["module"] not in _IN_MIND}
    states: list[list[int]] = []
    for number in names:
        if number - 1 in acted or not states:
            states.append([])
        states[-1].append(number)
    return [
        Point(way, "kill", state[-1], names[state[-1]], covers=tuple(names[number] for number in state))
        for state in states
    ]


def _inside_each_phase(way: str, course: Course, names: Mapping[int, str]) -> list[Point]:
    """A restart of the server and a loss of packets, in the middle of what each phase says to the database."""
    found = []
    for play in dict.fromkeys(task["play"] for task in course.tasks):
        own = {task["number"] for task in course.tasks if task["play"] == play}
        said = list(dict.fromkeys(entry for entry in course.statements if entry[0] in own))
        if said:
            task, shape = said[len(said) // 2]
            found += [Point(way, blow, task, names[task], shape) for blow in ("restart", "loss")]
    return found


# Which phases a blow comes before, of all the plays of a run: the first opens the run, the last closes it. Before it is
# open nobody can take it over. PM2 is not asked again once the service was proven: that is for whoever watches it.
_BEFORE = {"disk": slice(None), "freeze": slice(1, None), "daemon": slice(1, -1), "failover": slice(1, None)}


def _before_each_phase(way: str, course: Course, names: Mapping[int, str]) -> list[Point]:
    """Those that cost minutes, before the first task of a phase that does something."""
    plays = list(dict.fromkeys(task["play"] for task in course.tasks))
    play_of = {task["number"]: task["play"] for task in course.tasks}
    first: dict[str, int] = {}
    for point in _kills(way, course, names):
        first.setdefault(play_of[point.task], point.task)
    asking = list(dict.fromkeys(play_of[task] for task, _ in course.statements if task in play_of))  # the database
    found = []
    for blow, phases in _BEFORE.items():
        for play in filter(first.__contains__, plays[phases]):
            since = [first[one] for one in asking if first.get(one, first[play]) < first[play]][-2:]
            since = since[:1] if blow == "failover" else [0]
            found += [Point(way, blow, first[play], names[first[play]], since=task) for task in since]
    return found


def of_no_return(points: Sequence[Point]) -> list[Point]:
    """Those that a sample may not leave out. Raises ValueError when one is not there: a name has changed."""
    found = []
    for way, tasks in _NO_RETURN.items():
        for what, task in tasks.items():
            there = [p for p in points if p.way == way and any(f": {task}" in name for name in p.covers)]
            if not there:
                raise ValueError(f"no task of {way} begins with {task!r}: {what}")
            found.append(there[-1])
    for way, shape in _NO_RETURN_STATEMENTS:
        there = [p for p in points if (p.way, p.blow) == (way, "end") and p.shape.startswith(shape)]
        if not there:
            raise ValueError(f"no statement of {way} begins with {shape!r}")
        found.append(there[len(there) // 2])
    return list(dict.fromkeys(found))


# The blows that cost minutes, each in the phase of a deployment in which it costs most if it goes unnoticed.
_SAMPLED = {
    "freeze": "Reload the application",
    "daemon": "Reload the application",
    "disk": "Migrate",
    "failover": "Check the health",
    "loss": "Clean up",
}


def _of_each_kind(points: Sequence[Point]) -> list[Point]:
    """One of each of those blows. Raises ValueError when one is not there: a phase has another title."""
    found = []
    for blow, title in _SAMPLED.items():
        there = [p for p in points if (p.way, p.blow) == ("deploy", blow) and f") {title}: " in p.name]
        if not there:
            raise ValueError(f"no {blow} is in the phase {title!r}")
        found.append(there[0])
    return found


# Where a wrong answer costs rows or requests; of the points above those that `make test` injects.
_ESSENTIAL = {"rows removed", "link switched", "link switched back"}
_ESSENTIAL_STATEMENTS = (
    "EXECUTE at_most_one_batch",
    "CREATE UNIQUE INDEX CONCURRENTLY",
    "WITH setting AS MATERIALIZED",
)


def essential(points: Sequence[Point]) -> list[Point]:
    """The points of no return that cost rows or requests if the next run goes wrong, in the order of each run."""
    tasks = [task for named in _NO_RETURN.values() for what, task in named.items() if what in _ESSENTIAL]
    return [
        point
        for point in of_no_return(points)
        if (point.blow == "kill" and any(f": {task}" in name for task in tasks for name in point.covers))
        or point.shape.startswith(_ESSENTIAL_STATEMENTS)
    ]


def sample(points: Sequence[Point], size: int) -> list[Point]:
    """``size`` of them or more: those of no return, a restart of the server each way, one of each blow that costs
    minutes, and the others at even distances. The same points give the same sample.
    """
    chosen = of_no_return(points) + _of_each_kind(points)
    for way in _NO_RETURN:
        restarts = [point for point in points if (point.way, point.blow) == (way, "restart")]
        chosen.append(restarts[len(restarts) // 2])
    others = [point for point in points if point not in chosen]
    more = min(len(others), max(0, size - len(chosen)))
    chosen += [others[(2 * number + 1) * len(others) // (2 * more)] for number in range(more)]
    return sorted(chosen, key=points.index)


def alternating(points: Sequence[Point]) -> list[Point]:
    """Deployments and rollbacks in turns, as far as they go: each leaves what the other starts from."""
    back = [point for point in points if point.way == "rollback"]
    forth = [point for point in points if point.way != "rollback"]
    mixed = [point for pair in zip(forth, back, strict=False) for point in pair]
    return mixed + forth[len(back) :] + back[len(forth) :]
