"""Takes secrets out of text that other programs wrote, before a person or a log sees it.

Each pattern begins at a fixed text or at a word's first letter, and takes what it has matched: the time grows with the
length of a line and with nothing else.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"

# What the issuers of tokens put in front of them, so that they can be found wherever they are.
_TOKENS = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"  # GitHub
    r"|gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|soat|agent|imt|wt|ffct)-[\w.-]{16,}"  # GitLab
    r"|ATATT3[\w=-]{20,}|ATBB\w{20,}"  # Atlassian, Bitbucket
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|rubygems_[0-9a-f]{40,}|dckr_pat_[\w-]{20,}"  # registries
    r"|xox[a-z]-[\w-]{8,}|xapp-[\w-]{16,}"  # Slack
    r"|hooks\.slack\.com/[\w/-]+|discord(?:app)?\.com/api/webhooks/[\w/-]+|webhook\.office\.com/[\w@/-]+"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"  # AWS
    r"|AIza[\w-]{30,}|ya29\.[\w.-]{20,}|GOCSPX-[\w-]{20,}"  # Google
    r"|ncp_iam_\w{16,}"  # Naver Cloud
    r"|[sr]k_(?:live|test)_\w{10,}|whsec_[\w+/=]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}"  # Stripe, SendGrid
    r"|(?<![A-Za-z0-9])sk-(?:[a-z]{2,10}-)?[A-Za-z0-9_]{20,}|hf_[A-Za-z0-9]{30,}"
    r"|do[opr]_v1_[0-9a-f]{40,}|hv[sbr]\.[\w-]{20,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{30,}|AGE-SECRET-KEY-1[0-9A-Z]{20,}"
    r"|eyJ[\w-]{17,}(?:\.[\w-]*)*|(?<![\w-])eyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)*"  # a JSON web token
)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
# A line of such a block by itself: base64 of letters of both cases and digits, as long as a line of it is.
_KEY_LINE = re.compile(r"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9]*[0-9])[A-Za-z0-9+/]{60,}={0,2}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_HEADER = re.compile(r"(?i)((?:cookie|authorization)[\"']?\s*:\s*)(.+)")
_BEARER = re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+")

_URL = re.compile(r"(?<=\w)://")
_URL_ENDS, _QUOTED_URL_ENDS = re.compile(r"[\s\"`<>]|\Z"), re.compile(r"[\s'\"`<>]|\Z")
_SCHEME = re.compile(r"[\w+.-]{1,40}\Z")
# A host with its port: in front of a path this holds no password.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]?|[\w.*-]*)(?::(?:\d{1,5}|\*)?)?\Z")
_PUNCTUATION = ".,;:)]}'|\\"
_PATH_BEGINS = re.compile(r"[/?#]|\Z")

# NAME=value, "name": "value", also inside of a JSON string. Only a word's first letter begins a name.
_ASSIGNED = re.compile(r"(?<![\w-])([\w-]+)(\\*[\"'`]?[ \t]*(?::=|=>|[:=])[ \t]*|[ \t]+(?=['\"])|[ \t]+(?=[^\s-]))")
_SECRET_NAME = re.compile(
    r"(?i)password|passwd|passphrase|secret|token|credential|api[_-]?key|private[_-]?key|비밀번호|암호"
    r"|(?:pass|pwd)\Z|\A_auth\Z|(?<!primary)(?<!primary[_-])(?<!foreign)(?<!foreign[_-])(?<!public)(?<!public[_-])key\Z"
)
_PASSWORD_NAME = re.compile(r"(?i)(?:password|passphrase)\Z")
_ENCODED = re.compile("%[0-9A-F]{2}")
_LONG = 8  # a shorter text that an encoded secret stands for may be any word
_NEXT_NAME = r"\s*(?:[\\\"'`{\[]{0,4}[\w.-]+[\\\"'`]{0,3}[ \t]*[=:]|\s|\Z)"
_VALUE = re.compile(
    r"(?:"
    r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"  # quoted
    r"|\\+\"[^\"]*\"?"  # quoted, inside of a JSON string
    r"|\\.?|[^\s\"'\\,;&}\])]"
    rf"|[,;&](?!{_NEXT_NAME})|[}}\])](?![}}\]),;.:'\"\\]{{0,8}}(?:\s|\Z|{_NEXT_NAME}))"  # a part of it, not its end
    r")+"
)


def spellings(secret: str) -> set[str]:
    """A secret as it stands in a text, an address, JSON and a page; and what one that is from an address stands for."""
    encoded = {quote(secret, safe, errors="replace") for safe in ("", "/", "!'()*")}  # the last: encodeURIComponent
    encoded.add(quote_plus(secret, errors="replace"))
    encoded |= {_ENCODED.sub(lambda found: found[0].lower(), one) for one in encoded}
    in_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    on_page = html.escape(secret)
    on_pages = {on_page, on_page.replace("&quot;", "&#34;").replace("&#x27;", "&#39;")}  # the other are Jinja's
    decoded = unquote(secret)
    return {secret, *encoded, *in_json, *on_pages, *([decoded] if len(decoded) >= _LONG else [])}


def redact(text: str, secrets: Iterable[str] = (), longest_line: int | None = 4_000) -> str:
    """``text`` without what looks like a secret and without the known ``secrets``, however they are spelled.

    Lines longer than ``longest_line`` are cut: a minified one can be megabytes, and nobody reads so far.
    """
    known = {spelled for secret in secrets if secret for spelled in spellings(secret)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return "\n".join(_line(line)[:longest_line] for line in _without_keys(text).splitlines())


def redact_data(value: Any, secrets: Iterable[str] = ()) -> Any:
    """``value`` with every text in it redacted, and with a mask for what has the name of a secret; nothing is cut off.

    Numbers, switches and empty texts stay: none of them is a secret.
    """
    secrets = tuple(secrets)
    if isinstance(value, str):
        return redact(value, secrets, None)
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(item, str) and item and _is_secret(str(key), ":") else redact_data(item, secrets)
            for key, item in value.items()
        }
    return [redact_data(item, secrets) for item in value] if isinstance(value, (list, tuple)) else value


def named_secrets(values: Mapping[str, str]) -> set[str]:
    """Those of the values whose names are those of secrets."""
    return {value for name, value in values.items() if redact_data({name: value})[name] != value}


def first_line(text: str, secrets: Iterable[str] = (), length: int = 200) -> str:
    """The first line that says something, redacted, at most ``length`` characters long."""
    for line in redact(text, secrets).splitlines():
        if line.strip():
            return line.strip()[:length]
    return ""


def _line(line: str) -> str:
    line = _TOKENS.sub(MASK, "".join(_without_passwords(line)))
    line = _BEARER.sub(rf"\1 {MASK}", _HEADER.sub(rf"\1{MASK}", line))
    return "".join(_without_values(line))


def _without_keys(text: str) -> str:
    """Mask private keys. One without its end goes on to the end of the text, one without its beginning is a log's."""
    kept: list[str] = []
    at = 0
    while begins := _KEY_BEGINS.search(text, at):
        ends = _KEY_ENDS.search(text, begins.end())
        kept += [text[at : begins.start()], MASK]
        at = ends.end() if ends else len(text)
    text = "".join([*kept, text[at:]])
    if not _KEY_ENDS.search(text):
        return "\n".join(MASK if _KEY_LINE.fullmatch(line.strip()) else line for line in text.splitlines())
    lines = text.splitlines()
    inside = False
    for number in range(len(lines) - 1, -1, -1):
        inside = bool(_KEY_ENDS.search(lines[number])) or (inside and bool(_BASE64.fullmatch(lines[number].strip())))
        if inside or _KEY_LINE.fullmatch(lines[number].strip()):
            lines[number] = MASK
    return "\n".join(lines)


