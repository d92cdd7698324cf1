"""Exact continuation: when a checkpoint is written, what it holds, and how it restores a session."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dl_lab import types
from dl_lab.configs.targets import locate
from dl_lab.runs import checkpoints
from dl_lab.runs.random_state import random_state, set_random_state
from dl_lab.training.session import Callbacks, Session
from dl_lab.types import ConfigError, Measure, Tally, measure_state

SAVE_SHARE = 50  # the next checkpoint waits at least this many times as long as writing the last one took


class Continuation:
    """Writes and reads the checkpoints of one session."""

    def __init__(self, callbacks: Callbacks, least_seconds: float, every_steps: int) -> None:
        """Start the clock.

        Args:
            callbacks: Callbacks whose states are saved too.
            least_seconds: The least age of the last checkpoint, in seconds, before the next one is due (see also
                `SAVE_SHARE`). 0 writes checkpoints as often as possible.
            every_steps: Number of updates after which a checkpoint is written in any case; 0 for none.
        """
        self.callbacks = callbacks
        self.least_seconds = least_seconds
        self.every_steps = every_steps
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0

    def is_due(self) -> bool:
        """Return whether the last checkpoint is old enough."""
        if not self.least_seconds:
            return True
        return time.monotonic() - self._saved_at >= max(self.least_seconds, SAVE_SHARE * self._save_seconds)

    def is_due_after_epoch(self, is_over: bool) -> bool:
        """Return whether a checkpoint is due between two epochs.

        At the end, a training that wrote a checkpoint before writes another one, so that the finished run can continue
        with more epochs. A training of a few seconds writes none.
        """
        return self.is_due() or (is_over and self._save_seconds > 0)

    def is_due_at(self, step: int) -> bool:
        """Return whether a checkpoint is due after this number of updates in any case."""
        return self.every_steps > 0 and step % self.every_steps == 0

    def save(self, session: Session) -> None:
        """Write a checkpoint. All processes must call it; the first one writes."""
        began = time.monotonic()
        _write(session, self.callbacks)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

    def refuse_unreadable(self, session: Session) -> None:
        """Refuse, before the first update, states that no checkpoint can hold.

        Raises:
            UserError: The learner or a callback has such a state.
        """
        state = {"learner": session.learner.state_dict(), "callbacks": self.callbacks.state_dict()}
        checkpoints.refuse_unreadable(state)

    def restore(self, session: Session) -> bool:
        """Bring the session to the last checkpoint. Records that were written after the checkpoint are removed.

        Returns:
            Whether there was a checkpoint.
        """
        folder = session.run.folder / "checkpoints"
        state = session.world.share(None if session.world.rank else checkpoints.load(folder))
        session.run.cut_back(state["positions"] if state else {})
        if state is None:
            return False
        session.learner.load_state_dict(state["learner"])
        random_states = [state["random"], *state.get("random_of_others", [])]
        if len(random_states) == session.world.size:  # else the processes continue from new random states
            set_random_state(random_states[session.world.rank])
        self.callbacks.load_state_dict(state["callbacks"])
        session.epoch = state["epoch"]
        session.batch = state["batch"]
        session.step = state["step"]
        session.tally = read_measures(state["tally"])
        session.best = state["best"]
        session.history = state["history"]
        session.stop_reason = state["stop_reason"]
        return True


def _write(session: Session, callbacks: Callbacks) -> None:
    others = session.world.gather(random_state())[1:]
    if session.world.rank:
        return
    state = {
        "learner": session.learner.state_dict(),
        "random": random_state(),
        "positions": session.run.positions(),
        "callbacks": callbacks.state_dict(),
        "epoch": session.epoch,
        "batch": session.batch,
        "step": session.step,
        "tally": write_measures(session.tally),
        "best": session.best,
        "history": session.history,
        "stop_reason": session.stop_reason,
    }
    if others:
        state["random_of_others"] = others
    checkpoints.save(session.run.folder / "checkpoints", state)


def write_measures(tally: Tally) -> dict[str, list[object]]:
    """Return a tally as plain types and tensors: for each name the class of its measure, and the measure's state."""
    return {name: [_path_of(type(measure)), *measure_state(measure)] for name, measure in tally.items()}


def read_measures(written: dict[str, list[Any]]) -> Tally:
    """Return the tally that `write_measures` wrote.

    Raises:
        ConfigError: The class of a measure is not allowed in a config, or is gone.
    """
    tally: Tally = {}
    for name, (path, *state) in written.items():
        tally[name] = _find_class(path)(*state)
    return tally


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _find_class(path: str) -> Callable[..., Measure]:
    """Return the class of a measure: one of `dl_lab.types`, or one that a config could name."""
    module, _, name = path.rpartition(".")
    if module == types.__name__ and name in ("Ratio", "Total", "Confusion"):
        return getattr(types, name)
    try:
        return locate("tally", path)
    except ConfigError as error:
        raise ConfigError(f"The checkpoint has a measure of the class {path}: {error}") from error
