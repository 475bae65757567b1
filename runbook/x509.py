"""Certificates as ``openssl x509`` prints them. Private keys are never read by this program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from runbook.shape import ParseError, brief, number

ASK = ("-subject", "-issuer", "-startdate", "-enddate", "-fingerprint", "-sha256", "-ext", "subjectAltName")
"""The options of ``openssl x509 -noout`` whose output :func:`certificate` reads; OpenSSL 1.1.1 and later."""


@dataclass(frozen=True)
class Certificate:
    """A certificate's public facts. ``names`` are its SANs: DNS names and IP addresses."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    names: tuple[str, ...]


_SAN = re.compile(r"(?:DNS|IP Address):([^,\s]+)")


def certificate(text: str) -> Certificate:
    """What ``openssl x509 -noout`` says when asked for :data:`ASK`."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            facts.setdefault(key.strip().lower(), value.strip())
    finger = next((v for k, v in facts.items() if k.endswith("fingerprint")), "")
    if not finger:
        raise ParseError(f"openssl x509: no fingerprint in {brief(repr(text))}")
    return Certificate(
        subject=facts.get("subject", ""),
        issuer=facts.get("issuer", ""),
        not_before=_date(facts, "notbefore"),
        not_after=_date(facts, "notafter"),
        fingerprint=finger.replace(":", "").lower(),
        names=tuple(_SAN.findall(text)),
    )


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _date(facts: Mapping[str, str], key: str) -> datetime:
    """OpenSSL's ``Jun  1 12:00:00 2026 GMT``; by hand, because strptime's month names follow the locale."""
    words = facts.get(key, "").split()
    try:
        month, day, clock, year, zone = words
        hours, minutes, seconds = (number(part, key) for part in clock.split(":"))
        if zone != "GMT":
            raise ValueError(zone)
        at = (number(year, key), _MONTHS.index(month) + 1, number(day, key), hours, minutes, min(seconds, 59))
        return datetime(*at, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ParseError(f"openssl x509: {key} is no date: {brief(' '.join(words) or 'missing')}") from None
