"""A stand-in for systemctl: `is-active`, `start`, `stop`, `restart`, `status`, `show`, and some verbs that do nothing.

What it prints and its exit codes are the real one's: 0; 3 not active; 4 no such unit; 5 no such unit to act on.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from runbook.lab.wire import ask

Json = dict[str, Any]
ACTING = ("start", "stop", "restart")


def service(verb: str, name: str) -> Json:
    """Ask the host's first process."""
    return ask({"op": "service", "verb": verb, "name": name})


def unit(name: str) -> str:
    """The unit's full name."""
    return name if "." in name else f"{name}.service"


def act(verb: str, names: list[str]) -> int:
    """Start, stop, restart."""
    code = 0
    for name in names:
        if os.geteuid() != 0:
            print(f"Failed to {verb} {unit(name)}: Interactive authentication required.", file=sys.stderr)
            code = 1
        elif service(verb, name).get("unknown"):
            print(f"Failed to {verb} {unit(name)}: Unit {unit(name)} not found.", file=sys.stderr)
            code = 5
    return code


def is_active(names: list[str], quiet: bool) -> int:
    """One line a unit; 0 where one is active at least."""
    codes = []
    for name in names:
        state = service("show", name)
        active = bool(state.get("pid"))
        codes.append(4 if state.get("unknown") else 0 if active else 3)
        if not quiet:
            print("active" if active else "activating" if state.get("wanted") else "inactive")
    return 0 if 0 in codes else max(codes, default=1)


def status(names: list[str]) -> int:
    """For people."""
    code = 0
    for name in names:
        state = service("show", name)
        if state.get("unknown"):
            print(f"Unit {unit(name)} could not be found.", file=sys.stderr)
            return 4
        since = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(state["since"]))
        active = f"active (running) since {since}" if state["pid"] else f"inactive (dead) since {since}"
        print(f"{'●' if state['pid'] else '○'} {unit(name)} - runbook lab\n     Loaded: loaded ({unit(name)}; enabled)")
        print(f"     Active: {active}")
        if state["pid"]:
            print(f"   Main PID: {state['pid']}")
        else:
            code = 3
    return code


def properties(names: list[str], wanted: list[str], value_only: bool) -> int:
    """`show`."""
    for name in names:
        state = service("show", name)
        pid = state.get("pid", 0)
        known = {
            "Id": unit(name),
            "LoadState": "not-found" if state.get("unknown") else "loaded",
            "ActiveState": "active" if pid else "inactive",
            "SubState": "running" if pid else "dead",
            "MainPID": str(pid),
        }
        for key in wanted or list(known):
            if key in known:
                print(known[key] if value_only else f"{key}={known[key]}")
    return 0


def main(argv: list[str]) -> int:
    """Run one command."""
    words = [a for a in argv if not a.startswith("-")]
    flags = [a for a in argv if a.startswith("-")]
    asked = [f.removeprefix("--property=").removeprefix("-p") for f in flags if f.startswith(("-p", "--property="))]
    if "-p" in argv[:-1]:
        after = argv[argv.index("-p") + 1]
        asked.append(after)
        words.remove(after)
    wanted = [p for text in asked for p in text.split(",") if p]
    verb, names = (words[0], words[1:]) if words else ("", [])
    if verb in ACTING:
        return act(verb, names)
    if verb == "is-active":
        return is_active(names, "-q" in flags or "--quiet" in flags)
    if verb == "status":
        return status(names)
    if verb == "show":
        return properties(names, wanted, "--value" in flags)
    if verb == "is-enabled":
        print("enabled")
        return 0
    if verb in ("daemon-reload", "enable", "disable", "reset-failed"):
        return 0
    print(f"Unknown command verb {verb}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
