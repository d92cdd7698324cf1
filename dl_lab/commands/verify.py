"""dl-lab verify: execute a run again: does it give the same bits?

Compares the fingerprint of the data, the loss of every update, fingerprints of the weights, every record and the final
weights; where they differ, names the first step and tensor and the likely cause. Exit status: 0 bit-equal or equal
within the tolerance, 1 different, 2 the run's config does not fit this version of dl-lab.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import configs
from dl_lab.configs.identity import code_fingerprint
from dl_lab.jobs.changes import refuse_changes
from dl_lab.jobs.procedure import build_procedure
from dl_lab.runs.board import NoBoard
from dl_lab.runs.environment import describe_devices, describe_environment
from dl_lab.runs.files import as_mapping, read_json, read_losses
from dl_lab.runs.find import find_run, state_of
from dl_lab.runs.recorder import Run
from dl_lab.show import tables, verification
from dl_lab.show.options import Parser, add_outputs
from dl_lab.show.verification import Difference
from dl_lab.types import ConfigError, UserError, count
from dl_lab.version import __version__


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab verify` and return the exit status."""
    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    steps = _steps(folder, options.steps)
    recorded = read_json(folder / "env.json") or {}
    config = _config(folder, recorded)
    refuse_changes(folder, config, "verified", options.mixed_code, shipped=False)
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
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab verify", description=summary, epilog=details)
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
        "--mixed-code", action="store_true", help="verify although your own code changed: does it still give the same?"
    )
    add_outputs(parser)
    return parser.parse_args(list(argv))


def _steps(folder: Path, asked: int | None) -> int | None:
    """Return the number of updates to execute; None for the whole run.

    Raises:
        UserError: The run does not hold the records to compare with.
    """
    state = state_of(folder)
    n_recorded = len(read_losses(folder))
    if asked is None:
        if state != "done":
            hint = f" Its first updates can be verified: --steps {n_recorded}." if n_recorded else ""
            raise UserError(f"{folder} is {state}, not done: there is no result to verify.{hint}")
        return None
    if asked < 1:
        raise UserError(f"--steps {asked} is not at least 1.")
    if not n_recorded:
        raise UserError(f"{folder} has no record of its updates (losses.f64): verify it whole, without --steps.")
    return min(asked, n_recorded)


def _config(folder: Path, recorded: Mapping[str, object]) -> dict[str, Any]:
    try:
        return configs.read_config(folder)
    except ConfigError as error:
        version = recorded.get("dl_lab", "unknown")
        raise ConfigError(
            f"The config of {folder} (dl-lab {version}) does not fit this dl-lab ({__version__}). {error}"
        ) from error


# -- executing again ----------------------------------------------------------------------------------------------


def execute(config: Mapping[str, Any], folder: Path, recorded: Mapping[str, object], steps: int | None) -> Run:
    """Execute a run's config into a new folder, with the recorded number of threads.

    Args:
        config: The run's config.
        folder: The new folder.
        recorded: The content of the run's env.json.
        steps: Only the first updates. None: the whole run.

    Returns:
        The new run. Its status holds the fingerprint of the data.

    Raises:
        UserError: `steps` is given, and the run does not train in updates.
    """
    import torch

    from dl_lab.training.replay import Enough, FirstUpdates
    from dl_lab.training.seeding import seed_everything

    threads = config["threads"] or as_mapping(recorded.get("devices")).get("threads")
    if threads:
        torch.set_num_threads(threads)
    run = Run.create(folder, {}, dict(config), NoBoard(), {})
    seed_everything(config["seed"], config["deterministic"])
    procedure = build_procedure(config)
    run.set_status("running", **procedure.describe())
    if steps is None:
        run.finish(procedure(run))
        return run
    training = procedure.training()
    if training is None:
        raise UserError("This experiment does not train in updates: verify the whole run, without --steps.")
    learner = FirstUpdates(training.learner, steps)
    training.learner = learner
    with contextlib.suppress(Enough):
        procedure(run)
    (folder / "losses.f64").unlink(missing_ok=True)
    run.losses(learner.losses())
    return run


def _repeat(
    config: Mapping[str, Any], scratch: Path, recorded: Mapping[str, object], difference: Difference, repeated: Run
) -> bool | None:
    """Execute the updates up to the first difference once more, and compare the two new executions.

    Returns:
        Whether they agree; None where this cannot be told.
    """
    if difference.first_step is None and not read_losses(repeated.folder):
        return None
    n_steps = difference.first_step or len(read_losses(repeated.folder))
    try:
        again = execute(config, scratch / "again", recorded, n_steps)
    except UserError:
        return None
    return not verification.compare(repeated.folder, again.folder, n_steps).places


def explain(
    folder: Path, recorded: Mapping[str, object], difference: Difference, repeated: Run, again: bool | None
) -> list[str]:
    """Return the likely causes of a difference, the likeliest first."""
    now = {**describe_environment([]), "devices": describe_devices(), "code": code_fingerprint()}
    changes = verification.environment_changes(recorded, now)
    data = (verification.read_data_fingerprint(folder), verification.read_data_fingerprint(repeated.folder))
    before = read_json(folder / "summary.json")
    after = read_json(repeated.folder / "summary.json")
    accumulation = (1, 1)
    if before and after:
        accumulation = (before.get("accumulation", 1), after.get("accumulation", 1))
    return verification.causes(difference, changes, data, again, accumulation)


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
    """Return the answer for the terminal: the verdict, the places that differ, the causes."""
    width = tables.terminal_width()
    what = f"its first {count(steps, 'update')}" if steps else "the whole run"
    lines = tables.wrap(f"{folder}: {what} executed again in {seconds:.1f} s.", width, "  ")
    compared = ", ".join(difference.compared)
    if verdict == "bit-equal":
        return [*lines, *tables.wrap(f"Bit-equal: {compared}.", width, "  ")]
    if verdict == "different":
        lines += tables.wrap(f"Different. Compared: {compared}.", width, "  ")
    else:
        most = f"the largest relative difference is {difference.relative:.2g}, the tolerance {tolerance:g}"
        lines += tables.wrap(f"Equal within the tolerance: {most}. Compared: {compared}.", width, "  ")
    size = max(map(len, difference.places))
    for name, words in difference.places.items():
        lines += tables.wrap(f"  {name:<{size}}  {words}", width, " " * (size + 4))
    lines.append("Likely cause:" if len(likely) == 1 else "Likely causes, the likeliest first:")
    for cause in likely:
        lines += tables.wrap(f"  {cause}.", width, "    ")
    return lines
