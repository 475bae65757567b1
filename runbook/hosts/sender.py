"""The sender process: one upload to one host, told on standard input, answered on standard output.

Started by :func:`runbook.hosts.transfer.by_process` as ``python -m runbook.hosts.sender``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict

from runbook.hosts.connection import Link
from runbook.hosts.transfer import Delivery, deliver
from runbook.step import Result


def main() -> None:
    """Deliver, print the result as one line of JSON, and end; at once when the parent is gone."""
    what = Delivery.from_json(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    link = Link(what.target)
    try:
        result = deliver(link, what, what.source(), threading.Event())
    except Exception as error:  # the parent must hear of it, whatever it is
        result = Result(None, err=f"{what.target.label}: the sender process failed: {type(error).__name__}: {error}")
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    sys.stdout.flush()
    link.drop()
    os._exit(0)  # the watching thread sits in read(), and would hold an orderly exit up


if __name__ == "__main__":
    main()
