"""What is told by its form alone, in any text; and what has the name of a secret, on one line."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

MASK = "•••"
Found = Counter[str]

NAME = (
    r"pass(?:word|wd|phrase|code)|(?:db|sql|user|admin|root|mail|smtp|ldap)[-_]?(?:pass|pwd|pw)"
    r"|(?<!cluster[-_])token|secret(?:[-_]?(?:access)?[-_]?key|[-_]?data)?"
    r"|(?:api|access|private|account|encryption|signing|master|shared|auth|certificate)[-_]?key"
    r"|client[-_]?key[-_]?data|credentials?|authorization|cookie|connection[-_]?string|dockerconfigjson|(?<![a-z])dsn"
)
"""What a secret is called. An etcd cluster's token is a name, not a secret."""
NAMED = re.compile(rf"(?i)(?:{NAME})")
_HINTS = "pass pwd pw token secret key credential authorization cookie string json dsn"
NAME_HINTS = tuple(_HINTS.split())
"""One of these stands in every name, in lower case: a quick look before the slow one."""

BARE = r"""(?:[^\s,;&"'}\\]|\\(?!\\*["'])|[,;&](?!["']|[\w.-]+["']?[=:])(?=[^\s,;&}])|["'}](?=\w))+"""
VALUE = rf"""(?:\\+"(?:(?!\\+").)*(?:\\+"|$)|"(?:\\.|[^"\\])*(?:"|$)|'(?:''|[^'])*(?:'|$)|\[[^\]\n]*\]?|{BARE})"""
"""A value on one line: in quotes (escaped ones too), a list, or bare, up to where the next thing can begin."""

_HARMLESS = re.compile(
    r"(?i)(?:true|false|null|none|nil|yes|no|simple|jwt|\$RUN|[{\[]?[}\]]?|[*•x]*|<[a-z ]*>|\[REDACTED\])"
)
_QUOTED = re.compile(r"""(?s)(\\*["']).*?(\\*["'])?\Z""")


def harmless(value: str) -> bool:
    """A value that gives nothing away: a truth value, nothing at all, etcd's kinds of token, or a mask."""
    return _HARMLESS.fullmatch(value.strip().strip("\\\"'").strip()) is not None


def hidden(value: str) -> str:
    """The mask in place of a value, in the quotes that it had, so that JSON stays JSON."""
    quoted = _QUOTED.match(value)
    return f"{quoted[1]}{MASK}{quoted[1]}" if quoted else MASK


@dataclass(frozen=True)
class Form:
    """A kind of secret. ``hints``: one of them, in lower case, stands in every text that holds it; () for unknown.

    ``hide`` gives what stands instead of a match, or None where that is none after all.
    """

    kind: str
    hints: tuple[str, ...]
    pattern: str
    hide: Callable[[re.Match[str]], str | None] = lambda m: f"{m[1]}{MASK}"

    def sub(self, text: str, low: str, found: Found) -> str:
        """The text without them; ``low`` is it in lower case."""
        if self.hints and not any(hint in low for hint in self.hints):
            return text

        def replace(match: re.Match[str]) -> str:
            instead = self.hide(match)
            if instead is None:
                return match[0]
            found[self.kind] += 1
            return instead

        return re.compile(self.pattern).sub(replace, text)  # compiled when it is first needed, and then kept by re


def _value(match: re.Match[str]) -> str | None:
    return None if harmless(match["v"]) else f"{match[1]}{hidden(match['v'])}"


def _encoded_key(match: re.Match[str]) -> str | None:
    """PEM in base64: a certificate alone is no secret."""
    text = re.sub(r"\s", "", match[1])
    try:
        inside = base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return MASK
    return MASK if b"PRIVATE" in inside or b"CERTIFICATE" not in inside else None


