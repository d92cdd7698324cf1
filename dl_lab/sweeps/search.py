"""Search instead of a grid: Optuna proposes each job from how the earlier ones ended.

The study is a journal file in the sweep's folder. So a search can be killed and continued, and several processes can
work on it. Each job is the trial of the same number. A job writes its validation metric into the journal itself, on
whatever machine it runs, and asks there whether it is pruned.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from filelock import FileLock

from dl_lab.runs.files import as_mapping, read_json
from dl_lab.runs.find import is_alive, state_of
from dl_lab.sweeps.journal import JOURNAL, STUDY, open_storage
from dl_lab.sweeps.space import Space
from dl_lab.types import ConfigError, UserError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

UNLIMITED = 10**9  # trials of search=grid, which ends with its combinations
USUAL_TRIALS = 50  # of other searches, where the user names no number

# Gets the number and the words of a new trial; returns facts that the trial keeps.
Describe: TypeAlias = Callable[[int, list[str]], Mapping[str, object]]


class EveryCombination:
    """`search=grid`: nothing is sampled. All combinations are queued as trials when the study is made.

    Optuna's own GridSampler ends its study by Study.stop, which works inside Study.optimize only.

    Args:
        seed: Every sampler takes a seed; here nothing is random.
    """

    def __init__(self, seed: int = 0) -> None: ...


# -- the study ----------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """A study, and its aim.

    Attributes:
        folder: The sweep's folder.
        space: What varies, and in which range.
        sampler: Makes Optuna's sampler from a seed (`seed=`), or `EveryCombination`.
        n_trials: How many trials there are in all, those of earlier starts too; None for the usual number.
        seed: The seed of the whole search.
        objective: The metric of a finished job that is minimised or maximised.
        mode: "min" or "max".
    """

    folder: Path
    space: Space
    sampler: Callable[..., BaseSampler | EveryCombination]
    n_trials: int | None
    seed: int
    objective: str
    mode: str

    def open(self) -> None:
        """Make the study, or open the one that is there.

        Raises:
            UserError: The study that is there searches something else.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = open_storage(self.folder / JOURNAL)
        direction = "maximize" if self.mode == "max" else "minimize"
        self.study = optuna.create_study(
            storage=storage, study_name=STUDY, direction=direction, load_if_exists=True, sampler=None
        )
        wanted = {"space": dict(self.space.words), "objective": self.objective, "mode": self.mode}
        known = self.study.user_attrs.get("search")
        if known is None:
            self.study.set_user_attr("search", wanted)
            if self._is_grid:
                for values in self.space.combinations():
                    self.study.enqueue_trial(values)
        elif known != wanted:
            different = [key for key in wanted if known.get(key) != wanted[key]]
            raise UserError(
                f"This search was started before with another {' and '.join(different)}, in {self.folder}: "
                "--new starts another."
            )

    @property
    def _is_grid(self) -> bool:
        return getattr(self.sampler, "func", self.sampler) is EveryCombination

    @property
    def total(self) -> int:
        """How many trials there will be, as far as it is known."""
        if not self._is_grid:
            return self._limit
        return min(self._limit, self._count_started() + len(self.trials("WAITING")))

    @property
    def _limit(self) -> int:
        if self.n_trials is not None:
            return self.n_trials
        return UNLIMITED if self._is_grid else USUAL_TRIALS

    def trials(self, *states: str) -> list[FrozenTrial]:
        """Return the trials in their order: all of them, or those in one of these states."""
        found = self.study.get_trials(deepcopy=False)
        return [trial for trial in found if not states or trial.state.name in states]

    def _count_started(self) -> int:
        """Count the trials that started, without failed ones that another trial repeats."""
        repeated = self._find_repeated()
        started = [trial for trial in self.trials() if trial.state.name != "WAITING"]
        return sum(trial.number not in repeated for trial in started)

    def _find_repeated(self) -> set[int]:
        """Return the numbers of the trials that another trial repeats."""
        return {trial.user_attrs["again"] for trial in self.trials() if "again" in trial.user_attrs}

    def ask(self, describe: Describe) -> tuple[int, list[str]] | None:
        """Ask for the next trial.

        Args:
            describe: Gives facts that the trial keeps.

        Returns:
            Its number and its words; None where there are enough trials.

        Raises:
            ConfigError: `describe` raised it. The trial counts as failed.
        """
        # Two processes that ask at the same time would get the same values from their samplers.
        with FileLock(self.folder / ".ask.lock"):
            self._queue_half_made_trials()
            if self._count_started() >= self._limit or (self._is_grid and not self.trials("WAITING")):
                return None
            if self.trials("WAITING"):
                return self._ask_queued(describe)
            return self._ask_new(describe)

    def _ask_new(self, describe: Describe) -> tuple[int, list[str]]:
        """Draw a trial in memory, and record it as one entry of the journal: a kill leaves all of it or nothing.

        The sampler gets a new seed for every trial, so that an interrupted search repeats none.
        """
        from optuna.trial import TrialState

        drawn = self._draw()
        words = self.space.overrides(drawn.params)
        try:
            facts = {**describe(drawn.number, words), **_describe_process(words)}
        except ConfigError:
            self._record(drawn, TrialState.FAIL, _describe_process(words))
            raise
        self._record(drawn, TrialState.RUNNING, facts)
        return drawn.number, words

    def _record(self, drawn: FrozenTrial, state: TrialState, facts: Mapping[str, object]) -> None:
        """Add a drawn trial to the study."""
        from optuna.trial import create_trial

        trial = create_trial(
            state=state,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=dict(facts),
            system_attrs=drawn.system_attrs,
        )
        self.study.add_trial(trial)

    def _draw(self) -> FrozenTrial:
        """Let the sampler propose the next trial, in a copy of the study in memory."""
        import optuna

        known = self.trials()
        with warnings.catch_warnings():
            # Optuna 4 warns that `constant_liar` of conf/search/tpe.yaml is experimental; Optuna 5 does not
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self.sampler(seed=_mix(self.seed, len(known)))
        assert not isinstance(sampler, EveryCombination)  # it queues its trials, and none is drawn
        copy = optuna.create_study(direction=self.study.direction, sampler=sampler)
        copy.add_trials(known)
        number = copy.ask(dict(self.space.distributions)).number
        return copy.get_trials(deepcopy=False)[number]

    def _ask_queued(self, describe: Describe) -> tuple[int, list[str]]:
        """Begin the first trial whose values are queued: one of a grid, or one that repeats a failed trial."""
        from optuna.trial import TrialState

        trial = self.study.ask(dict(self.space.distributions))
        words = self.space.overrides(trial.params)
        try:
            facts = {**describe(trial.number, words), **_describe_process(words)}
        except ConfigError:
            self.study.tell(trial.number, state=TrialState.FAIL)
            raise
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        return trial.number, words

    def _queue_half_made_trials(self) -> None:
        """Queue the values of each trial again whose process was killed while it began the trial.

        A process that begins a trial holds the lock and writes its pid last: no process works on a trial without a pid.
        """
        from optuna.trial import TrialState

        for trial in self.trials("RUNNING"):
            if "pid" not in trial.user_attrs:
                values = trial.system_attrs.get("fixed_params", trial.params)
                self.study.tell(trial.number, state=TrialState.FAIL)
                self.study.enqueue_trial(values, user_attrs={"again": trial.number})

    def tell(self, number: int, folder: Path) -> str:
        """Record how a trial's job ended.

        Args:
            number: The number of the trial.
            folder: The job's run folder.

        Returns:
            The state of the folder: "running" where the job has not ended, "nothing" where there is no folder.
        """
        from optuna.trial import TrialState

        state = state_of(folder) if folder.exists() else "nothing"
        known = self.study.get_trials(deepcopy=False)[number].state
        if known.is_finished():
            return state
        if state == "done":
            summary = read_json(folder / "summary.json") or {}
            value = as_mapping(summary.get("metrics")).get(self.objective)
            if isinstance(value, int | float) and math.isfinite(value):
                self.study.tell(number, value)
            else:
                self.study.tell(number, state=TrialState.FAIL)
        elif state == "pruned":
            self.study.tell(number, state=TrialState.PRUNED)
        elif state == "failed":
            self.study.tell(number, state=TrialState.FAIL)
        return state

    def is_abandoned(self, trial: FrozenTrial, folder: Path, joining: bool) -> bool:
        """Whether no process works any more on a trial that is recorded as running: this one may continue it.

        Args:
            trial: The trial.
            folder: The run folder of its job.
            joining: Another process may work on the search, perhaps on another machine.
        """
        status = read_json(folder / "status.json") or {}
        if "pid" in status and is_alive(status):
            return False
        facts = trial.user_attrs
        if facts.get("host") == socket.gethostname():
            return not is_alive({"host": facts["host"], "pid": facts["pid"]})
        return not joining

    def retry_failed(self) -> int:
        """Queue the values of every failed trial once more; return how many there are."""
        repeated = self._find_repeated()
        failed = [trial for trial in self.trials("FAIL") if trial.number not in repeated and trial.params]
        for trial in failed:
            self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        return len(failed)

    def has_values(self) -> bool:
        """Whether any trial gave a finite value, at its end or after an epoch."""
        values = [trial.value for trial in self.trials("COMPLETE")]
        for trial in self.trials("PRUNED", "RUNNING"):
            values += trial.intermediate_values.values()
        return any(value is not None and math.isfinite(value) for value in values)

    def best(self, n: int) -> list[FrozenTrial]:
        """Return the n best finished trials, the best first."""
        found = [trial for trial in self.trials("COMPLETE") if trial.value is not None]
        sign = -1 if self.mode == "max" else 1
        return sorted(found, key=lambda trial: sign * float(trial.value or 0.0))[:n]

    def report_file(self, number: int, pruner: Mapping[str, object]) -> dict[str, object]:
        """Return what a job needs to report (search.json in its folder).

        Args:
            number: The number of its trial.
            pruner: The settings of `pruner=`; {} where nothing is pruned.
        """
        return {"journal": f"../{JOURNAL}", "trial": number, "objective": self.objective, "pruner": dict(pruner)}


def _describe_process(words: list[str]) -> dict[str, object]:
    """Return what a trial keeps about its start. The pid comes last: with it the trial is complete."""
    return {"overrides": words, "host": socket.gethostname(), "pid": os.getpid()}


def _mix(seed: int, n: int) -> int:
    """Make a seed of 32 bits for the n-th trial."""
    return int.from_bytes(hashlib.sha256(f"search {seed} {n}".encode()).digest()[:4], "big")


@contextlib.contextmanager
def require_optuna() -> Iterator[None]:
    """Say what to install where the block needs Optuna, or a package of a sampler, that is not there.

    Raises:
        UserError: A package is not installed.
    """
    try:
        import optuna  # noqa: F401

        yield
    except ImportError as error:
        raise UserError(f"search= needs {error.name or 'optuna'}: pip install 'dl-lab[search]'.") from None
