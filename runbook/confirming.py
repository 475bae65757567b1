"""Asking a person whether what was shown may be done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from runbook.errors import NOTE, Interrupted, UsageError


def confirm(yes: bool, again: str, approve: str = "") -> Callable[[str], None]:
    """Asks a person; raises UsageError where there is none, or where the answer is no. ``again`` is the command.

    ``approve``: what a digest would do, where one may be given.
    """

    def ask(question: str) -> None:
        if yes:
            return
        sentences: dict[str, Any] = {"true": "nothing was changed", "means": "nothing was begun"}
        if not sys.stdin.isatty():
            how = [f"{again} --yes", *([f"{again} --approve DIGEST{NOTE}{approve}"] if approve else [])]
            raise UsageError("there is no terminal to confirm on", **sentences, next=how)
        click.echo(f"{question} Type yes: ", nl=False, err=True)
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            click.echo(err=True)
            raise Interrupted("interrupted, not confirmed", **sentences, next=(again,)) from None
        if answer.strip().lower() != "yes":
            raise UsageError("not confirmed: the answer was not yes", **sentences, next=(again,))

    return ask
