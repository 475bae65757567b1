"""What all tests need of the process that they run in."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
# A shell that starts a job in the background has it ignore Ctrl-C, which its children inherit; tests send it.
