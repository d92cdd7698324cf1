"""The protocol of a logger, which shows a run to its user, and the logger that shows nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from dl_lab.runs.protocols import defines, refuse_other_arguments
from dl_lab.types import ConfigError, Metrics, UserError

HParam: TypeAlias = bool | int | float | str


class Board(Protocol):
    """A logger: TensorBoard, a CSV file, MLflow, Weights & Biases.

    A logger of one's own takes this protocol as its base and defines the methods that it needs. The others do nothing.
    """

    def another(self) -> Board:
        """Return a new logger with the same settings, for a part of the run in a folder of its own.

        Raises:
            UserError: A logger has settings and does not say here how another one gets them.
        """
        try:
            return type(self)()
        except TypeError as error:
            name = type(self).__name__
            raise UserError(
                f"This run has parts, each with a logger of its own, and {name}() needs settings. "
                f"Write {name}.another, which returns a new {name} with the same settings."
            ) from error

    def start(self, folder: Path, hparams: Mapping[str, HParam], config_text: str) -> None:
        """Begin, before any record.

        Args:
            folder: The folder of the run.
            hparams: The run's hyperparameters by name.
            config_text: The run's config as YAML.
        """

    def scalars(self, values: Metrics, step: int) -> None:
        """Show values by name at a step."""

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """Show the values of one scalar at many steps: (step, value)."""

    def image(self, name: str, png: bytes, step: int) -> None:
        """Show a PNG."""

    def audio(self, name: str, wav: bytes, sample_rate: int, n_samples: int, step: int) -> None:
        """Play a WAV."""

    def text(self, name: str, markdown: str, step: int = 0) -> None:
        """Show a text in Markdown."""

    def embedding(self, name: str) -> None:
        """Show the vectors and labels that `Run.embedding` has written."""

    def flush(self) -> None:
        """Write everything so far to the disk."""

    def finish(self, ok: bool) -> None:
        """End the session.

        Args:
            ok: Whether the run is done.
        """


class NoBoard(Board):
    """The logger of `logger=none`, which shows nothing."""


METHODS = ("start", "scalars", "series", "image", "audio", "text", "embedding", "flush", "finish")


def refuse_wrong_board(name: str, board: object) -> None:
    """Check a logger of the user's own before the run.

    Args:
        name: Its place in the config, for the message.
        board: The logger.

    Raises:
        ConfigError: It lacks a method, takes other arguments, or shows nothing at all.
    """
    if type(board).__module__.startswith("dl_lab.runs."):
        return
    kind = type(board).__name__
    for method in (*METHODS, "another"):
        if not callable(getattr(board, method, None)):
            raise ConfigError(
                f"{name}: {kind} has no method {method}. "
                f"Take dl_lab.runs.board.Board as the base of {kind}: its methods do nothing."
            )
        refuse_other_arguments(name, board, method, Board)
    if not any(defines(board, method, Board) for method in METHODS):
        raise ConfigError(f"{name}: {kind} shows nothing: it has none of the methods {', '.join(METHODS)}.")
