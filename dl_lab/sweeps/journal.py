"""The journal of a search: a file in the sweep's folder that holds the study, and how a job reports to it.

A job writes its validation metric into the journal itself, on whatever machine it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dl_lab.runs.files import read_json
from dl_lab.show import tables
from dl_lab.types import Metrics, Pruned, UserError

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
STUDY = "search"
REPORT_FILE = "search.json"  # in a job's folder: where the job reports


def load_study(journal: Path) -> optuna.Study:
    """Load the study of a search for reading.

    Args:
        journal: Its file.

    Raises:
        OSError: There is no such file.
    """
    import optuna

    if not journal.is_file():
        raise FileNotFoundError(journal)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name=STUDY, storage=open_storage(journal), sampler=optuna.samplers.RandomSampler())


def open_storage(path: Path) -> BaseStorage:
    """Open the journal of a study, for Optuna.

    Args:
        path: Its file.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def make_reporter(
    folder: Path, build_pruner: Callable[[Mapping[str, object]], BasePruner]
) -> Callable[[int, Metrics], None] | None:
    """Make the function that a job of a search calls after each epoch: it reports, and prunes the job.

    A metric that is not finite prunes by itself.

    Args:
        folder: The job's run folder.
        build_pruner: Builds Optuna's pruner from its settings.

    Returns:
        A function of the epoch and its metrics. It raises Pruned where the job is not promising. None for a job
        without a pruner.
    """
    facts = read_json(folder / REPORT_FILE)
    if not facts or not facts["pruner"]:
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=STUDY,
        storage=open_storage(folder / facts["journal"]),
        pruner=build_pruner(facts["pruner"]),
        sampler=optuna.samplers.RandomSampler(),
    )
    objective = facts["objective"]
    known = study.get_trials(deepcopy=False)[facts["trial"]]
    trial = optuna.Trial(study, known._trial_id)
    reported = set(known.intermediate_values)

    def report(epoch: int, metrics: Metrics) -> None:
        if objective not in metrics:
            raise UserError(f"objective={objective} is not measured; there are {', '.join(sorted(metrics))}.")
        if epoch not in reported:  # a resumed job reported its first epochs before
            trial.report(metrics[objective], epoch)
        if trial.should_prune():
            raise Pruned(f"after epoch {epoch}, with {objective} {tables.number(metrics[objective])}")

    return report
