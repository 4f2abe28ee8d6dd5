"""The callback in a real ansible-playbook, with a terminal and without one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

ROOT = Path(__file__).parents[2]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ERROR = "2 rows are left. Expected: 0 rows. Next: run it again."

PLAYBOOK = """
- name: (0/2) Open the run
  hosts: all
  gather_facts: false
  tasks:
    - name: Show the table
      ansible.builtin.debug: {msg: "■ 11-001\\n    ✅ id=1, \\"quoted\\"\\n"}
      run_once: true
- name: (1/2) Clean up
  hosts: all
  gather_facts: false
  vars: {run_phase: cleanup}
  tasks:
    - name: Ensure that a file is there
      ansible.builtin.copy: {content: "a\\n", dest: "{{ place }}/{{ inventory_hostname }}", mode: "0600"}
    - name: Handle a secret
      ansible.builtin.debug: {msg: "hunter2 is the password"}
      no_log: true
    - name: Take a while
      ansible.builtin.command: sleep 0.5
      changed_when: false
- name: (2/2) Close the run
  hosts: all
  gather_facts: false
  tasks:
    - name: Say what came out
      ansible.builtin.debug: {msg: "Deployed: the rule | staging"}
      run_once: true
"""
FAILING = f"""
- name: (1/1) Verify
  hosts: all
  gather_facts: false
  tasks:
    - name: Verify
      block:
        - name: Stop if rows are left
          ansible.builtin.fail: {{msg: "{ERROR}"}}
      rescue:
        - name: Stop with the first error
          ansible.builtin.fail: {{msg: "{ERROR} Report: /a/report.html"}}
"""
WARNING = """
- name: (1/1) Prepare
  hosts: all
  gather_facts: false
  tasks:
    - name: Warn
      warns:
"""
# Two warnings of a module, of which one is a phrase.
WARNS = """#!{python}
# WANT_JSON
import json
said = "Lines of the release in its log: 3."
phrase = {{"template": "Lines of the release in its log: {{lines}}.", "values": {{"lines": "3"}}}}
print(json.dumps({{"changed": False, "warnings": [said, "of another module"], "warning_phrases": [phrase]}}))
"""
SECRET = """
- name: (1/1) Prepare
  hosts: all
  gather_facts: false
  tasks:
    - name: Log in
      ansible.builtin.command: {argv: [sh, -c, "echo hunter2; exit 3"]}
      no_log: true
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    hosts = "".join(f"    web{n}: {{ansible_connection: local}}\n" for n in (1, 2))
    (tmp_path / "hosts.yml").write_text(
        f"all:\n  hosts:\n{hosts}  vars:\n    report_language: en\n    place: {tmp_path}\n"
        "    ansible_python_interpreter: '{{ ansible_playbook_python }}'\n"
    )
    return [str(ROOT / ".venv/bin/ansible-playbook"), str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.yml")]


def environment(**more: str) -> dict[str, str]:
    usual = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "ANSIBLE_NOCOLOR")}
    return {**usual, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "TERM": "xterm", **more}


def without_terminal(command: list[str], playbook: str, *arguments: str, limit: str = "all") -> tuple[int, str]:
    Path(command[1]).write_text(playbook)
    words = [*command, "-l", limit, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    assert not CONTROL.search(done.stdout), repr(done.stdout)
    return done.returncode, done.stdout


def with_terminal(command: list[str], playbook: str, **more: str) -> str:
    Path(command[1]).write_text(playbook)
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*command, "-l", "all"], stdout=terminal, stderr=terminal, env=environment(**more), cwd=ROOT
    )
    os.close(terminal)
    parts = []
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(controller)
    assert process.wait() == 0
    return b"".join(parts).decode()


def test_without_a_terminal_there_are_plain_lines_in_their_order(command: list[str]) -> None:
    code, output = without_terminal(command, PLAYBOOK)

    assert code == 0, output
    lines = output.splitlines()
    assert '■ 11-001\n    ✅ id=1, "quoted"\n' in output, "a message is whole, with nothing escaped"
    assert re.search(r"^  Ensure that a file is there: changed on web[12], web[12] \(.* s\)$", output, re.MULTILINE)
    order = ["(0/2) Open the run", "(1/2) Clean up", "(2/2) Close the run"]
    assert [line for line in lines if line in order] == order
    assert [line.split()[0] for line in lines if re.match(r"\(\d/2\).* s( |$)", line)] == ["(0/2)", "(1/2)", "(2/2)"]
    assert re.search(r"^web1 : ok=\d changed=1 unreachable=0 failed=0 ", output, re.MULTILINE)
    assert lines[-1] == "Deployed: the rule | staging", "the last line is the run's own"


