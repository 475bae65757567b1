"""Asking: once, or again and again; in stages, confirmed at the end, each host with its own deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runbook.asking import POLL, TIMED_OUT, ask_before, ask_once, ask_until, judge
from runbook.lifecycle import YES, Verdict
from runbook.step import NOTHING, Command, Probe, Result, probe
from runbook.transport import Witness

OK, NO, LOST = Result(0), Result(1, err="not yet"), Result(None, err="the connection was lost")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1


class Answers:
    """Hosts that answer each question from its own list; the last answer stays."""

    def __init__(self, answers: dict[tuple[str, str], list[Result]]) -> None:
        self.answers = answers
        self.asked: list[dict[str, list[str]]] = []

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        self.asked.append({host: [str(c.argv[0]) for c in commands] for host, commands in asks.items()})
        return {host: tuple(self._next(host, str(c.argv[0])) for c in commands) for host, commands in asks.items()}

    def _next(self, host: str, question: str) -> Result:
        left = self.answers.get((host, question), [OK])
        return left.pop(0) if len(left) > 1 else left[0]

    def act(self, actions: object, key: str, witness: Witness) -> dict[str, Result]:
        raise AssertionError("asking changes nothing")

    def settle(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        raise AssertionError("asking changes nothing")

    def close(self) -> None:
        """Nothing."""


def questions(*names: str, within: float = 0.0) -> Probe:
    """One question each; a name in capitals is a slow one's."""
    found = Probe()
    for name in names:
        found &= probe(name, Command((name,)), lambda r: "" if r.ok else r.err, slow=name.isupper())
    return found.within(within)


def test_the_first_no_is_the_hosts_view() -> None:
    hosts = Answers({("m1", "b"): [NO], ("m1", "c"): [LOST]})
    views = ask_once(hosts, {"m1": questions("a", "b", "c"), "m2": questions("a")})
    assert (views["m1"].verdict, views["m1"].saw) == (Verdict.NO, "not yet")
    assert views["m2"] == YES
    assert hosts.asked == [{"m1": ["a", "b", "c"], "m2": ["a"]}], "one round trip"


def test_where_a_slow_question_is_answered_with_no_the_others_are_not_asked() -> None:
    """A member without a quorum lets each of them run out of time: a minute and a half in the outage."""
    probe_ = questions("a", "b", "c", "D", "e", "f", "G")
    hosts = Answers({("m1", "D"): [NO]})
    views = ask_once(hosts, {"m1": probe_, "m2": probe_, "m3": questions("a")})
    assert views == {"m1": judge(probe_.questions[3], NO), "m2": YES, "m3": YES}
    assert [asked["m2"] for asked in hosts.asked] == [["a", "b", "c"], ["D"], ["e", "f"], ["G"]]
    assert [asked.get("m1") for asked in hosts.asked] == [["a", "b", "c"], ["D"], None, None]


def test_a_host_that_does_not_answer_is_unknown_and_never_no() -> None:
    assert ask_once(Answers({("m1", "a"): [LOST]}), {"m1": questions("a")})["m1"].verdict is Verdict.UNKNOWN


def test_nothing_to_ask_is_yes_without_a_question() -> None:
    hosts = Answers({})
    assert ask_once(hosts, {"m1": NOTHING}) == {"m1": YES}
    assert ask_until(hosts, {"m1": NOTHING.within(5)}, Clock()) == {"m1": YES} or hosts.asked
    assert ask_once(hosts, {}) == {}


def test_whether_it_is_done_and_whether_it_may_begin_take_one_round_trip() -> None:
    hosts = Answers({("m1", "done"): [NO], ("m2", "done"): [OK], ("m3", "done"): [NO], ("m3", "a"): [NO]})
    every = ("m1", "m2", "m3")
    views, began = ask_before(hosts, dict.fromkeys(every, questions("done")), dict.fromkeys(every, questions("a", "b")))
    assert [views[h].verdict for h in every] == [Verdict.NO, Verdict.YES, Verdict.NO]
    assert began == {"m1": YES}, "who is done need not begin; who says no is to be waited for"
    assert hosts.asked == [{host: ["done", "a", "b"] for host in every}]


def test_what_is_slow_is_not_asked_of_a_host_that_is_done_or_may_not_begin() -> None:
    answers = {("m1", "done"): [NO], ("m2", "done"): [OK], ("m3", "done"): [NO], ("m3", "a"): [NO]}
    hosts = Answers({**answers, ("m4", "done"): [LOST]})
    every = ("m1", "m2", "m3", "m4")
    views, began = ask_before(hosts, dict.fromkeys(every, questions("done")), dict.fromkeys(every, questions("a", "B")))
    assert views["m4"].verdict is Verdict.UNKNOWN
    assert began == {"m1": YES}
    assert hosts.asked[1:] == [{"m1": ["B"]}], "the others are not asked it at all"


