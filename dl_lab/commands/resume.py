"""dl-lab resume: go on with an interrupted or killed run where it stopped."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from dl_lab import config as configs
from dl_lab.commands import is_several, train
from dl_lab.run import Run, find_run, is_alive, read_json, state_of
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    state = state_of(folder)
    if state == "done":
        if os.environ.get("RANK", "0") == "0":
            print(f"{folder} is done: there is nothing to go on with. Its result:  dl-lab compare {folder}")
        return 0
    config = configs.read_config(folder)
    choices = (read_json(folder / "env.json") or {}).get("choices", {})
    if is_several():
        from dl_lab.commands import _together

        if os.environ["RANK"] == "0":  # the others may find that rank 0 runs it already
            refuse_busy(folder, state)
        _together.resume(folder, config, choices)
        return 0
    refuse_busy(folder, state)
    train.set_threads(config)
    run = Run.reopen(folder, config, configs.build(config, "logger"))
    if not (folder / "checkpoints").exists():  # nothing to go on from: begin again, in the same folder
        run.cut_back({})
    train.perform(run, choices)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dl-lab resume", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_args(list(argv))


def refuse_busy(folder: Path, state: str) -> None:
    """Raises UserError for a run whose process is alive: two would write into one folder."""
    status = read_json(folder / "status.json")
    if status is None:
        raise UserError(f"{folder / 'status.json'} is not readable: this run cannot be resumed.")
    if state in ("running", "queued") and "pid" in status and is_alive(status):
        raise UserError(f"{folder} is running (process {status['pid']} on {status['host']}): stop it first.")
