"""What holds for every plan file there can be."""

from __future__ import annotations

import re
import string
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from runbook.plan import (
    NOWHERE,
    Cluster,
    Node,
    OwnCheck,
    Paths,
    Place,
    Plan,
    Snapshot,
    Ssh,
    Timeouts,
    Tools,
    Verify,
    Worker,
    default_client_urls,
)
from runbook.planfile import PlanErrors, Problem, format_duration, parse_duration, pinned_differences, read
from runbook.planfile.build import FIELDS
from runbook.planfile.problems import nearest, shown
from runbook.planfile.shape import schema
from runbook.planfile.words import FORMATS
from tests.unit.test_plan_load import ROOT, every_key

FILE = Path("/plans/p.yaml")
HA = (ROOT / "plans" / "ha.yaml").read_text()


def problems(data: bytes) -> tuple[Problem, ...]:
    """All that is said of a file; none where it is a plan. Whatever else happens fails the test."""
    refused: PlanErrors | None = None
    try:
        plan, warnings = read(data, FILE)
    except PlanErrors as e:
        refused = e
    if refused is None:
        assert isinstance(plan, Plan)
        return warnings
    assert refused.problems
    assert str(refused).count("\n") == len(refused.problems) - 1
    return (*refused.problems, *refused.warnings)


def placed(text: str, found: tuple[Problem, ...]) -> None:
    """Each problem stands at a place that the file has."""
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text)
    for problem in found:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert str(problem).isprintable()


KEYS = sorted({key for key, _, _ in every_key()})
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=6))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(),
    st.sampled_from(["runbook/v1", "EtcdRestore", "m1", "https://10.0.0.1:2380", "/var/lib/etcd", "90s", "a/b"]),
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(keys, below, max_size=6)),
    max_leaves=30,
)


@given(trees)
@settings(max_examples=200, deadline=None)
def test_no_tree_is_too_strange(tree: Any) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    placed(text, problems(text.encode()))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_value_is_too_strange_anywhere(data: st.DataObject) -> None:
    """The full example, with any of its values replaced by anything."""
    plan = yaml.safe_load(HA)
    for _ in range(data.draw(st.integers(1, 4))):
        at: Any = plan
        while True:
            step = data.draw(st.sampled_from(sorted(at, key=str) if isinstance(at, dict) else range(len(at))))
            if not isinstance(at[step], (dict, list)) or not at[step] or data.draw(st.integers(0, 5)) == 0:
                at[step] = data.draw(trees)
                break
            at = at[step]
    text = yaml.safe_dump(plan, allow_unicode=True)
    placed(text, problems(text.encode()))


@given(st.binary(max_size=300))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    problems(data)


@given(st.text(alphabet=st.sampled_from("ab:-? \n\t[]{}&*!|>'\"%@`#,<~0.\ufeff\u2028é"), max_size=60))
@settings(max_examples=400, deadline=None)
@example("---")
def test_no_text_is_too_strange(text: str) -> None:
    placed(text.removeprefix("\ufeff"), problems(text.encode()))


@given(st.integers(0, len(HA.encode())), st.integers(0, 20), st.binary(max_size=6))
@settings(max_examples=300, deadline=None)
def test_no_edit_is_too_strange(at: int, drop: int, put: bytes) -> None:
    raw = HA.encode()
    problems(raw[:at] + put + raw[at + drop :])


# --- good plans, there and back ---------------------------------------------------------------------------------

NAMES = {field: key for key, field in FIELDS.items()}
words = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,8}[a-z0-9])?", fullmatch=True)
labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
paths = st.lists(words, min_size=1, max_size=3).map(lambda parts: "/top/" + "/".join(parts))
durations = st.one_of(st.integers(1, 86400).map(float), st.integers(1, 86_400_000).map(lambda n: n / 1000))
local_paths = paths.map(Path)
lines = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)

