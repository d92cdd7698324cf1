"""Learning-rate schedules: how they get their length, when they step, and one schedule that torch lacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from dl_lab.types import ConfigError, Metrics, UserError

Unit = Literal["epoch", "step"]
LENGTHS = ("T_max", "total", "total_iters", "total_steps")  # a scheduler's arguments that mean the whole training


class Schedule:
    """A scheduler of torch that steps after each epoch or after each update.

    Some schedulers need the length of the whole training (`T_max`, `total_steps`, `total_iters`, `total`). Where such
    an argument is missing, or None, `plan` fills it in, as a number of steps of the scheduler. A scheduler whose
    `step` takes metrics (ReduceLROnPlateau) gets one metric after each epoch.

    Attributes:
        scheduler: The scheduler; None until `plan` where a length was missing.
    """

    def __init__(
        self,
        make: Callable[..., LRScheduler],
        optimizer: Optimizer,
        every: Unit = "epoch",
        monitor: str = "val/loss",
    ) -> None:
        """Build the scheduler, or wait for `plan`.

        Args:
            make: Optimizer -> scheduler, like `functools.partial(StepLR, step_size=3)`.
            optimizer: The optimizer whose rates the scheduler sets.
            every: Whether the scheduler steps after each "epoch" or after each "step", which is an update.
            monitor: The metric for a scheduler that takes one.
        """
        self.make = make
        self.optimizer = optimizer
        self.every = every
        self.monitor = monitor
        self.missing = missing_lengths(make)
        self.scheduler: LRScheduler | None = None if self.missing else self._build({})

    def plan(self, n_epochs: int, n_updates: int) -> None:
        """Fill in the missing lengths, and build the scheduler."""
        if not self.missing:
            return
        length = n_epochs if self.every == "epoch" else n_updates
        lengths = dict.fromkeys(self.missing, length)
        if "total_steps" in lengths:
            # OneCycleLR needs one step more: it steps after the last update too, and its last step goes below its
            # least rate.
            lengths["total_steps"] += 1
        self.scheduler = self._build(lengths)

    def end_update(self) -> None:
        """Step a schedule that goes by updates."""
        if self.scheduler is not None and self.every == "step":
            self.scheduler.step()

    def end_epoch(self, metrics: Metrics) -> None:
        """Step a schedule that goes by epochs."""
        if self.scheduler is not None and self.every == "epoch":
            step_after_epoch(self.scheduler, metrics, self.monitor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scheduler; {} before the scheduler is built."""
        return self.scheduler.state_dict() if self.scheduler is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(dict(state))

    def _build(self, lengths: Mapping[str, int]) -> LRScheduler:
        """Build the scheduler.

        Raises:
            UserError: The scheduler sets one rate for groups of parameters that have factors of their own, or the
                training has no update for one of its phases.
            ConfigError: The scheduler takes a metric and steps after updates, but only an epoch's validation gives the
                metric.
        """
        factors = {group.get("lr_factor", 1) for group in self.optimizer.param_groups}
        try:
            built = self.make(self.optimizer, **lengths)
        except ZeroDivisionError:  # OneCycleLR, where its rise or fall is a single update
            n_updates = lengths.get("total_steps", 1) - 1
            raise UserError(
                f"The schedule has too few updates ({n_updates}) for its phases: "
                "use more epochs, smaller batches or another scheduler.pct_start."
            ) from None
        starts = {group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups}
        if len(factors) > len(starts):
            raise UserError(f"lr_factors do not go with {type(built).__name__}, which sets the rates itself.")
        if self.every == "step" and _takes_metrics(built):
            raise ConfigError(f"{type(built).__name__} goes by a validation metric: use learner.schedule_every=epoch.")
        return built


def step_after_epoch(scheduler: LRScheduler, metrics: Metrics, monitor: str) -> None:
    """Step a scheduler; give it the metric `monitor` if it takes one.

    Raises:
        UserError: The metric is not measured.
    """
    if not _takes_metrics(scheduler):
        scheduler.step()
        return
    if monitor not in metrics:
        known = ", ".join(sorted(metrics))
        raise UserError(f"{type(scheduler).__name__} waits for {monitor!r}, which is not measured; there are {known}.")
    step: Any = scheduler.step  # that of LRScheduler takes an epoch, that of ReduceLROnPlateau a metric
    step(metrics[monitor])


def missing_lengths(make: Callable[..., LRScheduler]) -> list[str]:
    """Return the names of the lengths that a scheduler takes and that are missing or None."""
    parameters = inspect.signature(make).parameters
    values = {name: parameter.default for name, parameter in parameters.items()}
    missing = [name for name in LENGTHS if name in values and values[name] in (None, inspect.Parameter.empty)]
    if "total_steps" in missing and values.get("epochs") and values.get("steps_per_epoch"):
        missing.remove("total_steps")  # OneCycleLR's other way to say its length
    return missing


def _takes_metrics(scheduler: LRScheduler) -> bool:
    return "metrics" in inspect.signature(type(scheduler).step).parameters


def cosine(optimizer: Optimizer, T_max: int | None = None, eta_min: float = 0.0) -> LRScheduler:
    """Build torch's CosineAnnealingLR.

    Args:
        optimizer: The optimizer whose rates are set.
        T_max: Steps of the whole training; a learner fills it in if it is None.
        eta_min: The last rate.

    Raises:
        ValueError: `T_max` is None.
    """
    if T_max is None:
        raise ValueError("T_max, the number of steps of the whole training, is missing")
    return CosineAnnealingLR(optimizer, T_max, eta_min)


def warmup_decay(optimizer: Optimizer, total: int | None, warmup: float, decay: float, floor: float) -> LRScheduler:
    """Build a schedule that grows linearly, then falls linearly, and then stays.

    The rates are those of torch's SequentialLR of two LinearLR, but a phase may have no steps.

    Args:
        optimizer: The optimizer whose rates are set.
        total: Steps of the whole training; a learner fills it in if it is None.
        warmup: Share of `total` in which the rate grows from `floor` times its full value to its full value.
        decay: Share of `total` in which the rate falls to `floor` times its full value.
        floor: The least rate as a share of the full one.

    Raises:
        ValueError: A share is not between 0 and 1, or `total` is None.
    """
    if not (0 <= warmup <= 1 and 0 <= decay <= 1 and 0 <= floor <= 1):
        raise ValueError(f"warmup {warmup}, decay {decay} and floor {floor} are shares, between 0 and 1")
    if total is None:
        raise ValueError("total, the number of steps of the whole training, is missing")
    rising = int(warmup * total)
    falling = int(decay * total)

    def share(step: int) -> float:
        if step < rising:
            return floor + (1 - floor) * step / rising
        if not falling:
            return 1.0
        return 1 - (1 - floor) * min((step - rising) / falling, 1.0)

    return LambdaLR(optimizer, share)
