"""The sidecar: written and read back, a newer program's read too, and everything else refused with its reason."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.snapshots.sidecar import NoSidecar, Sidecar, Stored, is_name, new_name

AT = datetime(2026, 4, 9, 14, 0, tzinfo=UTC)
WHOLE = Sidecar(
    name="prod-eu1-20260409t140000z-3f2a.db.zst.age",
    cluster="prod-eu1",
    at="2026-04-09T14:00:00Z",
    sha256="ab" * 32,
    size=2_000_000_032,
    stored=Stored(700_000_000, "cd" * 32, "zstd", ("age1qqq",)),
    revision=12345,
    kinds={"pods": 10, "secrets": 3},
    etcd="3.5.16",
    fingerprints={"etcd/ca.crt": "ef" * 32},
)


def test_what_is_written_is_read_back() -> None:
    assert Sidecar.from_json(WHOLE.json()) == WHOLE
    assert WHOLE.taken == AT


def test_a_newer_programs_keys_are_passed_over() -> None:
    value = json.loads(WHOLE.json()) | {"flavour": "x"}
    value["stored"]["cold"] = True
    assert Sidecar.from_json(json.dumps(value)) == WHOLE


def changed(**keys: Any) -> str:
    return json.dumps({k: v for k, v in (json.loads(WHOLE.json()) | keys).items() if v is not None})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[]", "kind"),
        ('{"kind": "Other"}', "kind"),
        (changed(apiVersion="runbook/v9"), "kind"),
        (changed(stored=None), "stored is missing"),
        (changed(stored={"size": 1}), "stored.sha256 is missing"),
        (changed(stored={"size": 1, "sha256": "no"}), "stored.sha256 is 'no'"),
        (changed(stored={"size": 1, "sha256": "ab" * 32, "compressed": "lzma"}), "compressed"),
        (changed(sha256=None), "sha256 is missing"),
        (changed(size=-1), "size is -1"),
        (changed(size=True), "size is True"),
        (changed(at="2026-04-09T14:00:00"), "at is"),
        (changed(name="../../etc/passwd"), "name is"),
        (changed(kinds={"pods": "many"}), "kinds is"),
        (changed(verified="yes"), "verified is"),
    ],
)
def test_what_is_no_sidecar(text: str, why: str) -> None:
    with pytest.raises(NoSidecar, match=why.replace(".", r"\.")):
        Sidecar.from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    for text in (json.dumps(value), changed(stored=value), changed(kinds=value)):
        with contextlib.suppress(NoSidecar):
            assert Sidecar.from_json(text).name == WHOLE.name


@pytest.mark.parametrize(
    ("compressed", "encrypted", "ends"),
    [(True, True, ".db.zst.age"), (True, False, ".db.zst"), (False, True, ".db.age"), (False, False, ".db")],
)
def test_names(compressed: bool, encrypted: bool, ends: str) -> None:
    made = new_name("prod-eu1", AT, compressed=compressed, encrypted=encrypted)
    assert re.fullmatch(r"prod-eu1-20260409t140000z-[0-9a-f]{4}" + re.escape(ends), made)
    assert is_name(made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x.db",
        "a-20260409t140000z.db",
        "-20260409t140000z-3f2a.db",
        "b/a-20260409t140000z-3f2a.db",
        "a-20260409t140000z-3f2a.db.part",
        "a-20260409t140000z-3f2a.db.json",
    ],
)
def test_names_that_are_not_ours(text: str) -> None:
    assert not is_name(text)
