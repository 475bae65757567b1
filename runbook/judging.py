"""May this command be carried out on this run now? By the journal alone, read while the run's own lock is held.

Each returns a word where there is nothing to do, "" where the command may go on; it raises UsageError where it may not.
No host is asked, and another machine may have gone on since: what is true is told with the time of when it was.

A rollback of what was only prepared removes and closes by itself before it ends: cut off in that, it goes on.
"""

from __future__ import annotations

from runbook import __version__, situation
from runbook.errors import UsageError
from runbook.replay import Replay

ELSEWHERE = "this run was ended on another machine, and nothing of it is left on the hosts"

_STANDS = {"outage": "in the outage", "rolling-back": "on its way back", "rolled-back": "rolled back"}
"""States that are no words to follow "is"."""


def resume(past: Replay, run: str) -> str:
    """Whether the run can go on."""
    if past.elsewhere:
        return ELSEWHERE
    if past.state == "complete" and not past.absent:
        return "this run is complete and owes nothing"
    if past.state == "rolled-back":
        was = "was refused" if past.refused else "was rolled back"
        raise UsageError(f"{run} {was}: there is nothing to resume", **situation.remembered(past, run))
    if past.state == "rolling-back":
        same_version(past, run)
        return ""
    if past.closed:  # an absent node may serve again by now, joined afresh: nothing there is this run's any more
        return "this run has been closed: there is nothing to go on with"
    if past.finishing:
        raise _finishing(past, run, "resumed")
    same_version(past, run)
    return ""


def rollback(past: Replay, run: str, *, discard: bool) -> str:
    """Whether the run can go back; ``discard``: with the consent that it needs once the restored cluster was told."""
    if past.elsewhere:
        return ELSEWHERE
    if past.state == "rolled-back" and not (past.absent and not past.closed):
        was = "was refused, with nothing changed" if past.refused else "has already been rolled back"
        return f"this run {was}"
    if past.finishing and past.state != "rolling-back":
        raise _finishing(past, run, "rolled back")
    same_version(past, run)
    if past.begun("StartApiServers") and not discard:
        sentences = situation.remembered(past, run)
        back = [command for command in sentences["next"] if " rollback " in command]
        other = [command for command in sentences["next"] if command not in back and " report " not in command]
        sentences["next"] = (*back, *other)
        raise UsageError(
            "the restored API servers were started: what was written since is thrown away by a rollback, "
            "so it needs --discard-writes; nothing was changed just now",
            **sentences,
        )
    return ""


def finish(past: Replay, run: str, *, accept: bool) -> str:
    """Whether what the run left can be removed; ``accept``: also where it is not all that was wanted."""
    if past.elsewhere:
        return ELSEWHERE
    if past.closed and not past.left:
        return "this run has already been closed"
    served = past.state == "halted" and past.halted_from == "verifying"
    allowed = ("complete", "rolled-back", *(("unverified",) if accept else ()))
    if past.state not in allowed and not past.finishing and not (accept and served):
        stands = _STANDS.get(past.state, past.state)
        stands = f"was {stands} when taken over elsewhere" if past.superseded else f"is {stands}"
        hint = "; accept it as it is with --accept" if past.state == "unverified" or served else ""
        raise UsageError(
            f"{run} {stands}: finish follows a complete run or a rollback{hint}; nothing was removed",
            **situation.remembered(past, run),
        )
    if past.absent and not accept and not past.finishing:
        sentences = situation.remembered(past, run)
        sentences["next"] = (situation.owing(past, run), f"runbook finish {run} --accept")
        raise UsageError(
            f"{run} still owes {', '.join(past.absent)} its steps: with the run's directory its way back is gone",
            **sentences,
        )
    same_version(past, run)
    return ""


def moved_on(past: Replay, run: str) -> UsageError:
    """The error of a command that asked a person, while somebody else worked on the run."""
    sentences = situation.remembered(past, run)
    sentences["true"] = f"nothing was removed\n{sentences['true']}"
    sentences["next"] = (f"runbook status {run}", *sentences["next"])
    return UsageError(
        f"{run} has moved on since the question: it is {_STANDS.get(past.state, past.state)} now", **sentences
    )


def _finishing(past: Replay, run: str, what: str) -> UsageError:
    return UsageError(
        f"`runbook finish` has begun to remove what {run} left: nothing can be {what} any more",
        **situation.remembered(past, run),
    )


def same_version(past: Replay, run: str) -> None:
    """A run is finished by the program that began it. Raises UsageError."""
    if not past.header:
        raise UsageError(
            f"the journal of {run} has no first line: nothing was ever begun",
            true="nothing was changed on any host by it",
            means="there is nothing to go on with, nor to take back",
            next=("runbook runs",),
        )
    begun = past.header.get("version")
    if begun != __version__:
        raise UsageError(
            f"this run was begun by runbook {begun}; this is runbook {__version__}",
            true="nothing was changed just now",
            means="another version may do the steps in another way than was previewed",
            next=(f"pip install runbook=={begun}",),
        )