def test_a_slow_postcondition_is_asked_alone_and_nothing_to_ask_is_no_round_trip() -> None:
    hosts = Answers({("m1", "DONE"): [NO]})
    views, began = ask_before(
        hosts, {"m1": questions("DONE"), "m2": NOTHING, "m3": NOTHING}, {"m1": questions("a"), "m2": questions("A")}
    )
    assert [views[h].verdict for h in ("m1", "m2", "m3")] == [Verdict.NO, Verdict.YES, Verdict.YES]
    assert began == {"m1": YES}
    assert hosts.asked == [{"m1": ["DONE"]}, {"m1": ["a"]}]


def test_a_question_that_outlived_its_time_is_a_no() -> None:
    """The host is there, and its answer is not: waiting goes on, resuming makes no difference."""
    view = judge(questions("a").questions[0], Result(TIMED_OUT))
    assert view.verdict is Verdict.NO
    assert "within 1 min" in view.saw


def test_what_is_true_at_once_is_asked_once() -> None:
    clock, hosts = Clock(), Answers({})
    assert ask_until(hosts, {"m1": questions("a", "b", "C", within=10)}, clock) == {"m1": YES}
    assert [asked["m1"] for asked in hosts.asked] == [["a", "b"], ["C"]]
    assert clock.slept == 0


def test_only_the_first_open_round_is_asked_while_waiting_and_all_at_the_end() -> None:
    clock, hosts = Clock(), Answers({("m1", "b"): [NO, NO, OK], ("m1", "C"): [NO, OK]})
    assert ask_until(hosts, {"m1": questions("a", "b", "C", within=10)}, clock) == {"m1": YES}
    first = ["a", "b"]
    assert [asked["m1"] for asked in hosts.asked] == [first, first, first, ["C"], ["C"], ["a", "b", "C"]]
    assert clock.slept == 3, "it sleeps only where nothing moved"


def test_what_became_true_in_one_round_trip_is_not_asked_once_more() -> None:
    clock, hosts = Clock(), Answers({("m1", "b"): [NO, OK]})
    assert ask_until(hosts, {"m1": questions("a", "b", within=10)}, clock) == {"m1": YES}
    assert [asked["m1"] for asked in hosts.asked] == [["a", "b"]] * 2


def test_what_becomes_untrue_again_before_the_end_is_found() -> None:
    """``a`` was true while ``b`` was waited for, and is not any more."""
    clock, hosts = Clock(), Answers({("m1", "a"): [OK, NO], ("m1", "B"): [NO, OK]})
    view = ask_until(hosts, {"m1": questions("a", "B", within=1)}, clock)["m1"]
    assert view.verdict is Verdict.NO
    assert clock.now >= 101


def test_each_host_has_its_own_deadline() -> None:
    clock = Clock()
    hosts = Answers({("m1", "a"): [NO], ("m2", "a"): [NO], ("m3", "a"): [NO] * 9 + [OK]})
    probes = {"m1": questions("a", within=1), "m2": questions("a"), "m3": questions("a", within=5)}
    views = ask_until(hosts, probes, clock)
    assert [views[h].verdict for h in ("m1", "m2", "m3")] == [Verdict.NO, Verdict.NO, Verdict.YES]
    assert sum("m2" in asked for asked in hosts.asked) == 1, "without a wait it is asked once"
    rounds = sum("m1" in asked for asked in hosts.asked)
    assert 1 / POLL <= rounds <= 1 / POLL + 2
    assert sum("m3" in asked for asked in hosts.asked) > rounds


def test_an_unknown_host_is_waited_for_too() -> None:
    hosts = Answers({("m1", "a"): [LOST, LOST, OK]})
    assert ask_until(hosts, {"m1": questions("a", within=10)}, Clock()) == {"m1": YES}
    hosts = Answers({("m1", "a"): [LOST]})
    assert ask_until(hosts, {"m1": questions("a", within=1)}, Clock())["m1"].verdict is Verdict.UNKNOWN


def test_an_impatient_host_is_asked_once_only() -> None:
    clock, hosts = Clock(), Answers({("m1", "a"): [NO, OK]})
    view = ask_until(hosts, {"m1": questions("a", within=60)}, clock, impatient={"m1"})["m1"]
    assert view.verdict is Verdict.NO
    assert clock.slept == 0


def test_what_a_host_says_is_redacted_before_anybody_sees_it() -> None:
    said = Result(1, err="the request had Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl")
    assert "c2VjcmV0" not in judge(questions("a").questions[0], said).saw
