"""What a store's URL names: one snapshot, or which of all of them; whatever else is said of it is refused, in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.planfile.places import snapshot_url
from runbook.snapshots.urls import Reference, is_reference, moment, parse_reference

NAME = "prod-20260409t140000z-3f2a.db.zst.age"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (f"s3://bucket/a/b/{NAME}", Reference("s3://bucket/a/b", NAME)),
        ("gs://bucket/etcd.db", Reference("gs://bucket", "etcd.db")),
        ("az://box/a.db.zst", Reference("az://box", "a.db.zst")),
        ("file:///srv/my%20store/a%2Bb.db.age", Reference("file:///srv/my%20store", "a+b.db.age")),
        ("host://m1/opt/a.db.age", Reference("host://m1/opt", "a.db.age")),
        ("s3://bucket?latest=verified", Reference("s3://bucket", latest="verified")),
        ("s3://bucket/a/?latest=verified", Reference("s3://bucket/a", latest="verified")),
        ("file:///srv/store?latest=verified", Reference("file:///srv/store", latest="verified")),
        ("s3://bucket?at=2026-04-09T14:00:00Z", Reference("s3://bucket", at="2026-04-09T14:00:00Z")),
        ("s3://bucket?at=2026-04-09T16:00:00%2B02:00", Reference("s3://bucket", at="2026-04-09T16:00:00+02:00")),
        ("s3://bucket?at=2026-04-09T16:00:00+02:00", Reference("s3://bucket", at="2026-04-09T16:00:00+02:00")),
    ],
)
def test_what_is_meant(text: str, reference: Reference) -> None:
    assert is_reference(text)
    assert parse_reference(text) == reference
    assert snapshot_url(text) == ""


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("s3://bucket/prod", "names no snapshot"),
        ("s3://bucket/prod/", "names no snapshot"),
        ("s3://bucket/a b.db", "other characters"),
        ("s3://bucket/..db", "other characters"),
        ("s3://etcd.db", "names no place"),
        ("s3:///etcd.db", "names no place"),
        ("s3://bucket/a.db#1", "holds #"),
        ("s3://bucket?", "has the option , which is neither"),
        ("s3://bucket?newest=verified", "has the option newest"),
        ("s3://bucket?latest=verified&latest=verified", "latest= twice"),
        ("s3://bucket?latest=verified&at=2026-04-09T14:00:00Z", "only one of them"),
        ("s3://bucket?latest", "only latest=verified"),
        ("s3://bucket?latest=VERIFIED", "only latest=verified"),
        ("s3://bucket?at=yesterday", "is no time as 2026-04-09T14:00:00Z"),
        ("s3://bucket?at=2026-04-09T14:00:00", "it ends with Z"),
        ("s3://bucket?at=2026-04-09", "it ends with Z"),
        ("s3://bucket?at=2026-02-30T14:00:00Z", "no time that a calendar"),
        ("s3://bucket/a.db?latest=verified", "names one snapshot, and then asks for another"),
        ("file:///srv/a?b.db", "a ? in a file's name is written %3F"),
        ("/srv/a.db", "is no URL of a store"),
        ("http://srv/a.db", "is no URL of a store"),
    ],
)
def test_what_cannot_be_meant(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "a.db",
        "/srv/a.db.zst.age",
        "file:///srv/a.db",
        "host://m1/srv/a.db",
        "file:///srv/a%3Fb.db",
        "http://a/b.db.age",
    ],
)
def test_a_plain_file_is_no_stores(text: str) -> None:
    assert not is_reference(text)


def test_a_time_has_its_zone() -> None:
    assert moment("2026-04-09T14:00:00z") == datetime(2026, 4, 9, 14, tzinfo=UTC)
    assert moment("2026-04-09T14:00:00.5+02:00") == datetime(
        2026, 4, 9, 14, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=2))
    )
    assert Reference("s3://b", at="2026-04-09T14:00:00Z").moment == datetime(2026, 4, 9, 14, tzinfo=UTC)
    assert Reference("s3://b", "a.db").moment is None


@given(st.text(max_size=30), st.sampled_from(["s3://b/", "file:///", "host://m1/", "s3://bb?", "s3://b?at=", "gs://"]))
def test_no_text_is_too_strange(text: str, head: str) -> None:
    """Whatever is taken leads to a store and a snapshot of it."""
    if snapshot_url(head + text) or not is_reference(head + text):
        return
    found = parse_reference(head + text)
    assert [bool(found.name), bool(found.latest), bool(found.at)].count(True) == 1
    assert "/" not in found.name
    assert "?" not in found.place_url