def test_a_secret_stays_hidden(command: list[str]) -> None:
    _, output = without_terminal(command, PLAYBOOK)
    failed, error = without_terminal(command, SECRET, limit="web1")

    assert "hunter2" not in output
    assert failed == 2, error
    assert "hunter2" not in error
    assert "no_log" in error


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "Lines of the release in its log: 3."), ("ko", "로그에 남은 이 릴리스의 줄: 3.")],
)
def test_a_warning_is_in_the_reader_s_language(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, said: str
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/warns").write_text(WARNS.format(python=sys.executable))
    (tmp_path / "library/warns").chmod(0o755)
    monkeypatch.setenv("ANSIBLE_LIBRARY", str(tmp_path / "library"))
    Path(command[1]).write_text(WARNING)
    words = [*command, "-l", "web1", "-e", f"report_language={language}"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("[WARNING]")]
    assert warnings == [f"[WARNING]: {said}", "[WARNING]: of another module"], done.stdout + done.stderr


def test_an_error_is_three_lines_and_said_once(command: list[str]) -> None:
    code, output = without_terminal(command, FAILING, limit="web1")

    assert code == 2
    lines = output.splitlines()
    place = next(number for number, line in enumerate(lines) if line == "  ✖ Stop if rows are left")
    assert lines[place + 1 : place + 4] == ["    2 rows are left.", "    Expected: 0 rows.", "    Next: run it again."]
    assert output.count("2 rows are left.") == 1
    assert lines[-2:] == ["Stopped in (1/1) Verify: Stop if rows are left", "Report: /a/report.html"]
    assert "{" not in output


def test_the_same_error_of_another_host_is_one_line(command: list[str]) -> None:
    _, output = without_terminal(command, FAILING)
    assert output.count("2 rows are left.") == 1
    assert output.count("the same on web") == 2


QUOTING = """
- name: (1/1) Verify
  hosts: all
  gather_facts: false
  tasks:
    - name: Stop if the log has errors
      ansible.builtin.fail: {msg: "Line \\e[31m\\e]52;c;eA==\\aof\\u202e it. Expected: none. Next: read it."}
"""


def test_what_a_log_says_is_shown_and_not_obeyed(command: list[str]) -> None:
    """Whoever sends requests can write into the log of an application, which an error quotes."""
    _, output = without_terminal(command, QUOTING, limit="web1")
    assert "    Line ]52;c;eA==of it.\n" in output


LOST = """
- name: (1/1) Verify
  hosts: web1
  gather_facts: false
  vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1, ansible_ssh_retries: 0}
  tasks:
    - name: Look at the host
      ansible.builtin.ping:
"""


@pytest.mark.parametrize(
    ("language", "again"),
    [
        ("en", "Then start the same command again: it takes over"),
        ("ko", "같은 명령을 다시 실행하면 중단된 실행을 이어받습니다"),
    ],
)
def test_a_host_that_is_lost_says_what_comes_next(command: list[str], language: str, again: str) -> None:
    code, output = without_terminal(command, LOST, "-e", f"report_language={language}")

    assert code == 4
    assert "ansible web1 -i " in output
    assert again in output


def test_korean(command: list[str]) -> None:
    _, output = without_terminal(command, FAILING, "-e", "report_language=ko", limit="web1")
    assert "(1/1) Verify · 인덱스 검증" in output
    assert "    기대: 0 rows." in output
    assert "보고서: /a/report.html" in output


# Tasks of the roles, by their names, and one of somebody else.
NAMED = f"""
- name: (1/1) Verify
  hosts: all
  gather_facts: false
  tasks:
    - name: Ensure that the directories of the plan exist
      ansible.builtin.command: "true"
    - name: Take a note
      ansible.builtin.command: "true"
    - name: Stop unless exactly the planned indexes hold, then lower the fence
      ansible.builtin.fail: {{msg: "{ERROR}"}}
"""


def test_names_of_tasks_are_in_the_reader_s_language(command: list[str]) -> None:
    _, korean = without_terminal(command, NAMED, "-e", "report_language=ko", limit="web1")
    _, english = without_terminal(command, NAMED, limit="web1")
    _, verbose = without_terminal(command, NAMED, "-v", "-e", "report_language=ko", limit="web1")

    stops = "계획한 인덱스만 있는지 확인, 쓰기 펜스 내림"
    lines = korean.splitlines()
    assert f"  ✖ {stops}" in lines
    assert lines[-1] == f"중단된 단계 (1/1) Verify · 인덱스 검증: {stops}"
    assert re.search(r"^  계획의 디렉터리 준비: 변경됨 ", korean, re.MULTILINE)
    assert re.search(r"^  Take a note: 변경됨 ", korean, re.MULTILINE), "what nobody has translated stays as it is"
    assert "  ✖ Stop unless exactly the planned indexes hold, then lower the fence" in english.splitlines()
    assert "TASK [Stop unless exactly the planned indexes hold, then lower the fence]" in verbose


ROLE = """
- name: (1/1) Verify
  hosts: all
  gather_facts: false
  roles: [{role: verifies}]
"""


def test_the_name_of_a_role_s_task_is_translated_without_the_role(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "roles/verifies/tasks").mkdir(parents=True)
    tasks = '- name: Record the phase\n  ansible.builtin.command: "true"\n'
    (tmp_path / "roles/verifies/tasks/main.yml").write_text(tasks)
    _, korean = without_terminal(command, ROLE, "-e", "report_language=ko", limit="web1")
    assert re.search(r"^  단계 기록: 변경됨 ", korean, re.MULTILINE), korean


SPECIFICATION = """
argument_specs:
  main:
    short_description: Take a deployment back
    options:
      verifies_what: {type: str, required: true}
"""


def test_ansible_s_own_check_of_a_role_s_arguments_is_in_the_reader_s_language(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "roles/verifies/meta").mkdir(parents=True)
    (tmp_path / "roles/verifies/meta/argument_specs.yml").write_text(SPECIFICATION)
    _, korean = without_terminal(command, ROLE, "-e", "report_language=ko", limit="web1")
    _, english = without_terminal(command, ROLE, limit="web1")

    lines = korean.splitlines()
    assert "  ✖ 역할 인자 'main' 확인: 배포 되돌리기" in lines
    assert lines[-1].endswith(": 역할 인자 'main' 확인: 배포 되돌리기")
    assert "  ✖ Validating arguments against arg spec 'main' - Take a deployment back" in english.splitlines()


# A module fails on a host with phrases; what it says by itself stays as it is.
TRANSLATED = """
from ansible.module_utils.basic import AnsibleModule
PHRASES = {
    "seen": {"template": "Schema {schema} does not hold what plan {plan_id} asks for: {faults}.",
             "values": {"schema": "public", "plan_id": "one", "faults": {
                 "template": "{part_0}", "values": {"part_0": {
                     "template": "{name} is {verdict}", "values": {"name": "rule_key", "verdict": "missing"}}}}}},
    "next_step": {"template": "run the cleanup phase again.", "values": {}},
}
FOUND = {"name": "", "seen": "Schema public does not hold what plan one asks for: rule_key is missing.",
         "expected": "a server's own text.", "next_step": "run the cleanup phase again.", "identifier": "AMO-3509"}
AnsibleModule({}).fail_json(msg="S. Expected: e. Next: n.", next_step="n.", findings=[{**FOUND, "phrases": PHRASES}])
"""


def test_an_error_is_in_one_language_with_its_identifier_at_the_end(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/obstacles.py").write_text(TRANSLATED)

    _, korean = without_terminal(command, OBSTACLES, "-e", "report_language=ko", limit="web1")
    _, english = without_terminal(command, OBSTACLES, limit="web1")

    lines = [line.strip() for line in korean.splitlines()]
    place = lines.index("✖ Stop at every obstacle")
    seen, expected, next_step = lines[place + 1 : place + 4]
    assert re.fullmatch(r"[^A-Za-z]*public[^A-Za-z]*one[^A-Za-z]*rule_key[^A-Za-z]*missing[^A-Za-z]*   AMO-3509", seen)
    assert "스키마" in seen
    assert expected == "기대: a server's own text."
    assert re.fullmatch("다음: cleanup [가-힣 ]+[.]", next_step)
    shown = [line.strip() for line in english.splitlines()]
    assert "Schema public does not hold what plan one asks for: rule_key is missing.   AMO-3509" in shown


def test_more_is_said_when_asked_for(command: list[str]) -> None:
    _, output = without_terminal(command, PLAYBOOK, "-v")
    assert "TASK [Ensure that a file is there]" in output
    assert "changed: [web1] =>" in output
    assert "PLAY RECAP" in output
    assert re.search(r"^\(1/2\) Clean up +done +\d", output, re.MULTILINE)


def test_check_and_diff_say_so_and_are_readable(command: list[str]) -> None:
    _, output = without_terminal(command, PLAYBOOK, "--check", "--diff", limit="web1")
    assert "(1/2) Clean up [check mode: nothing is changed]" in output
    assert "\n+a\n" in output
    assert "would change" in output


def test_on_a_terminal_one_line_lives_and_nothing_of_it_stays(command: list[str]) -> None:
    output = with_terminal(command, PLAYBOOK)

    frames = re.findall(r"\r\x1b\[2K(  [⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] 1/2 [^\r\n]*)", output)
    assert any("Take a while" in frame and "waits for web" in frame for frame in frames), output
    drawn, stays = "", []
    for line in output.replace("\r\n", "\n").split("\n"):
        drawn = re.sub(r"\x1b\[[\d;]*m", "", line.split("\r\x1b[2K")[-1])
        stays.append(drawn)
    assert not [line for line in stays if re.search("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", line)]
    assert stays[-2] == "Deployed: the rule | staging"


@pytest.mark.parametrize("name", ["NO_COLOR", "CI"])
def test_on_a_terminal_that_wants_plain_text_nothing_is_drawn(command: list[str], name: str) -> None:
    assert not CONTROL.search(with_terminal(command, PLAYBOOK, **{name: "1"}).replace("\r\n", "\n"))


def test_ansible_runner_has_its_events_and_the_same_lines(command: list[str], tmp_path: Path) -> None:
    Path(command[1]).write_text(FAILING)
    (tmp_path / "runner").mkdir()
    events: list[dict[str, Any]] = []

    def keep(event: dict[str, Any]) -> bool:
        events.append(event)
        return True

    runner = ansible_runner.run(
        private_data_dir=str(tmp_path / "runner"),
        project_dir=str(ROOT),
        playbook=command[1],
        inventory=command[3],
        limit="web1",
        quiet=True,
        event_handler=keep,
        envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "phases"}
        | {
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "callback_plugins"),
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        },
    )
    output = runner.stdout.read()

    failed = [event["event_data"]["res"]["msg"] for event in events if event["event"] == "runner_on_failed"]
    assert failed == [ERROR, f"{ERROR} Report: /a/report.html"]
    assert runner.stats["failures"] == {"web1": 1}
    assert "    Expected: 0 rows." in output
    assert not re.search("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", output)


