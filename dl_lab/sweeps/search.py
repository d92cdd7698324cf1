"""Searching instead of a grid: Optuna proposes each job from how the earlier ones ended.

The study is a journal file in the sweep's folder, so that a search can be killed, gone on with, and worked on by
several processes: each job is a trial of the same number. A job reports its validation metric to the journal itself,
on whatever machine it runs, and asks there whether it is pruned.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from dl_lab.run import is_alive, read_json, state_of
from dl_lab.types import ConfigError, Metrics, Pruned, UserError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

JOURNAL = "study.journal"
STUDY = "search"
REPORT_FILE = "search.json"  # in a job's folder: where it reports


class EveryCombination:
    """`search=grid`: nothing is sampled; all combinations are queued as trials when the study is made.

    (Optuna's own GridSampler ends its study by Study.stop, which works inside Study.optimize only.)
    """

    def __init__(self, seed: int = 0) -> None:
        """`seed` is what every sampler takes; here nothing is random."""


# -- what is searched ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """words: key -> what was written for it ("tag(log, interval(1e-4, 0.1))")."""

    words: Mapping[str, str]
    distributions: Mapping[str, BaseDistribution]

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """A trial's values as the words of a job."""
        return [f"{key}={values[key]}" for key in self.words]

    def probes(self) -> list[list[str]]:
        """Jobs in which every alternative and both ends of every range occur: what is checked before any starts."""
        corners = {key: _corners(distribution) for key, distribution in self.distributions.items()}
        n_probes = max(len(values) for values in corners.values())
        return [
            self.overrides({key: values[i % len(values)] for key, values in corners.items()}) for i in range(n_probes)
        ]

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination, the last key varying fastest. Raises ConfigError for a continuous range."""
        import itertools

        values = [_all_values(key, distribution) for key, distribution in self.distributions.items()]
        return [dict(zip(self.distributions, chosen, strict=True)) for chosen in itertools.product(*values)]


def parse_space(words: Sequence[Any]) -> Space:
    """The space of parsed sweep overrides (Hydra's `Override`s).

    `interval(0, 1)` is uniform, `tag(log, interval(1e-4, 1e-1))` log-uniform, `int(interval(1, 8))` whole numbers,
    `range(8, 65, 8)` steps, `choice(a, b)` and `a,b` alternatives. Raises ConfigError for what cannot be searched.
    """
    if not words:
        raise ConfigError(
            "This search has nothing to vary: write, for instance, 'optimizer.lr=tag(log, interval(1e-4, 1e-1))'."
        )
    distributions = {override.get_key_element(): _distribution(override) for override in words}
    return Space({o.get_key_element(): o.input_line.partition("=")[2] for o in words}, distributions)


def _distribution(override: Any) -> BaseDistribution:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, value = override.get_key_element(), override.value()
    unknown = set(getattr(value, "tags", ())) - {"log"}
    if unknown:
        raise ConfigError(f"{key}: there is no tag {min(unknown)!r}; tag(log, ...) is for a logarithmic scale.")
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            if isinstance(low, int) and isinstance(high, int) and "int(" in override.input_line:
                return IntDistribution(low, high, log=log)
            return FloatDistribution(float(low), float(high), log=log)  # pyright: ignore[reportArgumentType]
        if isinstance(value, RangeSweep) and not value.shuffle:
            steps = list(value.range())
            if not steps:
                raise ValueError("this range is empty")
            if all(isinstance(step, int) for step in steps):
                width = abs(steps[1] - steps[0]) if len(steps) > 1 else 1
                return IntDistribution(int(min(steps)), int(max(steps)), step=width, log=log)
        return CategoricalDistribution([word.partition("=")[2] for word in _alternatives(override)])
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def _alternatives(override: Any) -> Iterator[str]:
    key = override.get_key_element()
    return (f"{key}={value}" for value in override.sweep_string_iterator())


def _corners(distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    return list(choices) if choices else [distribution.low, distribution.high]


def _all_values(key: str, distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    if choices:
        return list(choices)
    if isinstance(distribution.low, int) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step or 1))
    raise ConfigError(f"search=grid needs values for {key}, not a range: {key}=0.1,0.01.")


# -- the study ----------------------------------------------------------------------------------------------------


@dataclass
class Search:
    """A study and what it is to reach.

    sampler: makes Optuna's sampler from a seed. n_trials: in all, those of earlier starts too. objective: the
    metric of a finished job that is minimised or maximised (mode).
    """

    folder: Path
    space: Space
    sampler: Callable[..., Any]
    n_trials: int | None
    seed: int
    objective: str
    mode: str

    def open(self) -> None:
        """Make the study, or go on with the one there is. Raises UserError where that one searched something else."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = _storage(self.folder / JOURNAL)
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
        """How many trials there will be, as far as is known."""
        return min(self._limit, self._n_asked() + len(self.trials("WAITING"))) if self._is_grid else self._limit

    @property
    def _limit(self) -> int:
        return self.n_trials if self.n_trials is not None else (10**9 if self._is_grid else 50)

    def trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        """The trials in order, those in one of these states where some are given."""
        found = self.study.get_trials(deepcopy=False)
        return [trial for trial in found if not states or trial.state.name in states]

    def _n_asked(self) -> int:
        """The trials that count: started, and not one that failed and is tried again."""
        again = self._tried_again()
        return sum(trial.state.name != "WAITING" and trial.number not in again for trial in self.trials())

    def _tried_again(self) -> set[int]:
        return {trial.user_attrs["again"] for trial in self.trials() if "again" in trial.user_attrs}

    def ask(self, describe: Callable[[int, list[str]], Mapping[str, Any]]) -> tuple[int, list[str]] | None:
        """The next trial's number and words; None where there are enough. `describe` gives facts that it keeps."""
        with FileLock(self.folder / ".ask.lock"):
            if self._n_asked() >= self._limit or (self._is_grid and not self.trials("WAITING")):
                return None
            if not self._is_grid:  # seeded anew for every trial: a search that was interrupted repeats none
                self.study.sampler = self.sampler(seed=_mixed(self.seed, len(self.trials())))
            trial = self.study.ask(dict(self.space.distributions))
            words = self.space.overrides(trial.params)
            facts = {"overrides": words, "host": socket.gethostname(), "pid": os.getpid()}
            for name, value in {**facts, **describe(trial.number, words)}.items():
                trial.set_user_attr(name, value)
        return trial.number, words

    def tell(self, number: int, folder: Path) -> str:
        """Record how a trial's job ended; returns the state of its folder, "running" where it has not ended."""
        from optuna.trial import TrialState

        state = state_of(folder) if folder.exists() else "nothing"
        known = self.study.get_trials(deepcopy=False)[number].state
        if known.is_finished():
            return state
        if state == "done":
            value = (read_json(folder / "summary.json") or {}).get("metrics", {}).get(self.objective)
            if value is None or not math.isfinite(value):
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, value)
        elif state == "pruned":
            self.study.tell(number, state=TrialState.PRUNED)
        elif state == "failed":
            self.study.tell(number, state=TrialState.FAIL)
        return state

    def is_ours(self, trial: optuna.trial.FrozenTrial, folder: Path, joining: bool) -> bool:
        """Whether a trial that says it runs was left behind, so that this process may go on with it."""
        if folder.exists() and (status := read_json(folder / "status.json")) and "pid" in status and is_alive(status):
            return False
        facts = trial.user_attrs
        if facts.get("host") == socket.gethostname():
            return not is_alive({"host": facts["host"], "pid": facts["pid"]})
        return not joining

    def retry_failed(self) -> int:
        """Queue the values of every failed trial once more; how many."""
        again = self._tried_again()
        failed = [trial for trial in self.trials("FAIL") if trial.number not in again and trial.params]
        for trial in failed:
            self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        return len(failed)

    def best(self, n: int) -> list[optuna.trial.FrozenTrial]:
        """The best finished trials."""
        found = [trial for trial in self.trials("COMPLETE") if trial.value is not None]
        return sorted(found, key=lambda t: (-1 if self.mode == "max" else 1) * float(t.value or 0.0))[:n]

    def report_file(self, number: int, pruner: Mapping[str, Any]) -> dict[str, Any]:
        """What a job needs to report (search.json in its folder)."""
        return {"journal": f"../{JOURNAL}", "trial": number, "objective": self.objective, "pruner": dict(pruner)}


def _mixed(seed: int, n: int) -> int:
    """A seed of 32 bits for the n-th trial."""
    return int.from_bytes(hashlib.sha256(f"search {seed} {n}".encode()).digest()[:4], "big")


def _storage(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


# -- inside a job -------------------------------------------------------------------------------------------------


def reporter(folder: Path, build_pruner: Callable[[Mapping[str, Any]], Any]) -> Callable[[int, Metrics], None] | None:
    """What a job of a search does after each epoch: report, and raise Pruned where it is not promising.

    None for a job of no search, or of one without a pruner. A metric that is not finite prunes by itself.
    """
    facts = read_json(folder / REPORT_FILE)
    if not facts or not facts["pruner"]:
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=STUDY,
        storage=_storage(folder / facts["journal"]),
        pruner=build_pruner(facts["pruner"]),
        sampler=optuna.samplers.RandomSampler(),
    )
    number, objective = facts["trial"], facts["objective"]
    trial = optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
    reported = set(study.get_trials(deepcopy=False)[number].intermediate_values)

    def report(epoch: int, metrics: Metrics) -> None:
        if objective not in metrics:
            raise UserError(f"objective={objective} is not measured; there are {', '.join(sorted(metrics))}.")
        if epoch not in reported:  # a resumed job has told about its first epochs
            trial.report(metrics[objective], epoch)
        if trial.should_prune():
            raise Pruned(f"after epoch {epoch}, with {objective} {metrics[objective]:.4f}")

    return report


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Raises UserError where Optuna, or what a sampler needs besides, is not installed."""
    try:
        import optuna  # noqa: F401

        yield
    except ImportError as error:
        raise UserError(f"search= needs {error.name or 'optuna'}: pip install 'dl-lab[search]'.") from None
