"""Try a first step on a little generated data, before a run writes anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dl_lab.configs.build import load_dataset
from dl_lab.configs.explain import fault
from dl_lab.configs.parts import dataset_of, procedure_of
from dl_lab.configs.words import did_you_mean
from dl_lab.jobs.procedure import build_procedure, refuse_moving
from dl_lab.types import ConfigError, Metrics

if TYPE_CHECKING:
    from dl_lab.procedures.protocol import Procedure


@refuse_moving()
def rehearse(config: Mapping[str, object]) -> Procedure:
    """Build the procedure on a little generated data and rehearse it.

    Args:
        config: A resolved config.

    Returns:
        The rehearsed procedure.

    Raises:
        ConfigError: A part cannot be built, or the parts do not fit together.
    """
    import torch

    dataset = dataset_of(config)
    if dataset is not None and "source" not in dataset:  # it cannot be generated
        load_dataset(config)  # loading may take long: the rehearsal and the run share the data set
    procedure = build_procedure({**config, "procedure": shrink(procedure_of(config))})
    try:
        metrics = procedure.rehearse()
    except (torch.OutOfMemoryError, ConfigError):
        raise
    except Exception as error:  # a model, task or optimizer may raise anything
        raise ConfigError(
            f"The parts do not fit together: a first step on a few items fails.\n  {fault(error)}"
        ) from error
    _check_objective(config, metrics)
    return procedure


def _check_objective(config: Mapping[str, object], metrics: Metrics) -> None:
    """Refuse an `objective` that the trainer does not measure."""
    objective = config.get("objective")
    if objective is None or not metrics or "trainer" not in procedure_of(config):
        return
    if objective not in metrics:
        known = sorted(metrics)
        raise ConfigError(
            f"objective={objective} is not measured; there are {', '.join(known)}.{did_you_mean(str(objective), known)}"
        )


def shrink(procedure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a procedure's config with the same parts on a little generated data, not compiled.

    Args:
        procedure: What a resolved config says about its procedure.
    """
    small = dict(procedure)
    for part in ("dataset", "vectors"):
        described = small.get(part)
        if isinstance(described, Mapping) and "source" in described:
            small[part] = {**described, "source": "generated", "n_generated": 16}
    learner = small.get("learner")
    if isinstance(learner, Mapping) and learner.get("compile"):
        small["learner"] = {**learner, "compile": False}  # compiling takes half a minute and changes no part
    return small
