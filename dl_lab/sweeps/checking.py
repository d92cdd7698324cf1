"""Check the jobs of a sweep before any of them starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dl_lab import configs
from dl_lab.configs import targets
from dl_lab.configs.parts import dataset_of, procedure_of, trainer_of
from dl_lab.runs.settings import flatten
from dl_lab.sweeps import plan
from dl_lab.sweeps.backends.protocol import CheckJobs, Config, Prepare, Wrong
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from dl_lab.sweeps.machinery import Machinery


def find_imports(jobs: Sequence[Config], *modules: str) -> Prepare:
    """Find what the servers must import for some jobs.

    Args:
        jobs: The jobs' configs. A job in a fresh interpreter imports for itself.
        modules: Further modules.
    """
    named = set()
    for config in jobs:
        if config["job_process"] != "fresh":
            for part in ("procedure", "logger"):
                named.update(node["_target_"] for _, node in targets.targets(config[part]))
    return Prepare(targets=sorted(named), modules=modules)


def find_datasets(jobs: Sequence[Config]) -> Prepare:
    """Find the data sets that the servers must load for some jobs, each one once.

    Args:
        jobs: The jobs' configs. A job in a fresh interpreter loads its own.
    """
    datasets: dict[str, Config] = {}
    for config in jobs:
        dataset = dataset_of(config)
        if config["job_process"] != "fresh" and dataset is not None:
            datasets.setdefault(configs.key_of(dataset), {"procedure": {"dataset": dataset}})
    return Prepare(datasets=list(datasets.values()))


def check_jobs(machinery: Machinery, jobs: Sequence[plan.Job], shared: Sequence[Config], *modules: str) -> None:
    """Check and rehearse the jobs, in as many processes as there are lanes, while the servers load the data.

    Jobs that differ in seeds alone are checked once. Of jobs that also differ in rates (numbers with a fraction), those
    with the least and the greatest value of each rate are checked: where an optimizer refuses a rate, it refuses one of
    these.

    Args:
        machinery: Where the jobs run.
        jobs: The jobs to check.
        shared: Configs whose imports and data the servers load once for all jobs.
        modules: Further modules that the jobs import.

    Raises:
        ConfigError: A job is wrong; the message names the first one.
    """
    chosen = _choose(jobs)
    n_processes = min(machinery.schedule.layout.slots, len(chosen))
    questions = [CheckJobs(-1 - i, chosen[i::n_processes]) for i in range(n_processes)]
    data = Prepare()
    if machinery.engine is None:
        machinery.schedule.prepare_servers(find_imports(shared, *modules))
        data = find_datasets(shared)
    answers = machinery.schedule.ask(questions, data)
    wrong = [answer for answer in answers if isinstance(answer, Wrong)]
    if wrong:
        first = min(wrong, key=lambda answer: answer.number)
        raise ConfigError(f"{_name(jobs, first.number)}: {first.message}")


def check_here(jobs: Sequence[plan.Job]) -> None:
    """Check and rehearse the jobs in this process, for a plan that is only shown.

    Args:
        jobs: The jobs to check.

    Raises:
        ConfigError: A job is wrong; the message names the first one.
    """
    from dl_lab.jobs.rehearsal import rehearse

    for number, config in sorted(_choose(jobs), key=lambda numbered: numbered[0]):
        try:
            configs.check(config)
            rehearse(config)
        except ConfigError as error:
            raise ConfigError(f"{_name(jobs, number)}: {error}") from error


def _name(jobs: Sequence[plan.Job], number: int) -> str:
    """Name a job in a message. The trials of a search have no numbers yet."""
    job = next(job for job in jobs if job.number == number)
    return f"Job {job.number}" if job.id else f"A job with {' '.join(job.overrides)}"


def _choose(jobs: Sequence[plan.Job]) -> list[tuple[int, Config]]:
    """Choose the jobs that stand for all; return the number and config of each."""
    distinct: dict[str, plan.Job] = {}
    for job in reversed(jobs):  # the first of equal jobs stays
        distinct[configs.key_of(_drop_seed(job.config))] = job
    alike: dict[str, list[plan.Job]] = {}
    for job in distinct.values():
        alike.setdefault(configs.key_of(_drop_rates(_drop_seed(job.config))), []).append(job)
    chosen = []
    for group in alike.values():
        chosen += [(job.number, job.config) for job in _choose_extremes(group)]
    return chosen


def _drop_seed(config: Config) -> Config:
    """Return the parts of a config that a check depends on, without the seed."""
    procedure = procedure_of(config)
    if "trainer" in procedure:
        procedure = {**procedure, "trainer": {**trainer_of(config), "seed": None}}
    names = [name for name in (*configs.SETTINGS, "logger", "reference") if name != "seed"]
    return {**{name: config.get(name) for name in names}, "procedure": procedure}


def _drop_rates(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _drop_rates(item) for key, item in value.items()}
    return None if isinstance(value, float) else value


def _choose_extremes(jobs: Sequence[plan.Job]) -> list[plan.Job]:
    """Choose the jobs with the least and the greatest value of each rate, and one without where some have none.

    `learner.clip_norm=null,1.0` is a rate that one job has and the other has not.
    """
    rates: list[dict[str, float]] = []
    for job in jobs:
        values = flatten(_drop_seed(job.config))
        rates.append({key: value for key, value in values.items() if isinstance(value, float)})
    chosen: set[int] = set()
    for key in dict.fromkeys(key for of_job in rates for key in of_job):
        ordered = sorted((of_job[key], i) for i, of_job in enumerate(rates) if key in of_job)
        lacking = [i for i, of_job in enumerate(rates) if key not in of_job]
        least, i_least = ordered[0]
        greatest, i_greatest = ordered[-1]
        if lacking or least != greatest:
            chosen |= {i_least, i_greatest, *lacking[:1]}
    return [jobs[i] for i in sorted(chosen or {0})]