def _encoded_login(match: re.Match[str]) -> str | None:
    """``auth`` of a registry: user and password in base64."""
    try:
        inside = base64.b64decode(match["v"], validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"{match[1]}{MASK}" if b":" in inside and inside.isascii() else None


_PEM = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
_ACCESS = (
    r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|gl(?:pat|ptt|dt|rt)-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|hv[sbr]\.[\w-]{20,}|sk_(?:live|test)_\w{16,}|dop_v1_[0-9a-f]{40,}|npm_\w{30,}|AGE-SECRET-KEY-1[0-9A-Z]{40,}"
    r"|ya29\.[\w-]{20,}|AIza[\w-]{35})"
)
_SAID = r"(?!(?:authentications?|authorization|credentials?|tokens?|constraints?|information|configuration)\b)"

_KEY_ENCODED = r"(LS0tLS1CRUdJTi[A-Za-z0-9+/=]+(?:\s+[A-Za-z0-9+/=]{40,})*)"
_LOGIN = r"""((?<=[a-zA-Z0-9])://[^\s/:@"'<>]*:)(?!\d{1,5}[/,?#\s"'])[^\s"'<>]+(?=@)"""
_SIGNED = r"""(?i)((?:[?&]sig|x-amz-(?:signature|credential|security-token)|x-goog-signature)=)[^\s&"'<>]+"""

FORMS = (
    Form("private key", ("private key",), rf"(?s)(){_PEM}", lambda _: f"{MASK} (a private key)"),
    Form("private key", ("ls0tls1crudjti",), _KEY_ENCODED, _encoded_key),
    Form("JSON web token", ("eyj",), r"()\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    Form(
        "bearer or basic",
        ("bearer", "basic"),
        rf"(?i)(\b(?:bearer|basic)[ \t]+){_SAID}[A-Za-z0-9._~+/=-]{{6,}}",
    ),
    Form("URL credential", ("://",), _LOGIN),
    Form("URL credential", ("://",), r"((?<=[a-zA-Z0-9])://)[\w.~%-]{20,}(?=@)"),
    Form("URL credential", ("sig", "x-amz"), _SIGNED),
    Form("bootstrap token", (".",), r"()(?<![\w.])[a-z0-9]{6}\.[a-z0-9]{16}(?![\w.])"),
    Form("cloud key", ("akia", "asia", "abia", "acca"), r"()\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"),
    Form(
        "access token",
        ("gh", "gl", "xox", "hv", "sk_", "dop_", "npm_", "age-", "ya29", "aiza"),
        rf"(){_ACCESS}",
    ),
    Form("password hash", ("$",), r"()\$(?:1|2[abxy]|5|6|y|7|argon2id?)\$[./A-Za-z0-9$=,+-]{20,}"),
)
"""In this order, over the whole text."""

OPTION = r"(?:[\w-]*-)?(?<!cluster-)(?:token|password|passwd|passphrase|secret|api-key|access-key|certificate-key)"
_SCHEME = r"""(?i)(authorization\\*["']?[ \t]*(?:=>|[:=])[ \t]*\\*["']?[a-z][\w-]*[ \t]+)(?!•)([^\s"'\\]+)"""
_REGISTRY = r"""(?i)((?<![\w-])_?auth\\*["']?[ \t]*[:=][ \t]*\\*["']?)(?P<v>[a-z0-9+/]{8,}={0,2})(?![\w+/=])"""

LINE_FORMS = (
    Form("bearer or basic", ("authorization",), _SCHEME),
    Form(
        "named value",
        NAME_HINTS,
        rf"""(?i)((?:{NAME})\\*["']?[ \t]*(?:=>|[:=]=?|%3D)[ \t]*)(?P<v>{VALUE})""",
        _value,
    ),
    Form(
        "option",
        ("token", "pass", "secret", "-key"),
        rf"""(?i)((?<![\w-])--?{OPTION}\\*(?:[ \t]+|["'],[ \t]*))(?P<v>(?!--){VALUE})""",
        _value,
    ),
    Form("named value", NAME_HINTS, rf"(?i)(<(?:[\w.-]*)(?:{NAME})>)[^<\s]+"),
    Form("option", ("sshpass", "ipmitool"), r"(\b(?:sshpass|ipmitool)\b.*?[ \t]-[pP][ \t]*)\S+"),
    Form("option", ("user",), r"(\buser[ \t]+add[ \t]+[^\s:]+:)\S+"),
    Form("URL credential", ("@tcp(", "@unix("), r"(\b[\w.-]+:)\S+(?=@(?:tcp|unix)\()"),
    Form("option", ("-u",), r"(?<!\S)((?:--user[= ]|-u ?)[^\s:/]*:)\S+"),
    Form("option", ("login",), r"(\blogin[ \t]+\S+[ \t]+password[ \t]+)\S+"),
    Form("registry login", ("auth",), _REGISTRY, _encoded_login),
)
"""Line by line, where a hint stands in it: what they look for has many beginnings, and is slow to look for."""

_DATA = re.compile(r'(\\*)"(?:data|stringData|binaryData)\\*"\s*:\s*\{')
_STRINGS = re.compile(r'\{(?:[^"{}]|"(?:\\.|[^"\\])*")*\}')


def by_form(text: str, found: Found) -> str:
    """The text without what its form tells, over several lines too."""
    low = text.lower()
    if "private key" in low:
        text = _without_tails(text, found)
    if 'data\\"' in text or 'data"' in low:
        text = _without_data(text, found)
    for form in FORMS:
        text = form.sub(text, low, found)
    return text


def _without_data(text: str, found: Found) -> str:
    """JSON's ``data`` and ``stringData``: the values of a Secret, if it is one; also in JSON within a string."""
    pieces, at = [], 0
    while match := _DATA.search(text, at):
        start = match.end() - 1
        plain = None if match[1] else _STRINGS.match(text, start)
        end = plain.end() if plain else _closed(text, start)
        empty = not text[start:end].strip("{} \n\t")
        found["Secret data"] += not empty
        pieces += [text[at:start], text[start:end] if empty else f'{match[1]}"{MASK}{match[1]}"']
        at = end
    return "".join([*pieces, text[at:]])


def _closed(text: str, start: int) -> int:
    """Behind the brace that closes the one at ``start``, where something can follow; the text's end where none does."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth <= 0 and re.compile(r"\s*(?:[,}\]]|\\*[\"'\n]|$)").match(text, match.end()):
            return match.end()
    return len(text)


_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_ENCODED = re.compile(r"[A-Za-z0-9+/=]{16,}\s*\Z")


def _without_tails(text: str, found: Found) -> str:
    """The end of a private key whose beginning was cut away."""
    first = _END.search(text)
    if first is None or "-----BEGIN" in text[: first.start()]:
        return text
    lines = text[: first.start()].split("\n")
    keep = len(lines) - 1
    while keep and _ENCODED.search(lines[keep - 1]):
        keep -= 1
    found["private key"] += 1
    return "\n".join([*lines[:keep], f"{MASK} (the end of a private key)"]) + text[first.end() :]
