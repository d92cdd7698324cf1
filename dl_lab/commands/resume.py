"""dl-lab resume: continue a stopped run, or a finished one with more epochs.

A run that was interrupted or killed continues from its last checkpoint, bit for bit. A finished run becomes longer with
trainer.max_epochs=N or trainer.max_steps=N: the result is that of a run with N from the start.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from dl_lab import configs
from dl_lab.jobs.changes import refuse_changes
from dl_lab.jobs.longer import lengthen
from dl_lab.jobs.one import perform, set_threads
from dl_lab.runs.claims import claimed, refuse_busy
from dl_lab.runs.files import read_json
from dl_lab.runs.find import find_run, state_of
from dl_lab.runs.machine import is_several
from dl_lab.runs.recorder import Run
from dl_lab.show.options import Parser, add_outputs
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab resume` and return the exit status."""
    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    if os.environ.get("RANK", "0") != "0":  # rank 0 holds the folder for all
        return resume(folder, options)
    with claimed(folder):
        return resume(folder, options)


def resume(folder: Path, options: argparse.Namespace) -> int:
    """Continue a run in its folder, which this process holds."""
    if state_of(folder) == "done" and not options.overrides:
        if os.environ.get("RANK", "0") == "0":
            print(f"{folder} is done: nothing is left to do. Its result:  dl-lab compare {folder}")
        return 0
    config = configs.read_config(folder)
    refuse_changes(folder, config, "resumed", options.mixed_code, shipped=True)
    choices = (read_json(folder / "env.json") or {}).get("choices", {})
    looks = 0
    if options.overrides:
        if is_several():
            raise UserError("A run is made longer in one process: start it without torchrun.")
        refuse_busy(folder)
        looks = (read_json(folder / "summary.json") or {}).get("test_looks", 0)
        config = lengthen(folder, config, options.overrides)
    if is_several():
        from dl_lab.jobs import several

        if os.environ["RANK"] == "0":  # the other ranks may see that rank 0 runs it already
            refuse_busy(folder)
        several.resume(folder, config, choices)
        return 0
    refuse_busy(folder)
    set_threads(config)
    run = Run.reopen(folder, config, configs.build_logger(config))
    run.summary = {"earlier_test_looks": looks} if looks else {}
    if not (folder / "checkpoints").exists():  # the run begins again, in the same folder
        run.cut_back({})
    perform(run, choices)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab resume", description=summary, epilog=more)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="trainer.max_epochs=N or trainer.max_steps=N")
    parser.add_argument("--mixed-code", action="store_true", help="continue although the code changed")
    add_outputs(parser)
    return parser.parse_intermixed_args(list(argv))
