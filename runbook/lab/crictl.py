"""A stand-in for crictl: ps, pods, images, exec, stop, rm, stopp, rmp, logs, inspect, version; the real one's JSON."""

from __future__ import annotations

import getopt
import json
import os
import re
import sys
import time
from typing import Any

from runbook.lab.wire import EXITED, READY, RUNNING, STATE, ask

Json = dict[str, Any]
PROGRAMS = "/opt/runbook-lab/bin:/usr/bin:/bin"
SHOWN = ("id", "podSandboxId", "metadata", "image", "imageRef", "state", "createdAt", "labels", "annotations")
SHORT = "aqlo:r:i:t:p:f"
LONG = [
    "all", "quiet", "latest", "no-trunc", "force", "output=", "name=", "state=", "label=", "pod=", "id=", "namespace=",
    "timeout=", "tail=", "runtime-endpoint=", "image-endpoint=", "config=",
]  # fmt: skip


def fail(text: str) -> int:
    """An error as crictl's logger writes it."""
    print(
        f'time="{time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}" level=fatal msg={json.dumps(text)}',
        file=sys.stderr,
    )
    return 1


def containers(kind: str = "containers") -> list[Json]:
    """All of them, the newest first; or all ``sandboxes``."""
    with open(f"{STATE}/all.json") as file:
        found: list[Json] = json.load(file)[kind]
    return found


def labelled(items: list[Json], options: dict[str, str]) -> list[Json]:
    """Those with all the labels asked for."""
    wanted = [pair.partition("=")[::2] for pair in options.get("label", "").split(",") if pair]
    return [i for i in items if all(i["labels"].get(key) == value for key, value in wanted)]


def show(document: Json) -> int:
    """Print JSON as crictl does."""
    print(json.dumps(document, indent=2))
    return 0


def print_table(rows: list[list[str]]) -> int:
    """Columns, padded."""
    widths = [max(len(row[i]) for row in rows) + 3 for i in range(len(rows[0]))]
    for row in rows:
        print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def age(created: str) -> str:
    """As crictl's `Created` column."""
    seconds = int(time.time() - int(created) / 1e9)
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} seconds ago"


def chosen(options: dict[str, str], arguments: list[str]) -> list[Json]:
    """What `ps` is asked for."""
    found = containers()
    state = options.get("state", "")
    if state:
        found = [c for c in found if c["state"].lower().endswith(state.lower())]
    elif "all" not in options:
        found = [c for c in found if c["state"] == RUNNING]
    found = labelled(found, options)
    found = [c for c in found if re.search(options.get("name", ""), c["metadata"]["name"])]
    found = [c for c in found if c["podSandboxId"].startswith(options.get("pod", ""))]
    found = [c for c in found if c["id"].startswith(options.get("id", arguments[0] if arguments else ""))]
    return found[:1] if "latest" in options else found


def ps(options: dict[str, str], arguments: list[str]) -> int:
    """List containers."""
    found = chosen(options, arguments)
    if "quiet" in options:
        print("\n".join(c["id"] for c in found), end="\n" if found else "")
        return 0
    if options.get("output") == "json":
        return show({"containers": [{key: c[key] for key in SHOWN} for c in found]})
    rows = [["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"]]
    for c in found:
        state = c["state"].removeprefix("CONTAINER_").capitalize()
        name, attempt = c["metadata"]["name"], str(c["metadata"]["attempt"])
        pod = c["labels"]["io.kubernetes.pod.name"]
        rows.append(
            [c["id"][:13], c["imageRef"], age(c["createdAt"]), state, name, attempt, c["podSandboxId"][:13], pod]
        )
    return print_table(rows)