ENDING = """
- name: (1/2) Prepare
  hosts: all
  gather_facts: false
  tasks:
    - name: Validating arguments against arg spec main
      ansible.builtin.validate_argument_spec: {argument_spec: {}, provided_arguments: {}}
- name: (2/2) Verify
  hosts: all
  gather_facts: false
  tasks:
    - name: Verify
      block:
        - name: Stop unless every gate is passed
          ansible.builtin.fail:
            msg: |-
              2 of 2 gates are open.
                Seen: a.
                  Expected: b.
                  Next: c.
                Seen: d.
                  Expected: e.
                  Next: f.
      rescue:
        - name: Say how it ended
          ansible.builtin.debug: {msg: "✖ Stopped   staging\\n  Cause   two gates"}
          vars: {_report_last_words: true}
          run_once: true
        - name: Stop with the first error
          ansible.builtin.fail: {msg: "2 of 2 gates are open. Report: /a/report.html"}
"""


def test_the_last_words_are_the_runs_own(command: list[str]) -> None:
    _, output = without_terminal(command, ENDING, limit="web1")

    lines = output.splitlines()
    assert lines[-2:] == [
        "✖ Stopped   staging",
        "  Cause   two gates",
    ]
    assert output.count("Stopped") == 1, "what the run says of its end is not said again"
    assert not [line for line in lines if line.startswith(("Total", "Report:", "Stopped in"))]
    assert "(1/2)" not in output, "a phase that was not asked for, whose arguments Ansible checks all the same"
    place = lines.index("    2 of 2 gates are open.")
    assert [line.strip() for line in lines[place + 1 : place + 7]] == [
        *("a.", "Expected: b.", "Next: c."),
        *("d.", "Expected: e.", "Next: f."),
    ]


