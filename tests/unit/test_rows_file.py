"""The clean-up plan's file: what was written is read back line by line; what is laid out in another way is named."""

from __future__ import annotations

import json
import resource
import stat
from pathlib import Path
from typing import Any

import at_most_one_entry
import pytest
from at_most_one.duplicates import plan_file
from at_most_one.duplicates.plan_file import Digest, RowsFile, digest, write
from at_most_one.errors import OperatorError
from hypothesis import given, settings
from hypothesis import strategies as st

from action_plugins import duplicate_rows

_rows = st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=3), max_size=20)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def written(path: Path, rows: list[list[str]], **keys: Any) -> str:
    def fill(hand_over: Any) -> dict[str, Any]:
        for row in rows:
            hand_over(Digest().add(row))
        return {**keys, "digest": digest(rows)}

    write(str(path), fill)
    return str(path)


class TestWriting:
    def test_it_is_json_with_one_row_per_line_as_the_last_key(self, tmp_path: Path) -> None:
        path = written(tmp_path / "plan.json", [["a"], ["점검", "2"]], groups=[{"key": 1}])
        text = Path(path).read_text()
        assert list(json.loads(text)) == ["groups", "digest", "rows"]
        assert text.endswith('"rows": [\n["a"],\n["점검", "2"]\n]\n}\n')
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o640

    def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(self, tmp_path: Path) -> None:
        path = written(tmp_path / "plan.json", [["a"]])

        def fail(hand_over: Any) -> dict[str, Any]:
            hand_over('["b"]')
            raise RuntimeError

        with pytest.raises(RuntimeError):
            write(path, fail)
        assert list(RowsFile(path).rows()) == [["a"]]
        assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def laid_out(rows: str, header: str = '"digest": "d",') -> str:
    return f'{{\n{header}\n"rows": [\n{rows}]\n}}\n'


