"""The protocol of every procedure: a call on a run, a description, and a rehearsal."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.recorder import Run
from dl_lab.training.trainer import Trainer
from dl_lab.types import ConfigError, Metrics, UserError


class Training(Protocol):
    """The parts of a procedure that trains one learner."""

    dataset: Dataset
    learner: Any  # a Learner; a procedure may ask for a narrower type, which a mutable attribute could not have
    trainer: Trainer


@runtime_checkable
class Procedure(Protocol):
    """What an experiment does when it runs.

    A class of ours has this protocol as its base and inherits the methods that it leaves out. `complete` adds them to a
    function, or to a user's class that only has `__call__`. A class may declare `imports`, a tuple of modules that it
    imports only when it needs them; a sweep imports them once for all jobs.
    """

    def __call__(self, run: Run) -> Metrics:
        """Do the work, record it in a run, and return the final metrics by their full names."""
        ...

    def describe(self) -> dict[str, object]:
        """Return the facts that are known before the first step, for the run's status and the screen."""
        return {}

    def rehearse(self) -> Metrics:
        """Take one small step with parts that are built for this only; raise the error that the run would meet."""
        return {}

    def training(self) -> Training | None:
        """Return the parts of the fit; None for a procedure that trains no learner, or several."""
        return None


def complete(own: Any) -> Procedure:
    """Add a default for each method of `Procedure` that an object lacks.

    Args:
        own: What the config's `procedure` describes: an object with `__call__`, or a function of a run.

    Raises:
        ConfigError: It cannot be called with a run.
    """
    if not callable(own):
        raise ConfigError(f"procedure: {type(own).__name__} must have a method __call__(self, run).")
    try:
        inspect.signature(own).bind("run")
    except TypeError:
        name = getattr(own, "func", own)
        name = getattr(name, "__name__", type(own).__name__)
        raise ConfigError(f"procedure: {name} must take one argument that the config does not give: the run.") from None
    except ValueError:  # it has no signature
        pass
    return own if isinstance(own, Procedure) else _Completed(own)


@dataclass
class _Completed(Procedure):
    """An object that lacks some methods of the protocol, with their defaults.

    Args:
        own: The object.
    """

    own: Any  # it may have any of the methods, or none

    def __call__(self, run: Run) -> Metrics:
        return self.own(run)

    def describe(self) -> dict[str, object]:
        facts = self.own.describe() if hasattr(self.own, "describe") else {}
        if not isinstance(facts, Mapping):
            raise UserError(f"procedure: {type(self.own).__name__}.describe() must return a dictionary of facts.")
        return {str(name): value for name, value in facts.items()}

    def rehearse(self) -> Metrics:
        return self.own.rehearse() if hasattr(self.own, "rehearse") else {}

    def training(self) -> Training | None:
        parts = ("dataset", "learner", "trainer")
        return self.own if all(hasattr(self.own, part) for part in parts) else None