# As at_most_one_entry makes it: the text alone would be one finding, whose phrases are run together.
HANDED = """
from ansible.module_utils.basic import AnsibleModule
FOUND = [{"name": name, "seen": f"{name}.", "expected": f"no {name}.", "next_step": f"undo {name}."} for name in "ab"]
AnsibleModule({}).fail_json(
    msg="a. b. Expected: no a. no b. Next: undo a. undo b.", next_step="undo a. undo b.", findings=FOUND
)
"""
OBSTACLES = """
- name: (1/1) Prepare
  hosts: all
  gather_facts: false
  tasks:
    - name: Prepare
      block:
        - name: Stop at every obstacle
          obstacles:
      rescue:
        - name: Stop with the first error
          ansible.builtin.fail:
            msg: "a. b. Expected: no a. no b. Next: undo a. undo b. Report: /a/report.html"
"""


def test_each_finding_of_a_module_has_its_three_lines(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/obstacles.py").write_text(HANDED)

    _, output = without_terminal(command, OBSTACLES, limit="web1")

    lines = output.splitlines()
    place = lines.index("  ✖ Stop at every obstacle")
    assert [line.strip() for line in lines[place + 1 : place + 7]] == [
        *("a.", "Expected: no a.", "Next: undo a."),
        *("b.", "Expected: no b.", "Next: undo b."),
    ]
    assert output.count("undo a.") == 1, "what the rescue repeats is said once"
    assert lines[-1] == "Report: /a/report.html"


# A module as those of library/: it takes the record, tells of its steps, and what it starts has none.
WORKING = """
import os, time
from ansible.module_utils.at_most_one.system import live_step
from ansible.module_utils.at_most_one_entry import run
def act(module):
    inherited = os.environ.get(live_step.NAME, "")
    for done in (0, 120):
        live_step.steps("rows", done, 300)
        time.sleep(0.6)
    live_step.detail("building index: scanning table 42 %")
    time.sleep(0.6)
    return {"changed": False, "inherited": inherited}
run({}, act, needs_psycopg2=False)
"""
WORKS = """
- name: (1/2) Clean up
  hosts: web1
  gather_facts: false
  tasks:
    - name: Remove the surplus rows
      works:
      register: worked
    - name: Say what a program of the module's would inherit
      ansible.builtin.debug: {msg: "inherited <{{ worked.inherited }}>"}
    - name: Work in secret
      works:
      no_log: true
- name: (2/2) Close the run
  hosts: web1
  gather_facts: false
  tasks:
    - name: Take a while
      ansible.builtin.command: sleep 0.5
      changed_when: false
"""


def test_on_a_terminal_the_line_moves_with_the_steps_of_a_module(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/works.py").write_text(WORKING)
    output = with_terminal(command, WORKS, COLUMNS="160")
    frames = re.findall(r"\r\x1b\[2K(  [⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] [^\r\n]*)", output)
    told = [frame for frame in frames if "Remove the surplus rows" in frame]
    first, second = (next(frame for frame in told if f" | {done} of 300 rows | " in frame) for done in (0, 120))
    assert told.index(first) < told.index(second)
    assert told[-1].endswith("  building index: scanning table 42 %")
    assert "inherited <>" in output
    later = [frame for frame in frames if "Work in secret" in frame or "Take a while" in frame]
    assert later
    assert not [frame for frame in later if "300" in frame or "42 %" in frame], "a record of another task, or of no_log"


def test_without_a_terminal_nothing_moves(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/works.py").write_text(WORKING)
    code, output = without_terminal(command, WORKS, limit="web1")
    assert code == 0
    assert "of 300 rows" not in output, "it took no minute"
