"""dl-lab verify: execute a run again: does it give the same bits?

Compares the loss of every update, fingerprints of the weights, every record and the final weights; where they differ,
names the first step and tensor and the likely cause. Exit status: 0 bit-equal or equal within the tolerance,
1 different, 2 the run's config does not fit this version of dl-lab.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import config as configs
from dl_lab import tables, verification
from dl_lab.run import NoBoard, Run, describe_devices, describe_environment, find_run, read_json, read_losses, state_of
from dl_lab.sweeps.identity import code_fingerprint
from dl_lab.types import ConfigError, UserError
from dl_lab.verification import Difference


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    steps = _steps(folder, options.steps)
    recorded = read_json(folder / "env.json") or {}
    config = _config(folder, recorded)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="dl-lab-verify-") as scratch:
        repeated = execute(config, Path(scratch) / "repeated", recorded, steps)
        difference = verification.compare(folder, repeated.folder, steps)
        verdict = difference.verdict(options.tolerance)
        seconds = time.perf_counter() - started
        likely = []
        if verdict != "bit-equal":
            again = _repeat(config, Path(scratch), recorded, difference, repeated)
            likely = explain(folder, recorded, difference, repeated, again)
    print("\n".join(answer(folder, difference, verdict, options.tolerance, seconds, likely, steps)))
    return 1 if verdict == "different" else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab verify", description=summary, epilog=details, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("--steps", type=int, metavar="N", help="only the first N updates")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=verification.TOLERANCE,
        metavar="EPS",
        help="largest relative difference that still counts as equal (%(default)g)",
    )
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_args(list(argv))


def _steps(folder: Path, asked: int | None) -> int | None:
    """How many updates to execute. Raises UserError where the run does not hold what is to be compared."""
    state, there = state_of(folder), len(read_losses(folder))
    if asked is None:
        if state != "done":
            hint = f" Its first updates can be verified: --steps {there}." if there else ""
            raise UserError(f"{folder} is {state}, not done: there is no result to verify.{hint}")
        return None
    if asked < 1:
        raise UserError(f"--steps {asked} is not at least 1.")
    if not there:
        raise UserError(f"{folder} has no record of its updates (losses.f64): verify it whole, without --steps.")
    return min(asked, there)


def _config(folder: Path, recorded: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return configs.read_config(folder)
    except ConfigError as error:
        was, now = recorded.get("dl_lab", "unknown"), describe_environment([])["dl_lab"]
        raise ConfigError(f"The config of {folder} (dl-lab {was}) does not fit this dl-lab ({now}). {error}") from error


# -- executing again ----------------------------------------------------------------------------------------------


def execute(config: Mapping[str, Any], folder: Path, recorded: Mapping[str, Any], steps: int | None) -> Run:
    """Execute a run's config into a new folder, with as many threads; returns the run, with the data's fingerprint."""
    import torch

    from dl_lab.training.checkpoints import seed_everything
    from dl_lab.training.replay import Enough, FirstUpdates

    threads = config["threads"] or (recorded.get("devices") or {}).get("threads")
    if threads:
        torch.set_num_threads(threads)
    run = Run.create(folder, {}, dict(config), NoBoard(), {})
    seed_everything(config["seed"], config["deterministic"])
    experiment = configs.build(config, "procedure")
    if hasattr(experiment, "describe"):
        run.set_status("running", **experiment.describe())
    if steps is None:
        run.finish(experiment(run))
        return run
    if not hasattr(experiment, "learner"):
        raise UserError("This experiment does not train in updates: verify it whole, without --steps.")
    learner = experiment.learner = FirstUpdates(experiment.learner, steps)
    with contextlib.suppress(Enough):
        experiment(run)
    (folder / "losses.f64").unlink(missing_ok=True)
    run.losses(learner.losses())
    return run


def _repeat(
    config: Mapping[str, Any], scratch: Path, recorded: Mapping[str, Any], difference: Difference, repeated: Run
) -> bool | None:
    """Whether an execution repeats itself here: the updates up to the first difference, once more."""
    if difference.first_step is None and not read_losses(repeated.folder):
        return None
    n_steps = difference.first_step or len(read_losses(repeated.folder))
    try:
        again = execute(config, scratch / "again", recorded, n_steps)
    except UserError:
        return None
    return not verification.compare(repeated.folder, again.folder, n_steps).places


def explain(
    folder: Path, recorded: Mapping[str, Any], difference: Difference, repeated: Run, again: bool | None
) -> list[str]:
    """The likely causes of a difference."""
    now = {**describe_environment([]), "devices": describe_devices(), "code": code_fingerprint()}
    summaries = [read_json(path / "summary.json") or {} for path in (folder, repeated.folder)]
    data = [
        ((read_json(path / "status.json") or {}).get("dataset") or {}).get("fingerprint", "")
        for path in (folder, repeated.folder)
    ]
    parts = [summary.get("accumulation", 1) for summary in summaries]
    if not all(summaries):
        parts = [1, 1]
    changes = verification.environment_changes(recorded, now)
    return verification.causes(difference, changes, (data[0], data[1]), again, (parts[0], parts[1]))


# -- the answer ---------------------------------------------------------------------------------------------------


def answer(
    folder: Path,
    difference: Difference,
    verdict: str,
    tolerance: float,
    seconds: float,
    likely: Sequence[str],
    steps: int | None,
) -> list[str]:
    """The verdict in words, the places that differ, the causes."""
    width = tables.terminal_width()
    what = f"its first {steps:,} updates" if steps else "the whole run"
    lines = tables.wrapped(f"{folder}: {what} executed again in {seconds:.1f} s.", width, "  ")
    compared = ", ".join(difference.compared)
    if verdict == "bit-equal":
        return [*lines, *tables.wrapped(f"Bit-equal: {compared}.", width, "  ")]
    if verdict == "different":
        lines += tables.wrapped(f"Different. Compared: {compared}.", width, "  ")
    else:
        most = f"the largest relative difference is {difference.relative:.2g}, the tolerance {tolerance:g}"
        lines += tables.wrapped(f"Equal within the tolerance: {most}. Compared: {compared}.", width, "  ")
    size = max(map(len, difference.places))
    for name, words in difference.places.items():
        lines += tables.wrapped(f"  {name:<{size}}  {words}", width, " " * (size + 4))
    lines.append("Likely cause:" if len(likely) == 1 else "Likely causes, the likeliest first:")
    for cause in likely:
        lines += tables.wrapped(f"  {cause}.", width, "    ")
    return lines