class TestReading:
    @settings(max_examples=200, deadline=None)
    @given(rows=_rows, more=st.dictionaries(st.text(max_size=4), _values, max_size=3))
    def test_what_was_written_is_read_with_any_header(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], more: dict[str, Any]
    ) -> None:
        header = {f" {key}": value for key, value in more.items()} | {"of a group": {"rows": [["not one of these"]]}}
        path = written(tmp_path_factory.mktemp("rows") / "plan.json", rows, **header)
        assert list(RowsFile(path).rows()) == rows
        assert RowsFile(path).digest() == digest(rows)
        assert json.loads(Path(path).read_text()) == {**header, "digest": digest(rows), "rows": rows}

    def test_a_transfer_may_have_changed_the_line_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        path.write_text(laid_out('["a"],\n["b"]\n'), newline="\r\n")
        assert list(RowsFile(str(path)).rows()) == [["a"], ["b"]]
        assert RowsFile(str(path)).digest() == "d"

    def test_a_number_is_the_text_of_a_primary_key(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        path.write_text(laid_out('[1, "x"],\n[-20, "y"]\n'))
        assert list(RowsFile(str(path)).rows()) == [["1", "x"], ["-20", "y"]]

    @pytest.mark.parametrize(
        ("text", "seen"),
        [
            ("", 'it has no line "rows": \\[, at line 0'),
            ("[]", 'it has no line "rows": \\['),
            ('{"digest": "d", "rows": [["a"]]}', 'it has no line "rows": \\[, at line 1'),
            (laid_out('["a"]\n', header='"digest" "d",'), "its header is no JSON, at line 3"),
            (laid_out('["a"]\n', header="]"), "its header is no JSON"),
            (laid_out('"a"\n'), "a row is no list of texts, at line 4"),
            (laid_out("[]\n"), "a row is no list of texts"),
            (laid_out("[null]\n"), "a row is no list of texts"),
            (laid_out("[true]\n"), "a row is no list of texts"),
            (laid_out('["a"],\n{"b": 1}\n'), "a row is no list of texts, at line 5"),
            (laid_out('["a"] ["b"]\n'), "a row is no JSON"),
            (laid_out('["a"],\n\n["b"]\n'), "a row is no JSON, at line 5"),
            (laid_out('["a"]\n')[:-7], "a row is no JSON"),
            (laid_out('["a"]\n')[:-4], "it does not end behind its rows"),
            (laid_out('["a"]\n')[:-2], "it does not end behind its rows"),
            (laid_out('["a"]\n') + "x", "it does not end behind its rows"),
            (laid_out(f'["{"a" * 2**20}"]\n'), "a line does not end, at line 4"),
        ],
    )
    def test_what_is_not_laid_out_so_is_named_with_its_line(self, tmp_path: Path, text: str, seen: str) -> None:
        path = tmp_path / "plan.json"
        path.write_text(text)
        with pytest.raises(OperatorError, match=seen) as stop:
            list(RowsFile(str(path)).rows())
        assert str(path) in str(stop.value)
        assert "cleanup_plan.json" in stop.value.next_step

    def test_a_header_that_does_not_end_is_not_read_into_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan_file, "_LONGEST_HEADER", 1000)
        path = tmp_path / "plan.json"
        path.write_text(laid_out('["a"]\n', header='"digest": "d",\n' + f'"{"a" * 98}": 1,\n' * 9))
        assert RowsFile(str(path)).digest() == "d"
        path.write_text(laid_out('["a"]\n', header='"digest": "d",\n' + f'"{"a" * 98}": 1,\n' * 10))
        with pytest.raises(OperatorError, match="its header does not end, at line 12"):
            RowsFile(str(path)).digest()

    def test_bytes_that_are_no_text_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        path.write_bytes(laid_out('["?"]\n').encode().replace(b"?", b"\xff"))
        with pytest.raises(OperatorError, match="it is not UTF-8"):
            list(RowsFile(str(path)).rows())

    @pytest.mark.parametrize("header", ['"digest": 1,', '"another": "d",', ""])
    def test_a_digest_that_is_no_text_or_missing_is_named(self, tmp_path: Path, header: str) -> None:
        path = tmp_path / "plan.json"
        path.write_text(laid_out("", header=header))
        assert list(RowsFile(str(path)).rows()) == []
        with pytest.raises(OperatorError, match="its header has no digest"):
            RowsFile(str(path)).digest()

    def test_memory_does_not_grow_with_the_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        with path.open("w") as file:
            file.write('{\n"digest": "d",\n"rows": [\n')
            file.write(",\n".join(f'["{number:036d}"]' for number in range(400_000)))
            file.write("\n]\n}\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(1 for _ in RowsFile(str(path)).rows()) == 400_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024, "KiB"


class TestDigest:
    def test_does_not_depend_on_the_order_and_does_on_everything_else(self) -> None:
        assert digest([["a", "1"], ["b", "2"]]) == digest([("b", "2"), ("a", "1")])
        others = [[["a", "1"]], [["a1", ""]], [["a"], ["1"]], [["a", "1"], ["a", "1"]], [], [["A", "1"]]]
        assert len({digest(rows) for rows in others}) == len(others)

    def test_while_streaming_it_is_the_same(self) -> None:
        made = Digest()
        for row in (["b"], ["a"]):
            made.add(row)
        assert (made.hexdigest(), made.count) == (digest([["a"], ["b"]]), 2)


def test_an_error_names_the_file_of_the_task_and_not_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = "/tmp/ansible-1/reviewed.json"
    action = duplicate_rows.ActionModule.__new__(duplicate_rows.ActionModule)
    stop = OperatorError(f"{copied} is cut.", expected="all.", next_step=f"bring {copied} again.", path=copied)
    # mypy knows the class by two names, by which tests and modules import it.
    monkeypatch.setattr(action, "_execute_module", lambda **_: at_most_one_entry.refusal(stop))  # type: ignore[arg-type]
    result = action._call({"reviewed": "plan.json"}, {"reviewed": copied}, None)
    assert copied not in str(result)
    assert result["findings"][0]["seen"] == "plan.json is cut."
    assert result["details"] == {"path": "plan.json"}
