"""dl-lab tensorboard: open TensorBoard on all runs, on one run or on one sweep."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dl_lab import keys
from dl_lab.runs.files import read_json
from dl_lab.runs.find import is_run, no_runs, state_of
from dl_lab.show import tables
from dl_lab.show.options import Parser, add_outputs
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab tensorboard` and return the exit status."""
    command = tensorboard_command(argv)
    sys.stdout.flush()
    os.execv(command[0], command)


def tensorboard_command(argv: Sequence[str]) -> list[str]:
    """Return the command that serves the chosen folder. Flags that dl-lab does not know go to TensorBoard."""
    parser = Parser(prog="dl-lab tensorboard", description=__doc__)
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN|SWEEP",
        help="a run's id or folder, a sweep's folder, last; none: all runs",
    )
    add_outputs(parser)
    parser.epilog = "Other flags go to TensorBoard, e.g. --port 6007 --bind_all."
    ours, theirs = _divide(argv)
    options = parser.parse_args(ours)
    folder = log_folder(options.run, options.outputs)
    links = link_with_names(folder, options.outputs)
    return [sys.executable, "-m", "tensorboard.main", "--logdir", str(links), *theirs]


def log_folder(name: str | None, outputs: Path) -> Path:
    """Find the folder to show: a run's, a sweep's, or that of all runs.

    Args:
        name: The run's or the sweep's id or folder. None: all runs.
        outputs: The folder of the runs.

    Raises:
        UserError: There is nothing to show.
    """
    if name is None:
        if not outputs.is_dir():
            raise UserError(no_runs(outputs))
        return outputs
    if Path(name).is_dir():
        return Path(name)
    from dl_lab.sweeps.results import outcome

    return outcome.find_sweep_or_run(name, outputs)


LONGEST_NAME = 120


def link_with_names(folder: Path, outputs: Path) -> Path:
    """Make a folder of links to the jobs of a sweep, or to a run, with names that tell them apart: "lr=0.01 seed=1".

    TensorBoard calls a run by its folder. Jobs that have not started yet appear as soon as they have a folder. The
    HParams page of a sweep shows the settings that vary, then the final metrics of validation and test.

    Returns:
        The folder of links; the folder itself, where it is neither a sweep nor a run, or where links cannot be made.
    """
    from dl_lab.sweeps.results import outcome

    settings: dict[str, bool] = {}
    if outcome.is_sweep(folder):
        names, settings = _names_of_jobs(folder)
    elif is_run(folder):
        names = {folder.name: folder}
    else:
        return folder
    links = outputs / LINKS / folder.name
    try:
        shutil.rmtree(links, ignore_errors=True)
        links.mkdir(parents=True)
        for name, target in names.items():
            (links / name).symlink_to(target.absolute(), target_is_directory=True)
        if settings:
            _choose_columns(links, names, settings)
    except OSError:  # the file system has no links, or cannot be written
        return folder
    return links


LINKS = ".tensorboard"


def _choose_columns(links: Path, names: Mapping[str, Path], settings: Mapping[str, bool]) -> None:
    """Choose the columns of the HParams page, by an event file beside the events of a job that is done.

    TensorBoard takes the columns from any run, and a folder with this file alone would be a run without curves. So the
    link to the job's folder becomes a folder of links to its files, with this event file among them.
    """
    from dl_lab.runs import records
    from dl_lab.runs.tensorboard import columns_event

    done = [name for name, target in names.items() if state_of(target) == "done"]
    if not done:
        return
    name = done[0]
    target = names[name]
    metrics = records.in_order((read_json(target / "summary.json") or {}).get("metrics", {}))
    ordered = [metric for metric in metrics if metric.startswith("val/")]
    ordered += [metric for metric in metrics if metric.startswith("test/")]
    monitored = records.read(target).monitored
    ordered.sort(key=lambda metric: metric != monitored)
    (links / name).unlink()
    (links / name).mkdir()
    for path in [*target.glob("events.out.tfevents.*"), *target.glob("projector*")]:
        (links / name / path.name).symlink_to(path.absolute())
    (links / name / "events.out.tfevents.0.columns").write_bytes(columns_event(settings, ordered))


def _is_number(text: str | None) -> bool:
    """Whether a value of the command line is a number, or none."""
    if text is None or text.lower() in ("null", "none"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names_of_jobs(sweep: Path) -> tuple[dict[str, Path], dict[str, bool]]:
    """Return name -> folder for the jobs of a sweep, and key -> whether it holds numbers for the keys that vary.

    The name of a job consists of its settings that vary.
    """
    from dl_lab.sweeps.plan_file import read_plan

    jobs = read_plan(sweep)["jobs"]
    settings = [_settings_of(job["overrides"]) for job in jobs]
    varying = []
    for key in settings[0] if settings else ():
        if len({one.get(key) for one in settings}) > 1:
            varying.append(key)
    titles = tables.short_names(varying)
    names: dict[str, Path] = {}
    for job, one in zip(jobs, settings, strict=True):
        folder = sweep / f"{job['number']}_{job['id']}"
        words = [f"{titles[key]}={one[key]}" for key in varying if key in one]
        name = " ".join(words).replace("/", ":")[:LONGEST_NAME]
        is_free = name and name not in names
        names[name if is_free else folder.name] = folder
    recorded = [key for key in varying if keys.counts(key).hparams != "never"]
    return names, {key: all(_is_number(one.get(key)) for one in settings) for key in recorded}


def _settings_of(overrides: Sequence[str]) -> dict[str, str]:
    settings = {}
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        settings[key] = value
    return settings


OWN_FLAGS = ("--outputs", "--help", "-h")
TAKE_NO_VALUE = ("--bind_all", "--inspect", "--load_fast", "--version_tb")  # flags of TensorBoard that stand alone


def _divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide the words: dl-lab's own, and those for TensorBoard, which are its flags, each with the word after it."""
    ours: list[str] = []
    theirs: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        flag = word.partition("=")[0]
        if not word.startswith("-") or flag in OWN_FLAGS:
            ours.append(word)
            if word == "--outputs" and words:
                ours.append(words.pop(0))
            continue
        theirs.append(word)
        if "=" not in word and word not in TAKE_NO_VALUE and words and not words[0].startswith("-"):
            theirs.append(words.pop(0))
    return ours, theirs