sshs = st.builds(
    Ssh, user=words, port=st.integers(1, 65535), identity_file=st.none() | local_paths, known_hosts_file=local_paths,
    jump=st.none() | labels, sudo=st.sampled_from(["auto", "always", "never"]), connect_timeout=durations,
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 5))
    names = draw(
        st.lists(words.filter(lambda w: w not in ("local", "all")), min_size=count, max_size=count, unique=True)
    )
    common_paths = Paths(*(f"/p{i}{draw(paths)}" for i in range(8)))
    nodes = []
    for i, name in enumerate(names):
        peers = tuple(f"https://10.{i}.{n}.1:2380" for n in range(draw(st.integers(1, 2))))
        clients = draw(st.sampled_from([default_client_urls(peers), (f"http://[fd00::{i + 1}]:4001",)]))
        nodes.append(Node(name, f"h{i}.internal", peers, clients, draw(sshs), common_paths))
    place, asks = draw(st.sampled_from(["s3://bucket/a", "file:///srv", f"host://{names[0]}/srv"])), "?latest=verified"
    source = draw(st.sampled_from(["file:///srv/a.db", f"host://{names[0]}/srv/a.db", place + asks]))
    node = names[0] if source.startswith("host:") and not source.endswith(asks) else None
    options = ("http://10.9.9.9:9000", "eu-1") if place.startswith("s3:") else ()
    store = Place(place, *options) if source.endswith(asks) else None
    digest = draw(st.none() | st.from_regex(r"[0-9a-f]{64}|[0-9]{64}", fullmatch=True))
    bump = draw(st.integers(0, 2**62))
    spots = st.sampled_from(["local", "all", *names])
    checks = draw(st.lists(lines, max_size=3, unique=True))
    return Plan(
        name=draw(labels),
        ticket=draw(st.just("") | lines),
        snapshot=Snapshot(
            source,
            NOWHERE if store else Path("/srv/a.db"),
            node,
            digest,
            draw(st.booleans()),
            store,
            draw(st.none() | local_paths),
        ),
        cluster=Cluster(draw(st.sampled_from(["$RUN", "x-$RUN", "fixed"])), bump, bump > 0),
        nodes=tuple(nodes),
        workers=tuple(Worker(f"worker{i}.internal", draw(sshs), common_paths) for i in range(draw(st.integers(0, 2)))),
        tools=Tools(draw(words), "/opt/etcdutl", draw(st.none() | local_paths)),
        owner=draw(st.sampled_from(["keep", "etcd:etcd", "0:0"])),
        timeouts=Timeouts(*(draw(durations) for _ in range(6))),
        verify=Verify(
            draw(st.booleans()),
            draw(st.booleans()),
            tuple(f"ns{i}/{draw(labels)}" for i in range(draw(st.integers(0, 2)))),
            tuple(f"clusterrole/{i}:{draw(words)}" for i in range(draw(st.integers(0, 2)))),
            tuple(OwnCheck(n, draw(spots), draw(lines), draw(durations)) for n in checks),
        ),
    )  # fmt: skip


def as_file(plan: Plan) -> str:
    """The plan as YAML; durations in Go's syntax, absent things as ""."""

    def value(field: str, v: Any) -> Any:
        if isinstance(v, float):
            return format_duration(v)
        if isinstance(v, Path):
            return str(v)
        if v is None:
            return ""
        if isinstance(v, dict):
            return {NAMES.get(k, k): value(k, x) for k, x in v.items()}
        return [value(field, x) for x in v] if isinstance(v, (tuple, list)) else v

    plain = value("", asdict(plan))
    spec = {key: plain[key] for key in ("cluster", "nodes", "workers", "tools", "timeouts", "verify")}
    runtime = ("path", "node", "name", "trouble", "fingerprints")
    spec["snapshot"] = {k: v for k, v in plain["snapshot"].items() if k not in runtime}
    place = spec["snapshot"].pop("store") or {}
    spec["snapshot"]["store"] = {k: v for k, v in place.items() if k in ("endpoint", "region")}
    spec["restore"] = {"owner": plain["owner"]}
    spec["paths"] = value("", asdict(plan.nodes[0].paths))
    spec["workers"] = [{k: v for k, v in w.items() if k != "paths"} for w in spec["workers"]]
    metadata = {"name": plan.name, "ticket": plan.ticket}
    return yaml.safe_dump(
        {"apiVersion": "runbook/v1", "kind": "EtcdRestore", "metadata": metadata, "spec": spec}, allow_unicode=True
    )