def pods(options: dict[str, str], _: list[str]) -> int:
    """List pod sandboxes."""
    found = labelled(containers("sandboxes"), options)
    state = options.get("state", "").lower()
    if state not in ("", "ready", "notready"):
        print(f"{time.strftime('%Y/%m/%d %H:%M:%S')} --state should be ready or notready", file=sys.stderr)
        return 1
    if state:
        found = [s for s in found if (s["state"] == READY) == (state == "ready")]
    for key in ("name", "namespace"):
        found = [s for s in found if re.search(options.get(key, ""), s["metadata"][key])]
    found = [s for s in found if s["id"].startswith(options.get("id", ""))]
    found = found[:1] if "latest" in options else found
    if "quiet" in options:
        print("\n".join(s["id"] for s in found), end="\n" if found else "")
        return 0
    if options.get("output") == "json":
        return show({"items": found})
    rows = [["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]]
    for s in found:
        state, meta = "Ready" if s["state"] == READY else "NotReady", s["metadata"]
        names = [meta["name"], meta["namespace"], str(meta["attempt"])]
        rows.append([s["id"][:13], age(s["createdAt"]), state, *names, "(default)"])
    return print_table(rows)


def images(options: dict[str, str], _: list[str]) -> int:
    """List images: here, those that containers name."""
    names = sorted({c["imageRef"] for c in containers()})
    if options.get("output") == "json":
        return show(
            {"images": [{"id": n, "repoTags": [n], "repoDigests": [], "size": "0", "pinned": False} for n in names]}
        )
    return print_table(
        [["IMAGE", "TAG", "IMAGE ID", "SIZE"], *([*n.rpartition(":")[::2], n[:13], "0B"] for n in names)]
    )


def each_sandbox(arguments: list[str], verb: str) -> int:
    """`stopp` and `rmp` of each sandbox named."""
    if not arguments:
        return fail("ID cannot be empty")
    code = 0
    for ident in arguments:
        found = [s for s in containers("sandboxes") if s["id"].startswith(ident)]
        if len(found) != 1:
            code = fail(f"{verb} sandbox {ident}: rpc error: code = NotFound desc = not found")
            continue
        answer = ask({"op": verb, "id": found[0]["id"]})
        if "error" in answer:
            code = fail(f"{verb} sandbox {ident}: {answer['error']}")
        else:
            print(f"{'Stopped' if verb == 'stopp' else 'Removed'} sandbox {ident}")
    return code


def each(options: dict[str, str], arguments: list[str], verb: str) -> int:
    """`stop` and `rm` of each container named; crictl's default is no grace at all."""
    if not arguments:
        return fail("ID cannot be empty")
    code = 0
    for ident in arguments:
        found = [c for c in containers() if c["id"].startswith(ident)]
        if len(found) != 1:
            code = fail(
                f"rpc error: code = NotFound desc = an error occurred when try to find container {ident!r}: not found"
            )
            continue
        stop = {"op": "stop", "id": found[0]["id"], "grace": float(options.get("timeout", "0")), "wait": True}
        answer: Json = {}
        if verb == "stop" or "force" in options:
            answer = ask(stop)
        if verb == "rm" and "error" not in answer:
            answer = ask({"op": "remove", "id": found[0]["id"]})
        if "error" in answer:
            code = fail(f"{verb} container {ident}: {answer['error']}")
        else:
            print(ident)
    return code


def logs(options: dict[str, str], arguments: list[str]) -> int:
    """The container's log: on standard error, for what the lab's containers run logs there, as etcd does."""
    for c in containers():
        if arguments and c["id"].startswith(arguments[0]):
            with open(c["logPath"], errors="replace") as file:
                lines = file.readlines()
            count = int(options.get("tail", "-1"))
            sys.stderr.writelines(lines[-count:] if count > 0 else lines)
            return 0
    return fail(f"rpc error: code = NotFound desc = container {arguments[:1]} not found")


def inspect(_: dict[str, str], arguments: list[str]) -> int:
    """One container in full."""
    for c in containers():
        if arguments and c["id"].startswith(arguments[0]):
            status = {key: c[key] for key in SHOWN if key != "podSandboxId"}
            status |= {"exitCode": c["exitCode"], "finishedAt": c["finishedAt"], "logPath": c["logPath"]}
            reason = "Completed" if c["exitCode"] == 0 else "Error"
            status |= {"reason": reason if c["state"] == EXITED else "", "message": ""}
            return show({"status": status, "info": {"pid": c["pid"], "sandboxID": c["podSandboxId"]}})
    return fail(f"rpc error: code = NotFound desc = container {arguments[:1]} not found")


def execute(arguments: list[str]) -> int:
    """Run a program of a container, which here are the lab's own: a host's PATH need not have them."""
    if any(c["id"].startswith(arguments[0]) and c["state"] == RUNNING for c in containers()):
        os.execvpe(arguments[1], arguments[1:], {**os.environ, "PATH": PROGRAMS})  # noqa: S606 - it is meant to
    return fail(f'rpc error: code = NotFound desc = an error occurred when try to find container "{arguments[0]}"')


def version(*_: object) -> int:
    """The runtime's version."""
    print("Version:  0.1.0\nRuntimeName:  runbook-lab\nRuntimeVersion:  0\nRuntimeApiVersion:  v1")
    return 0


VERBS = {"ps": ps, "pods": pods, "images": images, "logs": logs, "inspect": inspect, "version": version}
NAMES = {
    "-a": "all",
    "-q": "quiet",
    "-l": "latest",
    "-o": "output",
    "-r": "runtime-endpoint",
    "-t": "timeout",
    "-p": "pod",
}


def main(argv: list[str]) -> int:
    """Run one command."""
    if argv[:1] == ["exec"] and len(argv) > 2:
        return execute(argv[1:])
    try:
        before, rest = getopt.getopt(argv, SHORT, LONG)
        verb = rest[0] if rest else ""
        # After the verb, short flags may mean other things: `rm -f`.
        pairs, arguments = getopt.gnu_getopt(rest[1:], SHORT, LONG)
    except getopt.GetoptError as error:
        return fail(str(error))
    names = {**NAMES, "-f": "force", "-i": "image-endpoint"}
    options: dict[str, str] = {}
    for flag, value in [*before, *pairs]:
        name = names.get(flag, flag.removeprefix("--"))
        options[name] = f"{options[name]},{value}" if name == "label" and name in options else value
    try:
        if verb in ("stopp", "rmp"):
            return each_sandbox(arguments, verb)
        if verb in ("stop", "rm"):
            return each(options, arguments, verb)
        if verb in VERBS:
            return VERBS[verb](options, arguments)
    except PermissionError as error:
        return fail(f"connect: permission denied: {error.filename}")
    return fail(f"the lab's crictl knows no command {verb!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
