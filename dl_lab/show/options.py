"""The command line of the verbs: a parser whose help has colours, and options that several verbs share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from dl_lab import project
from dl_lab.show.colours import emphasise, paint


class Parser(argparse.ArgumentParser):
    """A parser whose help has bold headings and coloured flags on a terminal. It takes no abbreviated flags."""

    def __init__(self, *args: object, **settings: object) -> None:
        # The type checker cannot see that these are ArgumentParser's own arguments.
        super().__init__(*args, **{"allow_abbrev": False, **settings})  # pyright: ignore[reportArgumentType]
        self.color = False  # Python 3.14 would add its own colours; the help has the same ones under every Python

    def format_help(self) -> str:
        """Return the help, with headings in bold and the names of arguments in colour."""
        return emphasise(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and end with status 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {paint('error', 'red', sys.stderr)}: {message}\n")


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add --outputs, the folder of all runs: the project's, else `outputs`."""
    parser.add_argument(
        "--outputs",
        type=Path,
        default=project.outputs(),
        metavar="DIR",
        help="the folder in which the runs lie (default: outputs)",
    )


def output_file(text: str) -> Path:
    """Return the path of a file to write: the `type` of an argument.

    Raises:
        argparse.ArgumentTypeError: The path is a folder, or lies in one that does not exist. No work has begun yet.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: there is no folder {path.parent}")
    return path