@given(plans())
@settings(max_examples=150, deadline=None)
def test_a_good_plan_comes_back_as_it_was(plan: Plan) -> None:
    text = as_file(plan)
    assert not [p for p in problems(text.encode()) if not p.warning]
    back, warnings = read(text.encode(), FILE)
    assert back == plan
    assert back.digest() == plan.digest()
    assert pinned_differences(plan, back) == []
    placed(text, warnings)


# --- typos ------------------------------------------------------------------------------------------------------


def key_spots() -> list[tuple[str, int, int]]:
    """Every key of the full example, with its begin and end in the text."""
    found = []

    def visit(node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found.append((key.value, key.start_mark.index, key.end_mark.index))
                visit(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item)

    visit(yaml.compose(HA))
    return found


@given(st.sampled_from(key_spots()), st.data())
@settings(max_examples=400, deadline=None)
def test_every_typo_in_a_key_is_found_and_a_key_suggested(spot: tuple[str, int, int], data: st.DataObject) -> None:
    key, start, end = spot
    at = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters))
    kind = data.draw(st.sampled_from(["drop", "double", "swap", "other", "case"]))
    typo = {
        "drop": key[:at] + key[at + 1 :],
        "double": key[: at + 1] + key[at:],
        "swap": key[:at] + key[at + 1 : at + 2] + key[at : at + 1] + key[at + 2 :],
        "other": key[:at] + letter + key[at + 1 :],
        "case": key[:at] + key[at].swapcase() + key[at + 1 :],
    }[kind]
    assume(typo != key)
    text = HA[:start] + f"{typo!r}".replace("'", '"') + HA[end:]
    line, column = HA.count("\n", 0, start) + 1, start - HA.rfind("\n", 0, start)
    if typo in KEYS:  # it became another key that is known, perhaps here
        assert problems(text.encode())
        return
    [told] = [p for p in problems(text.encode()) if (p.line, p.column) == (line, column) and "unknown key" in p.message]
    assert "did you mean " in told.message
    if len(key) > 4 and not key.startswith("etcd"):
        assert told.message.endswith(f"did you mean {key}?")


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=5))
def test_what_is_nearest_is_known(word: str, known: list[str]) -> None:
    assert nearest(word, known) in (*known, "")
    assert nearest(word, [word]) == word


# --- single values ----------------------------------------------------------------------------------------------


@given(durations)
@example(86400.0)
@example(0.001)
def test_durations_come_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(h: int, m: int, s: int, ms: int) -> None:
    assume(h or m or s or ms)
    assert parse_duration(f"{h}h{m}m{s}s{ms}ms") == pytest.approx(h * 3600 + m * 60 + s + ms / 1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("500ms", 0.5), (".5s", 0.5), ("1.s", 1), ("3us", 3e-6),
     ("3µs", 3e-6), ("24h", 86400), ("1ns", 1e-9)],
)  # fmt: skip
def test_durations_are_go_s(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "1.5", "s", ".s", "-1s", "+1s", "1 s", "1d", "1w", "90S", "1h 30m", "24h1ns", "0s", "0.0h",
             "1e3s", "٣s", "1s\n", "9" * 80 + "s", "1h30", "1m m"]
)  # fmt: skip
def test_durations_are_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) "):
        parse_duration(text)


