"""Words that have left the code and its documents, and what stands in their place."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ["module_utils", "library", "*_plugins", "doc_fragments", "roles", "playbooks", "plans", "inventories"]
SHIPPED += ["scripts", "bench", "matrix", "docs/*.md", "README.md", "CONTRIBUTING.md"]
LEFT = {
    r"twins?": "shadow table",
    r"born": "created, committed",
    r"mend(s|ed|ing)?": "fix",
    r"is none any more": "is being deleted",
    r"roomy": "release_space_info",
    r"refuse_useless": "require_leaves_predicate",
    r"strikes?|struck": "inject a fault",
    r"front doors?|(two|its) doors?": "entry point",
    r"\w+_room": "a package's own name",
}


@pytest.mark.parametrize("word", LEFT)
def test_a_word_that_has_left_does_not_return(word: str) -> None:
    found = subprocess.run(
        ["git", "grep", "-nIiwP", word, "--", *SHIPPED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, f"{found.stdout}{found.stderr}Expected: {LEFT[word]}."


def test_the_glossary_has_at_most_fifteen_words_each_with_its_korean() -> None:
    rows = re.findall(r"^\| (?!word|-)(.+?) \| (.+?) \| .+ \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert 10 <= len(rows) <= 15
    assert all(re.search("[가-힣]", korean) for _, korean in rows)
