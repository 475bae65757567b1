"""The live view on a terminal: steps down, hosts across, a mark per cell, the clocks, the last lines."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from runbook.board import Board, Mark, Row
from runbook.progress import ending
from runbook.tables import duration, printable

if TYPE_CHECKING:
    from runbook.errors import RunbookError
    from runbook.journal import Line
    from runbook.plan import Plan
    from runbook.replay import Replay
    from runbook.step import Binding, Command, Result, Step

STYLES = {
    Mark.NONE: "",
    Mark.WAITING: "dim",
    Mark.ACTING: "bold yellow",
    Mark.DONE: "green",
    Mark.NO: "bold red",
    Mark.UNKNOWN: "bold magenta",
    Mark.UNDONE: "cyan",
}
PER_SECOND = 8
BESIDE = 20
"""What the number, the time and the gaps take."""
TITLE = 34
"""The narrowest column for the titles; where the hosts leave less, they are counted instead of listed."""


class Live:
    """The listener. Whatever a host said is shown as plain text, without control characters or markup."""

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        self.console = console or Console(file=stream)
        self.board: Board | None = None
        self.run, self.end = "", ""
        self.began = datetime.now(UTC)
        self.last: deque[str] = deque(maxlen=12)
        self._mutex = threading.RLock()
        self._live: RichLive | None = None

    def start(
        self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = (), bound: Binding | None = None
    ) -> None:
        """Begin to draw, at most eight times a second."""
        self.board, self.run, self.began = Board(plan, steps, past, bound), run, datetime.now(UTC)
        with contextlib.suppress(Exception):
            self._live = RichLive(
                console=self.console,
                get_renderable=self.view,
                refresh_per_second=PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def __call__(self, line: Line) -> None:
        """The board takes it; the next drawing shows it."""
        with self._mutex, contextlib.suppress(Exception):
            self.last.extend(self.board.take(line) if self.board else ())

    def answered(self, host: str, command: Command, result: Result) -> None:
        """The board takes it: it is what a wait waits for."""
        with self._mutex, contextlib.suppress(Exception):
            if self.board:
                self.board.answered(host, command, result)

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """The last drawing stays."""
        with self._mutex:
            self.end = ending(error, past, (datetime.now(UTC) - self.began).total_seconds())
        if self._live:
            with contextlib.suppress(Exception):
                self._live.vertical_overflow = "visible"
                self._live.stop()

    def view(self) -> RenderableType:
        """What is seen now; it never raises."""
        try:
            with self._mutex:
                return self._view(self.board) if self.board else Text("")
        except Exception as error:
            return Text(f"the view failed ({type(error).__name__}); the run goes on")

    def _view(self, board: Board) -> RenderableType:
        table = self._table(board)
        room = max(2, self.console.size.height - table.row_count - 5)
        last = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in list(self.last)[-room:]]
        return Group(table, Text(), self._clocks(board), *last)

    def _table(self, board: Board) -> Table:
        widest = sum(max(len(h), 1) + 2 for h in board.hosts)
        listed = self.console.size.width - widest - BESIDE >= TITLE
        table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
        table.add_column("", justify="right", no_wrap=True)
        room = self.console.size.width - BESIDE - (widest if listed else 20)
        table.add_column(Text(printable(self.run)), no_wrap=True, overflow="ellipsis", max_width=max(10, room))
        for host in board.hosts if listed else ["hosts"]:
            table.add_column(Text(printable(host)), justify="center", no_wrap=True, min_width=len(host))
        table.add_column("time", justify="right", no_wrap=True, min_width=8)
        for row in board.rows.values():
            cells = self._cells(row, board.hosts) if listed else [_counted(row)]
            style = "bold" if row.state in ("ACTING", "UNDOING") else ""
            table.add_row(str(row.number), Text(row.step.title(), style=style), *cells, Text(self._time(row)))
        return table

    @staticmethod
    def _cells(row: Row, hosts: Sequence[str]) -> list[Text]:
        marks = [row.marks.get(host, Mark.NONE) for host in hosts]
        return [Text(str(mark), style=STYLES[mark]) for mark in marks]

    @staticmethod
    def _time(row: Row) -> str:
        if row.began is None:
            return ""
        return duration(((row.ended or datetime.now(UTC)) - row.began).total_seconds())

    def _clocks(self, board: Board) -> Text:
        past = board.past
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{past.state}  ", style="bold")
        text.append(f"elapsed {duration((datetime.now(UTC) - self.began).total_seconds())}  ")
        if past.outages:
            known = ", as far as this machine knows" if past.in_outage and past.outdated else ""
            style = "green" if not past.in_outage else "" if known else "bold red"
            text.append(f"outage {duration(past.outage_seconds())}{known}  ", style=style)
        waiting = printable(board.waiting_for())
        if self.end:
            text = Text(f"ended: {self.end}", style="bold")
        elif waiting:
            text.append(f"waiting for {waiting}", style="dim")
        return text


def _counted(row: Row) -> Text:
    """How many hosts have each mark, where there is no room for a column a host."""
    text = Text()
    for mark, count in Counter(row.marks.values()).items():
        text.append(f"{mark}{count} ", style=STYLES[mark])
    return text