def _without_passwords(line: str) -> Iterator[str]:
    """The parts of a line whose addresses have lost user and password.

    A password may itself contain / and @, so it ends at the last @ of the address. Only where nothing before the first
    / can be one is an @ behind that no end of it: https://packages.example.org/@scope/package.
    """
    at = run_ends = 0
    last = -1  # the last @ of the run of letters that this address, and others behind it, are in
    for found in _URL.finditer(line):
        begins = found.end()
        if begins <= at:
            continue
        scheme = _SCHEME.search(line[max(0, found.start() - 40) : found.start()])
        name = scheme[0].lower() if scheme else ""
        if begins > run_ends:
            first = found.start() - len(name)
            run_ends = _match_at(_QUOTED_URL_ENDS if line[first - 1 : first] == "'" else _URL_ENDS, line, begins)
            last = line.rfind("@", begins, run_ends)
        authority = line[begins : min(run_ends, _match_at(_PATH_BEGINS, line, begins))]
        plain = all(_HOST.match(host) for host in authority.rstrip(_PUNCTUATION).split(","))
        is_web = name in ("http", "https", "ws", "wss")
        if "@" in authority or (last > begins and ":" in authority and not (is_web and plain)):
            yield line[at:begins] + MASK
            at = last
        elif ":" in authority and not plain:  # cut off before its @
            yield line[at:begins] + authority.partition(":")[0] + ":" + MASK
            at = run_ends
    yield line[at:]


def _match_at(pattern: re.Pattern[str], text: str, begin: int) -> int:
    found = pattern.search(text, begin)
    return found.start() if found else len(text)


def _without_values(line: str) -> Iterator[str]:
    """The parts of a line whose assignments have lost the values of secret names."""
    at = 0
    while named := _ASSIGNED.search(line, at):
        name, operator = named.groups()
        assigns = bool(operator.strip(" \t\\\"'`"))
        quoted = line[named.end() : named.end() + 1] in "'\""
        secret = (
            _is_secret(name, operator)
            if assigns
            else (_PASSWORD_NAME.search(name) if quoted else name.startswith("--") and _is_secret(name))
        )
        value = _VALUE.match(line, named.end()) if secret else None
        yield line[at : named.end()] + (MASK if value else "")
        at = value.end() if value else named.end()
    yield line[at:]


def _is_secret(name: str, operator: str = "=") -> bool:
    """Whether a value with this name may be secret. "key: value" is anything, "key=value" is a part of an address."""
    return bool(_SECRET_NAME.search(name)) and not (name.lower() == "key" and operator != "=")
