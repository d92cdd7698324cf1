"""The jobs of a search: Optuna proposes them one by one (see `dl_lab.sweeps.search`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dl_lab import configs
from dl_lab.configs import identity
from dl_lab.runs.files import to_json
from dl_lab.sweeps import actions, grid, plan, search
from dl_lab.sweeps.journal import REPORT_FILE
from dl_lab.sweeps.plan_file import Frozen, read_frozen
from dl_lab.types import ConfigError


@dataclass
class Trials:
    """The jobs of a search (`session.More`).

    Attributes:
        composer: Composes the jobs.
        expanded: The settings of the search.
        study: The search.
        identifier: Gives the jobs their ids.
        n_left: How many trials had not ended when this process began; None until it is asked.
        refused: Why trials have no job: their values give no config.
    """

    composer: configs.Composer
    expanded: grid.Grid
    study: search.Search
    identifier: identity.Identifier
    n_left: int | None = None
    refused: list[str] = field(default_factory=list)

    @property
    def metric(self) -> str:
        """The metric that the search optimises."""
        return self.study.objective

    @property
    def mode(self) -> str:
        """Whether a larger metric is better: "max" or "min"."""
        return self.study.mode

    def total(self) -> int:
        """Return how many trials had not ended when this process began."""
        if self.n_left is None:
            ended = len(self.study.trials("COMPLETE", "PRUNED", "FAIL"))
            self.n_left = max(self.study.total - ended, 0)
        return self.n_left

    def ask(self, sweep: plan.Sweep) -> plan.Job | None:
        """Ask the study for the next trial, and make it a job of the sweep; None where there are enough trials."""
        made: list[plan.Job] = []

        def describe(number: int, words: list[str]) -> dict[str, object]:
            made.append(self._make_job(number, words))
            return {"id": made[0].id, "data": made[0].data, "own": made[0].own}

        while not made:
            try:
                if self.study.ask(describe) is None:
                    return None
            except ConfigError as error:  # these values do not go together: the search tries others
                self.refused.append(str(error).partition("\n")[0])
        for job in self._find_others(sweep, made[0].number):  # a process that joined the search asked for them
            sweep.add(job)
        sweep.add(made[0])
        return made[0]

    def note_end(self, job: plan.Job) -> None:
        """Tell the study how a job ended."""
        self.study.tell(job.number, self.study.folder / job.name)

    def news(self) -> list[str]:
        """Return nothing: a search has no news."""
        return []

    def close(self) -> None:
        """Leave the study as it is: the next start continues it."""

    def settle(self, sweep: plan.Sweep, joining: bool) -> list[plan.Job]:
        """Record the trials that ended since their process died, and find those that can continue.

        Args:
            sweep: The sweep. It gets the jobs of all trials.
            joining: Another process may work on the search.

        Returns:
            The jobs that this process continues.
        """
        sweep.jobs = self._find_others(sweep, -1, read_frozen(sweep.folder))
        by_number = {job.number: job for job in sweep.jobs}
        abandoned = []
        for trial in self.study.trials("RUNNING"):
            job = by_number.get(trial.number)
            if job is not None and self.study.is_abandoned(trial, sweep.folder / job.name, joining):
                abandoned.append(job)
        for job in abandoned:
            self.study.tell(job.number, sweep.folder / job.name)
        actions.decide(sweep, retry_failed=False, joining=True)
        for job in sweep.jobs:
            if job not in abandoned and job.action != "skip":
                job.action = "leave"  # another process works on it
        return [job for job in abandoned if job.action != "skip"]

    def _find_others(
        self, sweep: plan.Sweep, without: int, frozen: Mapping[int, Frozen] | None = None
    ) -> list[plan.Job]:
        """Make jobs of the trials that are not among the sweep's jobs yet.

        Args:
            sweep: The sweep.
            without: The number of a trial that is left out.
            frozen: The frozen configs of the sweep's folder.
        """
        known = {job.number for job in sweep.jobs} | {without}
        jobs = []
        for trial in self.study.trials("RUNNING", "COMPLETE", "PRUNED", "FAIL"):
            facts = trial.user_attrs
            if trial.number not in known and "id" in facts:
                jobs.append(self._make_job(trial.number, facts["overrides"], (frozen or {}).get(trial.number), facts))
        return jobs

    def _make_job(
        self, number: int, words: list[str], frozen: Frozen | None = None, facts: Mapping[str, Any] | None = None
    ) -> plan.Job:
        """Make a trial a job. What earlier starts recorded stays as it is.

        Args:
            number: The number of the trial.
            words: Its overrides.
            frozen: Its frozen config, where an earlier start wrote one.
            facts: What the trial keeps, where it began earlier.
        """
        if frozen is None:
            composed = self.composer.compose([*self.expanded.fixed, *words])
            frozen = {"number": number, "config": composed.config, "choices": composed.choices}
        config = frozen["config"]
        known = self.identifier.identify(config)
        if facts:
            known = replace(known, id=facts["id"], own=facts.get("own", ""), data=facts["data"])
        report = to_json(self.study.report_file(number, self.expanded.pruner))
        return plan.Job(
            number,
            known.id,
            list(words),
            config,
            dict(frozen["choices"]),
            data=known.data,
            own=known.own,
            facts=known.facts,
            files={REPORT_FILE: report},
        )
