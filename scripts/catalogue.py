"""Write the catalogues of locale/ from the code, and what gettext reads of them; --check says what is missing.

They have the messages, and behind a context of their own the names of plays and tasks on the screen.

A catalogue, locale/LANGUAGE/LC_MESSAGES/at_most_one.po, is translated by hand; at_most_one.mo beside it is made of it.
A third language is a third such file: `python -m scripts.catalogue de` begins one.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from babel.messages import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from scripts.shown_names import names
from scripts.troubleshooting import phrases

ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "module_utils/at_most_one/locale"
DOMAIN = "at_most_one"
# A command, which a run completes: it has to stand in a translation as it stands in the English.
COMMAND = re.compile(r"ansible-playbook [\w-]+\.yml -l <environment>(?: without \w+)?")


def template() -> Catalog:
    """The phrases of the code and the names on the screen, each with the files that have it."""
    found = Catalog()
    for phrase, places in phrases().items():
        found.add(phrase, locations=[(place, 1) for place in places])
    for (context, name), places in names().items():
        found.add(name, locations=[(place, 1) for place in places], context=context)
    return found


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def updated(path: Path) -> tuple[bytes, bytes, list[str]]:
    """The catalogue with every phrase of the code and no other, the same for gettext, and what is wrong with it."""
    language = path.parts[-3]
    catalogue = Catalog(
        locale=language,
        domain=DOMAIN,
        project="at-most-one",
        version="1",
        copyright_holder="the at-most-one maintainers",
        last_translator="the at-most-one maintainers",
        language_team=language,
        fuzzy=False,
    )
    if path.exists():
        catalogue = read_po(io.BytesIO(path.read_bytes()), locale=language, domain=DOMAIN)
    found = template()
    found.creation_date = catalogue.creation_date  # of the file, not of each time it is looked at
    catalogue.update(found, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    catalogue.msgid_bugs_address = ""
    catalogue.header_comment = "# The messages of at-most-one. `make docs` adds those that are missing."
    text, compiled = io.BytesIO(), io.BytesIO()
    write_po(text, catalogue, width=120, sort_by_file=True, include_lineno=False)
    write_mo(compiled, catalogue)
    return text.getvalue(), compiled.getvalue(), list(faults(catalogue))


def faults(catalogue: Catalog) -> Iterator[str]:
    """What a reader would miss: a phrase, a value inside of it, a command that can be copied."""
    for message in catalogue:
        english, translated = str(message.id), str(message.string or "")
        if not english:
            continue
        if not translated or message.fuzzy:
            yield f"not translated: {english}"
            continue
        try:
            if _values(english) != _values(translated):
                yield f"other values than in English: {translated}"
        except ValueError as broken:
            yield f"{broken}: {translated}"
        if sorted(COMMAND.findall(english)) != sorted(COMMAND.findall(translated)):
            yield f"another command than in English: {translated}"


def main() -> int:
    """Write or check every catalogue, and one of each language that is named."""
    check = "--check" in sys.argv
    paths = {*LOCALE.glob(f"*/LC_MESSAGES/{DOMAIN}.po")}
    paths |= {LOCALE / name / f"LC_MESSAGES/{DOMAIN}.po" for name in sys.argv[1:] if not name.startswith("-")}
    wrong = False
    for path in sorted(paths):
        text, compiled, found = updated(path)
        shown = path.relative_to(ROOT)
        for fault in found:
            print(f"{shown}: {fault}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            path.with_suffix(".mo").write_bytes(compiled)
        elif (text, compiled) != (path.read_bytes(), path.with_suffix(".mo").read_bytes()):
            found.append("differs")
            print(
                f"{shown} is not as the code says. Expected: the same messages. Next: make docs, then translate them."
            )
        wrong = wrong or bool(found)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
