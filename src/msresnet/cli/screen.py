"""Everything on standard error: what was inferred, progress, one line an epoch; the same lines go to a log file.

Standard output carries data only, and is written by the verbs.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from msresnet.cli.main import Common
from msresnet.files import disk_errors
from msresnet.train.observer import in_words

PIPED_WIDTH = 160
"""Columns where there is no terminal to wrap at: a row stays a line for grep."""


class Screen:
    """Notes and progress for a person; an observer of training.

    Args:
        common: -q shows nothing but errors.
    """

    def __init__(self, common: Common) -> None:
        self.quiet = common.quiet
        self.console = _Console(stderr=True, highlight=False, quiet=common.quiet)
        self.out = _Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
        self.log_path: Path | None = None
        self.before_log: list[str] = []
        self.bar: Progress | None = None
        self.task: Any = None

    def log_to(self, path: Path, fresh: bool) -> None:
        """Copy every line to a file as well, those before included. Raises OSError."""
        if fresh:
            path.write_text("", encoding="utf-8")
        self.log_path = path
        for line in self.before_log:
            self._log(line)

    def announcer(self, path: Path) -> Callable[[str], None]:
        """Says a line; the first one begins the log, since what was refused before it leaves no trace."""

        def announce(line: str) -> None:
            if self.log_path is None:
                with disk_errors(path):
                    self.log_to(path, fresh=False)
            self.stop()
            self.notes([line])

        return announce

    def note(self, text: str, style: str = "") -> None:
        """One line."""
        self.console.print(text, style=style or None, markup=False, soft_wrap=True)
        if self.log_path is None:
            self.before_log.append(text)
        else:
            self._log(text)

    def _log(self, text: str) -> None:
        assert self.log_path is not None
        with disk_errors(self.log_path), self.log_path.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text + "\n")

    def notes(self, texts: list[str]) -> None:
        """Several lines, less prominent."""
        for text in texts:
            self.note(f"· {text}", "dim")

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the progress bar, on a terminal."""
        if not self.console.is_terminal or self.quiet:
            return
        if self.bar is None:
            columns = (
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4f}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("train", total=steps, epoch=epoch + 1, loss=loss)
        self.bar.update(self.task, completed=step, total=steps, epoch=epoch + 1, loss=loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """One line for an epoch."""
        self.stop()
        self.note(in_words(row))

    def stop(self) -> None:
        """Take the progress bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def table(self, table: Table) -> None:
        """A table of data, on standard output."""
        self.out.print(table)

    def columns(self, titles: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str]) -> None:
        """A table without lines, on standard output; columns of words stand left, those of numbers right."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for title in titles:
            left = title in words
            table.add_column(title, justify="left" if left else "right", no_wrap=not left)
        for row in rows:
            table.add_row(*map(escape, row))
        self.table(table)


class _Console(Console):
    """One that leaves it to the command line to say whose reader left."""

    def on_broken_pipe(self) -> None:
        """Fail as a file does; rich would leave without a word, and take the other stream for the broken one."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Bar:
    """Shows the steps of a training, not its epochs: where many trainings follow each other, a line each is enough."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the progress bar."""
        self.screen.step(epoch, step, steps, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """Take it away."""
        self.screen.stop()
