"""Plan a sweep from what a command line asks for: compose every job, identify it, and find the sweep's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import BaseFileLock

from dl_lab import configs
from dl_lab.configs import identity
from dl_lab.configs.compose import UnknownKeyError
from dl_lab.sweeps import conditional, continuation, families, plan
from dl_lab.sweeps.grid import Grid
from dl_lab.sweeps.options import SweepOptions

MOST_NAMED = 3  # jobs, and spellings of a job, that a note names


@dataclass(frozen=True)
class Request:
    """The jobs asked for, as overrides.

    Attributes:
        fixed: The overrides of every job.
        jobs: The further overrides of each job.
        notes: What the plan on the screen must say, one sentence each.
        first: The first job, composed.
    """

    fixed: list[str]
    jobs: list[list[str]]
    notes: list[str]
    first: configs.Composed

    @property
    def words(self) -> list[list[str]]:
        """All overrides of each job."""
        return [[*self.fixed, *job] for job in self.jobs]


def make_request(composer: configs.Composer, expanded: Grid) -> Request:
    """Request the jobs of a grid, and compose the first one.

    Args:
        composer: Composes the job.
        expanded: The grid.

    Raises:
        ConfigError: The grid has no job, or the first one cannot be composed.
    """
    jobs = expanded.jobs()
    try:
        first = composer.compose([*expanded.fixed, *jobs[0]])
    except UnknownKeyError as error:
        return _request_conditional(composer, expanded.fixed, jobs, expanded.notes, error)
    return Request(expanded.fixed, jobs, expanded.notes, first)


def _request_conditional(
    composer: configs.Composer,
    fixed: list[str],
    jobs: list[list[str]],
    notes: list[str],
    error: UnknownKeyError,
) -> Request:
    """Request the same jobs, each without the keys that only the options of other jobs have."""
    fixed, jobs, more = conditional.divide(composer, fixed, jobs, error)
    return Request(fixed, jobs, [*notes, *more], composer.compose([*fixed, *jobs[0]]))


@dataclass(frozen=True)
class Planned:
    """A sweep as it is asked for.

    Attributes:
        sweep: Its jobs and its folder.
        is_there: The folder holds an earlier sweep of the same command.
        identifier: Gives the jobs their ids.
    """

    sweep: plan.Sweep
    is_there: bool
    identifier: identity.Identifier

    def look_again(self, options: SweepOptions) -> Planned:
        """Look for the earlier sweep once more, now that the folder is locked.

        Another process may have written or even finished it between `make_plan` and the lock.

        Args:
            options: What the command line asks for.
        """
        return replace(self, is_there=holds_sweep(self.sweep.folder, options))


def make_plan(composer: configs.Composer, options: SweepOptions, expanded: Grid, asked: Request) -> Planned:
    """Compose every job, and find the folder of the sweep: a new one, or that of the same command before.

    Args:
        composer: Composes the jobs.
        options: What the command line asks for.
        expanded: The grid.
        asked: The jobs of the grid.

    Raises:
        UserError: A job cannot be composed, or the folder cannot be made.
    """
    groups = composer.group_names()
    try:
        composed = families.compose_all(composer.compose, groups, asked.words, asked.first)
    except UnknownKeyError as error:
        asked = _request_conditional(composer, asked.fixed, asked.jobs, asked.notes, error)
        composed = families.compose_all(composer.compose, groups, asked.words, asked.first)
    refuse_unread(composed)
    identifier = identity.Identifier()
    jobs = []
    for overrides, of_job in zip(asked.jobs, composed, strict=True):
        jobs.append(_make_job(identifier, len(jobs), overrides, of_job))
    jobs, respelt, notes = drop_repeated(jobs)
    key = plan.sweep_key([*expanded.fixed, *options.sweep_files], expanded.keys())
    outputs = Path(composed[0].config["paths"]["output_dir"])
    place = find_place(options, expanded.folder, key, outputs, [job.id for job in jobs])
    sweep = plan.Sweep(place.folder, key, options.command, identifier.code, jobs, plan.of_jobs(asked.fixed))
    sweep.held = place.lock
    sweep.replicates = expanded.replicates
    sweep.remarks = [*asked.notes, *notes]
    if options.extend and not place.is_there:
        sweep.remarks.append("No earlier sweep has these fixed words and varies these keys: --extend starts a new one.")
    sweep.respelt = respelt
    return Planned(sweep, place.is_there, identifier)


def merge_known(composer: configs.Composer, planned: Planned, extend: bool, mixed_code: bool) -> plan.Sweep:
    """Merge the planned sweep with the earlier sweep in its folder (see `continuation.merge`).

    The caller holds the folder's lock, or the sweep that another process runs there.

    Args:
        composer: Composes the jobs that another terminal added.
        planned: The sweep as it is asked for.
        extend: New jobs may be added.
        mixed_code: The code may have changed.

    Raises:
        UserError: The grid changed without `extend`, or the code or the data changed.
    """
    sweep = planned.sweep
    known = continuation.read_known(sweep.folder)
    jobs = list(sweep.jobs)
    for words in continuation.words_of_added(known, jobs):
        composed = composer.compose([*sweep.fixed, *words])
        jobs.append(_make_job(planned.identifier, len(jobs), words, composed))
    return continuation.merge(replace(sweep, jobs=jobs), known, extend, mixed_code)


def _make_job(
    identifier: identity.Identifier, number: int, overrides: list[str], composed: configs.Composed
) -> plan.Job:
    known = identifier.identify(composed.config)
    return plan.Job(
        number,
        known.id,
        overrides,
        composed.config,
        composed.choices,
        data=known.data,
        own=known.own,
        facts=known.facts,
    )


def refuse_unread(composed: Sequence[configs.Composed]) -> None:
    """Refuse a key of the command line that no job of the sweep reads.

    Args:
        composed: The jobs.

    Raises:
        ConfigError: There is such a key.
    """
    in_all = set(composed[0].unread).intersection(*(of_job.unread for of_job in composed))
    configs.refuse_unread([key for key in composed[0].unread if key in in_all])


def drop_repeated(jobs: list[plan.Job]) -> tuple[list[plan.Job], list[plan.Job], list[str]]:
    """Drop the jobs that repeat an earlier one: `optimizer.lr=0.1,1e-1` is one job.

    Args:
        jobs: The jobs. Those of equal id give the same result.

    Returns:
        The other jobs, numbered anew; the repetitions, which have no id and numbers below 0, because they are checked
        but do not run; and a note about them.
    """
    alike: dict[str, list[plan.Job]] = {}
    for job in jobs:
        alike.setdefault(job.id, []).append(job)
    kept = [replace(same[0], number=number) for number, same in enumerate(alike.values())]
    repeated = [same for same in alike.values() if len(same) > 1]
    if not repeated:
        return kept, [], []
    others = [job for same in repeated for job in same[1:]]
    respelt = [replace(job, number=-1 - i, id="") for i, job in enumerate(others)]
    named = []
    for same in repeated[:MOST_NAMED]:
        spellings = list(dict.fromkeys(" ".join(job.overrides) for job in same))
        times = f" ({len(same)} times)" if len(spellings) == 1 else ""
        named.append(" = ".join(spellings[:MOST_NAMED]) + times)
    if len(repeated) > MOST_NAMED:
        named.append(f"and {len(repeated) - MOST_NAMED} more")
    return kept, respelt, [f"Jobs that give the same result run once: {'; '.join(named)}."]


@dataclass(frozen=True)
class Place:
    """The folder of a sweep.

    Attributes:
        folder: The folder.
        is_there: It holds an earlier sweep of the same command.
        lock: The lock of a new folder, which this process holds.
    """

    folder: Path
    is_there: bool
    lock: BaseFileLock | None = None


def find_place(options: SweepOptions, explicit: str | None, key: str, outputs: Path, ids: Sequence[str] = ()) -> Place:
    """Find the folder of a sweep, or make a new one and lock it.

    Where another process starts the same sweep at this moment, the folder is that of the other process.

    Args:
        options: What the command line asks for.
        explicit: `hydra.sweep.dir` of the command line.
        key: The sweep's key (`plan.sweep_key`).
        outputs: The folder of all runs.
        ids: The ids of the jobs asked for.

    Raises:
        UserError: The folder cannot be made.
    """
    if explicit:
        return Place(Path(explicit), holds_sweep(Path(explicit), options))
    root = outputs / "sweeps"
    if options.dry_run or options.join:  # they make no folder
        old = continuation.find_sweep(root, key, ids)
        if old is not None and holds_sweep(old, options):
            return Place(old, True)
        return Place(root / f"(new)_{key}", False)
    with plan.look_alone(root):
        old = continuation.find_sweep(root, key, ids)
        if old is not None and holds_sweep(old, options):
            return Place(old, True)
        starting = continuation.find_starting(root, key)
        if starting is not None and not options.new:
            return Place(starting, False)
        folder = plan.new_folder(root, key)
        return Place(folder, False, plan.hold(folder))


def holds_sweep(folder: Path, options: SweepOptions) -> bool:
    """Whether a folder holds an earlier sweep that the command line continues."""
    return (folder / "sweep.yaml").exists() and not options.new
