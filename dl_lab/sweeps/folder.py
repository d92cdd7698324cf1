"""Make the run folder of a sweep's job. This file imports no torch: a sweep on a cluster makes the folders itself."""

from __future__ import annotations

from pathlib import Path

from dl_lab.jobs.one import run_files
from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run
from dl_lab.sweeps import plan
from dl_lab.sweeps.backends.protocol import RunJob


def make_folder(job: RunJob, queued: bool = True, **facts: object) -> Path:
    """Make the run folder of a job, with everything that the job needs. A folder with a checkpoint stays as it is.

    Args:
        job: The job.
        queued: Another process will run the job later (see `Run.create`).
        facts: Further facts for env.json.

    Returns:
        The folder.
    """
    folder = Path(job.folder)
    if any(folder.glob("checkpoints/*.pt")):
        return folder
    if folder.exists():
        plan.set_aside(folder)
    files = {**run_files(job.config, job.overrides), **job.files}
    Run.create(folder, files, dict(job.config), NoBoard(), {**job.facts, **facts, "choices": job.choices}, queued)
    return folder
