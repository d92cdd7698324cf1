"""A plain grid with `pruner=`: its jobs report each epoch, and the hopeless ones stop early.

The jobs report to an Optuna study in the sweep's folder, as those of a search do. The study proposes nothing: the grid
says which jobs there are. Each job is a trial; a job that runs again is a new trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dl_lab.runs.files import to_json
from dl_lab.sweeps import plan, search
from dl_lab.sweeps.journal import REPORT_FILE
from dl_lab.sweeps.space import Space


class PrunedGrid:
    """The study of a grid.

    Args:
        folder: The sweep's folder.
        pruner: The settings of `pruner=`.
        objective: The metric that is reported after each epoch.
        mode: "min" or "max".
    """

    def __init__(self, folder: Path, pruner: Mapping[str, object], objective: str, mode: str) -> None:
        self.pruner = pruner
        self.study = search.Search(folder, Space({}, {}), search.EveryCombination, None, 0, objective, mode)
        self.study.open()
        self._trials = {trial.user_attrs["job"]: trial.number for trial in self.study.trials("RUNNING")}

    @property
    def metric(self) -> str:
        """The metric that is reported after each epoch."""
        return self.study.objective

    @property
    def mode(self) -> str:
        """Whether a larger metric is better: "max" or "min"."""
        return self.study.mode

    def enter(self, job: plan.Job) -> None:
        """Give a job its trial, before it starts. A job that is resumed keeps its trial."""
        if job.action != "resume" or job.number not in self._trials:
            trial = self.study.study.ask()
            trial.set_user_attr("job", job.number)
            self._trials[job.number] = trial.number
        job.files[REPORT_FILE] = to_json(self.study.report_file(self._trials[job.number], self.pruner))

    def note_end(self, job: plan.Job) -> None:
        """Tell the study how a job ended."""
        if job.number in self._trials:
            self.study.tell(self._trials[job.number], self.study.folder / job.name)
