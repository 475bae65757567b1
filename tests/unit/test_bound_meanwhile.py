"""The snapshot is hashed beside the loading of what a run needs; neither an error nor Ctrl-C gets lost there."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from runbook import meanwhile
from runbook.errors import Refused
from runbook.plan import Plan
from runbook.step import Binding
from tests.fake.sessions import plan


def test_the_binding_and_its_note_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "preview_binding", lambda _: (Binding(sha256="ab"), "a note"))
    assert meanwhile.bound_meanwhile(plan()) == (Binding(sha256="ab"), "a note")


def test_what_is_wrong_with_the_snapshot_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_: Plan) -> tuple[Binding, str]:
        raise Refused("it is empty", true="t", means="m", next=("n",))

    monkeypatch.setattr(meanwhile, "preview_binding", damaged)
    with pytest.raises(Refused, match="it is empty"):
        meanwhile.bound_meanwhile(plan())


def test_ctrl_c_does_not_wait_for_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def slow(_: Plan) -> tuple[Binding, str]:
        over.wait(20)
        return Binding(), ""

    monkeypatch.setattr(meanwhile, "preview_binding", slow)
    began = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            meanwhile.bound_meanwhile(plan())
        assert time.monotonic() - began < 10
    finally:
        over.set()
