"""Start a sweep from its command line.

This file imports little. The server that will run the jobs starts first and imports torch, which takes longest; this
process imports the rest meanwhile, and composes the jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from dl_lab.runs.machine import is_several
from dl_lab.sweeps.machinery import Machinery
from dl_lab.sweeps.options import parse
from dl_lab.types import ConfigError


def start(argv: Sequence[str]) -> int:
    """Plan, check, write and run the sweep of a command line.

    Args:
        argv: The words of the command line, without the program.

    Returns:
        The exit status.

    Raises:
        UserError: The sweep cannot start.
        Interrupted: The user asked the sweep to stop.
    """
    options = parse(argv)
    if is_several():
        raise ConfigError("A sweep starts its jobs itself: torchrun is for one job on several GPUs.")
    machinery = Machinery()
    if not options.dry_run:
        machinery.start_early()
    try:
        from dl_lab.sweeps.execute import execute

        return execute(options, argv, machinery)
    finally:
        machinery.close()