SAFE = {
    "plan-name": r"[a-z0-9-]+",
    "host": r"[A-Za-z0-9._:][A-Za-z0-9._:-]*",
    "member-name": r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "token": r"[A-Za-z0-9$][A-Za-z0-9._$-]*",
    "user": r"[A-Za-z0-9_][A-Za-z0-9._-]*",
    "jump": r"([A-Za-z0-9_\[:.][A-Za-z0-9_.@:\[\]-]*)?",
    "owner": r"[A-Za-z0-9_][A-Za-z0-9_.:-]*",
    "program": r"[A-Za-z0-9/][A-Za-z0-9./_+@:=,%-]*",
    "host-path": r"/[A-Za-z0-9/._+@:=,%-]+",
    "host-path-or-empty": r"(/[A-Za-z0-9/._+@:=,%-]+)?",
    "etcd-url": r"https?://[A-Za-z0-9._:\[\]-]+:[0-9]{1,5}",
    "secret": r"[a-z0-9/.-]+",
    "rbac": r"[A-Za-z0-9][A-Za-z0-9/:._-]*",
    "sha256": r"[0-9a-fA-F]*",
    "duration-go": r"[0-9.][0-9.a-zµμ]*",
    "member-or-place": r"[A-Za-z0-9][A-Za-z0-9._-]*",
    "endpoint-or-empty": r"(https?://[A-Za-z0-9._:/\[\]-]+)?",
    "region-or-empty": r"([A-Za-z0-9][A-Za-z0-9-]*)?",
    "kms-key-or-empty": r"([A-Za-z0-9][A-Za-z0-9:/_.-]*)?",
    "cron-or-empty": r"[A-Za-z0-9*/, -]*",
    "namespace": r"[a-z0-9-]+",
    "object-name-or-empty": r"[a-z0-9.-]*",
    "image-or-empty": r"([A-Za-z0-9][A-Za-z0-9._/:@-]*)?",
}
FREE = {"line", "title", "shell", "snapshot-url", "local-path", "local-path-or-empty", "store-url", "recipient"}
GOOD = ["m1", "prod-eu1", "https://10.0.0.1:2380", "https://[fd00::1]:2380", "/var/lib/etcd", "root:root", "keep",
        "90s", "ops@b.internal:22", "clusterrole/a:b", "role/ns/x", "default/known", "fd00::1", "10.0.0.1", "x$RUN",
        "a" * 64]  # fmt: skip
odd = st.sampled_from([*" \t\n\r\0;&|<>$`'\"\\*?[]{}()!#~,=@:/%-.", "--", "..", "//", "\u202e", "$(x)", "é", "0", "a"])


def test_every_format_has_its_safe_form() -> None:
    assert set(FORMATS) == set(SAFE) | FREE


@given(st.sampled_from(sorted(SAFE)), st.data())
@settings(max_examples=1500, deadline=None)
def test_nothing_leaves_its_place_in_a_command_line(name: str, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(GOOD))
    at = data.draw(st.integers(0, len(good)))
    drop = data.draw(st.integers(0, 2))
    text = good[:at] + "".join(data.draw(st.lists(odd, max_size=3))) + good[at + drop :]
    if not FORMATS[name].fault(text):
        assert re.fullmatch(SAFE[name], text, re.ASCII)
        assert ".." not in text.split("/")


@given(st.sampled_from(["host-path", "local-path", "snapshot-url"]), st.lists(st.sampled_from(["..", ".", "", "a"])))
def test_no_path_goes_up(name: str, parts: list[str]) -> None:
    for text in ("/".join(parts), "/" + "/".join(parts), "file:///" + "/".join(parts), "~/" + "/".join(parts)):
        if ".." in parts:
            assert FORMATS[name].fault(text)


@given(st.sampled_from(sorted(FREE)), st.text(st.sampled_from("a\n\t\r\0\x1b\x7f\x85\u2028\u202e /.-"), max_size=8))
def test_free_text_is_printable(name: str, text: str) -> None:
    if not FORMATS[name].fault(text):
        assert (text.replace("\n", "").replace("\t", "") if name == "shell" else text).isprintable()


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_the_schema_s_patterns_and_our_checks_agree(data: st.DataObject) -> None:
    """A pattern's error is told in our check's words; so where it refuses, our check must refuse too."""
    parts = [part for _, _, part in every_key() if "pattern" in part]
    parts += [schema()["$defs"]["duration"], schema()["$defs"]["url"]]
    part = data.draw(st.sampled_from(parts))
    text = data.draw(st.one_of(st.from_regex(part["pattern"]), st.sampled_from(GOOD), st.text(max_size=5)))
    if not re.search(part["pattern"], text):
        assert FORMATS[part["format"]].fault(text)


@given(st.text(max_size=100))
def test_what_is_shown_is_harmless(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(text).startswith('"')
