"""Add jobs to a sweep that another process runs (`--extend` from another terminal)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from dl_lab import configs
from dl_lab.sweeps import continuation, known, plan, planning, queue
from dl_lab.sweeps.checking import check_jobs
from dl_lab.sweeps.plan_file import Plan, read_frozen
from dl_lab.types import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from dl_lab.sweeps.machinery import Machinery
    from dl_lab.sweeps.options import SweepOptions

WAIT_SECONDS = 60.0  # for a process that takes no more jobs and writes its last results


def add_to_running(
    console: Console,
    composer: configs.Composer,
    options: SweepOptions,
    planned: planning.Planned,
    machinery: Machinery,
    outputs: Path,
) -> bool:
    """Check the new jobs and write them into the queue of the sweep that another process runs.

    Args:
        console: Where the answer is shown.
        composer: Composes the jobs.
        options: What the command line asks for.
        planned: The sweep as it is typed now.
        machinery: Checks the jobs.
        outputs: The folder of all runs.

    Returns:
        False where the other process ended meanwhile: this process holds the sweep's lock now and must run the jobs.

    Raises:
        UserError: The other process has other code, --retry-failed was given, or the other process does not end.
        ConfigError: A new job is wrong; nothing was added.
    """
    folder = planned.sweep.folder
    if options.retry_failed:
        raise UserError(
            f"Another process is running this sweep now, in {folder}. Type --retry-failed when it has ended."
        )
    running = continuation.read_known(folder)
    _refuse_other_code(planned, running)
    ids = {entry["id"] for entry in running["jobs"]}
    sweep = planning.merge_known(composer, planned, extend=True, mixed_code=False)
    new = [job for job in sweep.jobs if job.action == "run" and job.id not in ids]
    if not new:
        console.print(f"The sweep that runs in {folder} has these jobs already.", soft_wrap=True)
        return True
    check_jobs(machinery, [*new, *sweep.respelt], [job.config for job in new])
    known.take_finished(new, outputs, sweep.code)
    if not _hand_over(planned.sweep, new):
        return False
    jobs = f"{len(new)} job{'s' * (len(new) != 1)}"
    console.print(f"Added to the sweep that runs in {folder}: {jobs}.", soft_wrap=True)
    for job in new:
        taken = f"  (taken from {job.taken})" if job.taken else ""
        console.print(f"  {' '.join(job.overrides)}{taken}", soft_wrap=True)
    console.print("The next free lanes of the sweep run them.")
    return True


def _hand_over(sweep: plan.Sweep, jobs: list[plan.Job]) -> bool:
    """Put jobs into the queue; False where the process that ran the sweep has ended.

    The lock is tried after the queue: a process that ended between the two has not read the jobs, and this process
    must run them.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        is_added = queue.offer(sweep.folder, jobs)
        if sweep.try_lock():
            return False
        if is_added:
            return True
        if time.monotonic() > until:
            raise UserError(f"The sweep in {sweep.folder} takes no more jobs. Type this again when it has ended.")
        time.sleep(0.1)


def _refuse_other_code(planned: planning.Planned, running: Plan) -> None:
    """Refuse where dl-lab's code or the user's own changed since the sweep started: the new jobs would run the old."""
    changed = ""
    if running["code"] != planned.sweep.code:
        changed = "dl-lab's code"
    elif _has_other_own_code(planned, running):
        changed = "Your own code"
    if changed:
        raise UserError(
            f"{changed} changed since the sweep that runs in {planned.sweep.folder} started, and its process still has "
            "the old code. Add the jobs when it has ended."
        )


def _has_other_own_code(planned: planning.Planned, running: Plan) -> bool:
    frozen = read_frozen(planned.sweep.folder)
    for entry in running["jobs"]:
        own = entry.get("own")
        if own and entry["number"] in frozen:
            now = planned.identifier.identify(frozen[entry["number"]]["config"])
            if now.own != own:
                return True
    return False
