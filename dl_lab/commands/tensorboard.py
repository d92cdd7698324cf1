"""dl-lab tensorboard: open TensorBoard on all runs, on one run or on one sweep."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dl_lab.run import find_run
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    command = tensorboard_command(argv)
    sys.stdout.flush()
    os.execv(command[0], command)


def tensorboard_command(argv: Sequence[str]) -> list[str]:
    """The command line that serves the chosen folder; words it does not know are TensorBoard's own."""
    parser = argparse.ArgumentParser(prog="dl-lab tensorboard", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN|SWEEP",
        help="a run's id or folder, a sweep's folder, last; none: all runs",
    )
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    parser.epilog = "Other flags go to TensorBoard, e.g. --port 6007 --bind_all (a run's name comes before them)."
    options, own = parser.parse_known_args(list(argv))
    return [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(log_folder(options.run, options.outputs)),
        *own,
    ]


def log_folder(name: str | None, outputs: Path) -> Path:
    """Raises UserError where there is nothing to show."""
    if name is None:
        if not outputs.is_dir():
            raise UserError(f"There are no runs under {outputs} yet. Make one:  dl-lab")
        return outputs
    return Path(name) if Path(name).is_dir() else find_run(name, outputs)
