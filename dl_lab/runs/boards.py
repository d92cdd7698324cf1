"""Several loggers at once, and a logger that writes a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from dl_lab.runs.board import Board, HParam
from dl_lab.types import Metrics, UserError


class Boards(Board):
    """Hands every record to several loggers, in the order of their names in the config.

    Args:
        boards: The loggers by name. Null takes one away.
    """

    def __init__(self, boards: Mapping[str, Board | None]) -> None:
        self.boards = {name: board for name, board in boards.items() if board is not None}

    def another(self) -> Boards:
        """Return new loggers with the same settings."""
        return Boards({name: board.another() for name, board in self.boards.items()})

    def start(self, folder: Path, hparams: Mapping[str, HParam], config_text: str) -> None:
        """Start each logger."""
        for board in self.boards.values():
            board.start(folder, hparams, config_text)

    def scalars(self, values: Metrics, step: int) -> None:
        """Show values by name at a step."""
        for board in self.boards.values():
            board.scalars(values, step)

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """Show the values of one scalar at many steps."""
        for board in self.boards.values():
            board.series(name, values)

    def image(self, name: str, png: bytes, step: int) -> None:
        """Show a PNG."""
        for board in self.boards.values():
            board.image(name, png, step)

    def audio(self, name: str, wav: bytes, sample_rate: int, n_samples: int, step: int) -> None:
        """Play a WAV."""
        for board in self.boards.values():
            board.audio(name, wav, sample_rate, n_samples, step)

    def text(self, name: str, markdown: str, step: int = 0) -> None:
        """Show a text in Markdown."""
        for board in self.boards.values():
            board.text(name, markdown, step)

    def embedding(self, name: str) -> None:
        """Show the vectors and labels that `Run.embedding` has written."""
        for board in self.boards.values():
            board.embedding(name)

    def flush(self) -> None:
        """Write everything so far to the disk."""
        for board in self.boards.values():
            board.flush()

    def finish(self, ok: bool) -> None:
        """End the session of each logger."""
        for board in self.boards.values():
            board.finish(ok)


class CsvBoard(Board):
    """Writes every scalar as a row of scalars.csv in the run's folder: step, name, value.

    A resumed run cuts the file back to its checkpoint, as it does with every file of records.
    """

    FILE = "scalars.csv"

    def __init__(self) -> None:
        self._path: Path | None = None

    def start(self, folder: Path, hparams: Mapping[str, HParam], config_text: str) -> None:
        """Remember the file. The first row creates it."""
        self._path = folder / self.FILE

    def scalars(self, values: Metrics, step: int) -> None:
        """Write one row for each value."""
        self._append([(step, name, value) for name, value in values.items()])

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """Write one row for each step."""
        self._append([(step, name, value) for step, value in values])

    def _append(self, rows: Sequence[tuple[int, str, float]]) -> None:
        if self._path is None or not rows:
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        try:
            if not self._path.exists():
                writer.writerow(("step", "name", "value"))
            writer.writerows(rows)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise UserError(f"Cannot write {self._path}: {error.strerror}.") from error
