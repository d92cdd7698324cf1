"""The state of a fit, and the callbacks that watch it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.protocols import defines, refuse_other_arguments
from dl_lab.runs.recorder import Run
from dl_lab.training.distributed import World
from dl_lab.training.waiting import WaitingClock
from dl_lab.types import ConfigError, Learner, Metrics, Tally


@dataclass
class Session:
    """The state of a fit.

    Callbacks read it. A callback ends the training after the current epoch by setting `stop_reason`.

    Attributes:
        learner: The learner, on its device.
        dataset: The data, on the same device. With several processes, this process's part of the data.
        run: The recorder.
        max_epochs: Epochs of the whole training.
        batch_size: Items of a training batch.
        n_batches: Batches of an epoch.
        epoch: Finished epochs.
        batch: Finished batches of the current epoch.
        step: Updates since the start.
        tally: The sums of the current epoch so far.
        best: The best epoch so far: "epoch" (a fraction for a validation within an epoch), "metrics" of the validation
            by their full names, and "weights", a copy; {} before the first validation.
        history: The metrics of each finished epoch.
        samples_per_second: Speed of the current epoch.
        stop_reason: Why the training ends early; "" as long as it continues.
        world: The processes that train together.
        max_steps: The training ends after this many updates; None sets no limit.
        clock: How long the training waits for its batches. A resumed fit begins with a new one.
    """

    learner: Learner
    dataset: Dataset
    run: Run
    max_epochs: int
    batch_size: int
    n_batches: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    tally: Tally = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    history: list[Metrics] = field(default_factory=list)
    samples_per_second: float = 0.0
    stop_reason: str = ""
    world: World = field(default_factory=World)
    max_steps: int | None = None
    clock: WaitingClock = field(default_factory=WaitingClock)

    @property
    def n_updates(self) -> int:
        """Updates of the whole training, if nothing ends it early."""
        n_updates = self.max_epochs * self.n_batches
        return n_updates if self.max_steps is None else min(n_updates, self.max_steps)

    @property
    def position(self) -> float:
        """Finished epochs, and the finished part of the current one."""
        return round(self.epoch + self.batch / self.n_batches, 4) if self.batch else self.epoch

    @property
    def whole_dataset(self) -> Dataset:
        """The data with all items, also where several processes share them; no process waits for another."""
        return self.dataset if self.world.size == 1 else self.dataset.divided(0, 1)


Evaluated = Literal["val", "test"]


class Callback(Protocol):
    """Watches a fit. A callback may leave out any method; only the methods that its class defines are called.

    Attributes:
        imports: Modules that the callback imports only when it needs them. A sweep imports them once for all jobs.
    """

    imports: ClassVar[Sequence[str]] = ()

    def fit_start(self, session: Session) -> None:
        """Run before the first update, also of a resumed fit."""

    def choose_updates(self, session: Session) -> Collection[int] | None:
        """Return the updates that `update_start` and `update_end` are called for; None for all.

        An update is named by the number of updates before it. This runs once, after `fit_start`. The updates that are
        left out cost nothing: a call that does nothing takes some microseconds of an update.
        """

    def update_start(self, session: Session) -> None:
        """Run before every update; `session.step` updates are done."""

    def update_end(self, session: Session) -> None:
        """Run after every update; `session.step` counts it. To read a value from the device here slows the training."""

    def progress(self, session: Session) -> None:
        """Run a few times a second during the training."""

    def evaluation_start(self, session: Session, split: Evaluated) -> None:
        """Run before a validation, and before the last weights are saved and the test split is judged."""

    def evaluation_end(self, session: Session, split: Evaluated, metrics: Metrics) -> None:
        """Run after a validation, when the best weights are kept, or after the test. `metrics` has full names."""

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Run after an epoch's validation and its record; `metrics` has full names ("val/loss")."""

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Run after the test. `tally` is that of the test split; entries that are added to `metrics` are recorded."""

    def close(self, session: Session) -> None:
        """Run at the end in any case, also after an error."""

    def state_dict(self) -> dict[str, object]:
        """Return what an exact continuation needs: tensors and plain types only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


HOOKS = (
    "fit_start",
    "update_start",
    "update_end",
    "progress",
    "evaluation_start",
    "evaluation_end",
    "epoch_end",
    "fit_end",
    "close",
)
AROUND = ("update_start", "update_end")


class Callbacks:
    """The callbacks of one fit, by name, and the hooks that each of them has."""

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        """Find the hooks.

        Raises:
            ConfigError: A callback has none of the hooks, takes other arguments, or has a hook of another library.
        """
        self._callbacks = dict(callbacks)
        self._hooks: dict[str, list[Callable[..., None]]] = {hook: [] for hook in HOOKS}
        self._choosing: dict[str, Callback] = {}
        self._chosen: dict[str, list[tuple[Collection[int], Callable[..., None]]]] = {hook: [] for hook in AROUND}
        for name, callback in self._callbacks.items():
            hooks = [hook for hook in HOOKS if defines(callback, hook, Callback)]
            if not hooks:
                raise ConfigError(f"callbacks.{name} has none of the methods of a callback: {', '.join(HOOKS)}.")
            for method in dir(callback):
                if method.startswith("on_"):  # of Lightning and Keras
                    raise ConfigError(f"callbacks.{name}: nothing calls {method}. The hooks are {', '.join(HOOKS)}.")
            chooses = defines(callback, "choose_updates", Callback)
            if chooses:
                refuse_other_arguments(f"callbacks.{name}", callback, "choose_updates", Callback)
                self._choosing[name] = callback
            for hook in hooks:
                refuse_other_arguments(f"callbacks.{name}", callback, hook, Callback)
                if not chooses or hook not in AROUND:
                    self._hooks[hook].append(getattr(callback, hook))

    def call(self, hook: str, session: Session, *arguments: object) -> None:
        """Call a hook of every callback that has it, in the order of their names in the config."""
        for method in self._hooks[hook]:
            method(session, *arguments)

    def start(self, session: Session) -> None:
        """Call `fit_start`, and let the callbacks choose their updates.

        Raises:
            ConfigError: What a callback chose is no collection.
        """
        self.call("fit_start", session)
        for name, callback in self._choosing.items():
            updates = callback.choose_updates(session)
            if updates is not None and not isinstance(updates, Collection):
                raise ConfigError(
                    f"callbacks.{name}: choose_updates must return a collection of numbers, such as a range, or None, "
                    f"not {updates!r:.40}."
                )
            for hook in AROUND:
                if not defines(callback, hook, Callback):
                    continue
                if updates is None:
                    self._hooks[hook].append(getattr(callback, hook))
                else:
                    chosen = updates if isinstance(updates, range) else frozenset(updates)
                    self._chosen[hook].append((chosen, getattr(callback, hook)))

    def call_around(self, hook: str, session: Session, update: int) -> None:
        """Call `update_start` or `update_end` of the callbacks that want an update."""
        for method in self._hooks[hook]:
            method(session)
        for chosen, method in self._chosen[hook]:
            if update in chosen:
                method(session)

    def state_dict(self) -> dict[str, object]:
        """Return the states of the callbacks that have one."""
        states: dict[str, object] = {}
        for name, callback in self._callbacks.items():
            if defines(callback, "state_dict", Callback):
                states[name] = callback.state_dict()
        return states

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each callback its state back. One that was added since gets none."""
        for name, callback in self._callbacks.items():
            if name in state and defines(callback, "load_state_dict", Callback):
                callback.load_state_dict(state[name])
