"""The updates of one epoch, in one process or in several.

The loop waits for the device only when it drains the tallies (every `DRAIN_STEPS` updates or `DRAIN_SECONDS`). Then it
checks the losses, moves the sums to the host, and shows the progress. Sums are added one update at a time in double
precision, so that they do not depend on when the loop drains.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from dl_lab.runs.weights import fingerprints
from dl_lab.stopping import StopSignals
from dl_lab.training.continuation import Continuation
from dl_lab.training.distributed import World
from dl_lab.training.session import Callbacks, Session
from dl_lab.training.waiting import CLOCKED
from dl_lab.types import BROKEN_DATA, Batch, Diverged, Interrupted, Progress, Ratio, Tally, add_tallies, columns_of

DRAIN_STEPS = 50
DRAIN_SECONDS = 0.5


class UpdateLoop:
    """Trains a session's learner, one epoch at a call."""

    def __init__(
        self,
        session: Session,
        callbacks: Callbacks,
        continuation: Continuation,
        interrupted: StopSignals,
        seed: int,
        log_steps: int = 0,
        max_steps: int | None = None,
        validate_every_steps: int = 0,
        validate: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the parts and the settings of the loop.

        Args:
            session: The state of the fit.
            callbacks: The callbacks whose hooks the loop calls.
            continuation: The writer of checkpoints.
            interrupted: The stop signals, which end the loop after the update in progress.
            seed: The seed of the order of the items.
            log_steps: The board gets the loss of one update in `log_steps`; 0 for none.
            max_steps: The number of updates of the whole training after which the epoch ends. None sets no limit.
            validate_every_steps: Number of updates between two calls of `validate` within an epoch; 0 for no calls.
            validate: The function that validates within an epoch.
        """
        self.session = session
        self.callbacks = callbacks
        self.continuation = continuation
        self.interrupted = interrupted
        self.seed = seed
        self.log_steps = log_steps
        self.max_steps = max_steps
        self.validate_every_steps = validate_every_steps
        self.validate = validate
        self.pace = Pace(session.world)
        self._recent: list[Tally] = []  # tallies of the updates since the last drain, still on the device

    def run_epoch(self) -> None:
        """Do the updates that the current epoch still has.

        Raises:
            Interrupted: A process was asked to stop; the session is saved.
            Diverged: A loss is not a finite number.
        """
        session = self.session
        first = session.batch
        started = time.perf_counter()
        self.pace.restart()
        session.clock.begin_epoch()
        for batch, size in self._batches():
            step = session.step
            is_timed = step % CLOCKED == 0
            if is_timed:
                session.clock.begin_update()
            self.callbacks.call_around("update_start", session, step)
            self._recent.append(self._update(batch, size))
            session.batch += 1
            session.step += 1
            self.callbacks.call_around("update_end", session, step)
            if is_timed:
                session.clock.end_update()
            if _is_power_of_two(session.step):
                record_fingerprints(session)
            stopping = session.world.size == 1 and self.interrupted.requested
            saving = self.continuation.is_due_at(session.step)
            if self.pace.is_due(len(self._recent)):
                n_recent = len(self._recent)
                self.drain()
                stopping = self.pace.agree(self.interrupted, n_recent)
                session.samples_per_second = (session.batch - first) * session.batch_size / self.pace.since(started)
                self.show()
                saving = saving or session.world.share(self.continuation.is_due())
            if self._is_validation_due():
                self.drain()
                self.validate()
            if saving or stopping:
                self.drain()
                self.continuation.save(session)
            if stopping:
                self._stop()
            if session.step % CLOCKED == 0:
                session.clock.begin_wait()
        self.drain()
        if session.world.size > 1 and session.world.any(self.interrupted.requested):
            self.continuation.save(session)  # the epoch may be too short for the processes to ask each other
            self._stop()
        n_samples = (session.batch - first) * session.batch_size
        n_samples = min(n_samples, len(session.dataset.train) or n_samples)  # a stream has no length
        session.samples_per_second = n_samples / max(time.perf_counter() - started, 1e-9)

    def _batches(self) -> Iterator[tuple[Batch, int]]:
        """Return the batches that the epoch still has, each with the number of its items in all processes."""
        session = self.session
        split = session.dataset.train
        n_left = max(session.n_batches - session.batch, 0)
        if self.max_steps is not None:
            n_left = min(n_left, max(self.max_steps - session.step, 0))
        batches = split.epoch(session.batch_size, self.seed, session.epoch, start=session.batch)
        if session.world.size == 1:
            return zip(itertools.islice(batches, n_left), itertools.repeat(0), strict=False)
        sizes = split.sizes(session.batch_size, self.seed, session.epoch)[session.batch :]
        return zip(itertools.islice(batches, n_left), sizes, strict=False)

    def _update(self, batch: Batch, size: int) -> Tally:
        """Learn from this process's part of a batch of `size` items. The part may be empty."""
        world = self.session.world
        if world.size == 1:
            return self.session.learner.update(batch)
        n_own = world.part_of(size)
        tally = self.session.learner.update(batch, world.size * n_own / size)
        return tally if n_own else {}

    def _is_validation_due(self) -> bool:
        """Return whether a validation within the epoch is due. The end of the epoch has a validation of its own."""
        session = self.session
        is_last = session.batch == session.n_batches or session.step == self.max_steps
        return self.validate_every_steps > 0 and session.step % self.validate_every_steps == 0 and not is_last

    def _stop(self) -> None:
        raise Interrupted(f"Interrupted in epoch {self.session.epoch + 1} after step {self.session.step}.")

    def drain(self) -> None:
        """Move the tallies of the recent updates to the host, check their losses, and record them."""
        if not self._recent:
            return
        session = self.session
        recent = session.world.sum_each(self._recent)
        losses = _to_host([tally["loss"] for tally in recent])
        first = session.step - len(recent) + 1
        values = [(first + i, ratio.values("")[""]) for i, ratio in enumerate(losses)]
        session.run.losses([value for _, value in values])
        for step, value in values:
            if not math.isfinite(value):
                self._refuse(step, value)
        if self.log_steps:
            session.run.board.series("step/loss", [(s, v) for s, v in values if s % self.log_steps == 0])
        for name in recent[0]:
            entries = [tally[name] for tally in recent]
            for entry in _to_host(entries) if isinstance(entries[0], Ratio) else entries:
                session.tally = add_tallies(session.tally, {name: entry})
        self._recent.clear()

    def _refuse(self, step: int, loss: float) -> None:
        learner = self.session.learner
        rates = ", ".join(f"{name} {rate:g}" for name, rate in learner.rates().items())
        raise Diverged(
            f"The training loss became {loss} at step {step} (epoch {self.session.epoch + 1}, {rates}). "
            f"{self._find_broken_data(step) or learner.advice(loss)}"
        )

    def _find_broken_data(self, step: int) -> str:
        """Say which column of an update's batch has values that are no finite numbers; "" where none has."""
        session = self.session
        start = session.batch - (session.step - step) - 1
        if session.world.size > 1 or start < 0:
            return ""
        batch = next(iter(session.dataset.train.epoch(session.batch_size, self.seed, session.epoch, start=start)), None)
        if batch is None:
            return ""
        names = list(batch) if isinstance(batch, Mapping) else getattr(batch, "_fields", range(len(batch)))
        for name, column in zip(names, columns_of(batch), strict=True):
            if isinstance(column, torch.Tensor) and not column.isfinite().all():
                n = int((~column.isfinite()).sum())
                return f"{BROKEN_DATA}: column {name} of this batch has nan or infinite values ({n:,})."
        return ""

    def show(self) -> None:
        """Tell the callbacks, and the process that started the run, how far the run is."""
        session = self.session
        self.callbacks.call("progress", session)
        session.run.on_progress(
            Progress(
                epoch=min(session.epoch + 1, session.max_epochs),
                max_epochs=session.max_epochs,
                done=session.step,
                total=session.n_updates,
                samples_per_second=session.samples_per_second,
            )
        )


class Pace:
    """Decides when the loop drains: a single process by the clock, several processes by a number of updates.

    Args:
        world: The processes.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = DRAIN_STEPS if world.size == 1 else 1
        self.drained = time.perf_counter()

    def restart(self) -> None:
        """Begin an epoch."""
        self.drained = time.perf_counter()

    def is_due(self, n_recent: int) -> bool:
        """Return whether to drain after this many updates since the last drain."""
        if n_recent >= self.steps:
            return True
        return self.world.size == 1 and time.perf_counter() - self.drained > DRAIN_SECONDS

    def agree(self, interrupted: StopSignals, n_recent: int) -> bool:
        """Agree with the other processes after a drain: on whether to stop, and on the number of updates to the next.

        Args:
            interrupted: The stop signals of this process.
            n_recent: The updates since the last drain.

        Returns:
            Whether any process was asked to stop.
        """
        now = time.perf_counter()
        if self.world.size > 1:
            seconds_per_step = (now - self.drained) / n_recent
            self.steps = self.world.share(max(1, min(DRAIN_STEPS, int(DRAIN_SECONDS / seconds_per_step))))
        self.drained = now
        return self.world.any(interrupted.requested)

    def since(self, started: float) -> float:
        """Return the seconds from `started` to the last drain."""
        return max(self.drained - started, 1e-9)


def record_fingerprints(session: Session) -> None:
    """Record the fingerprints of all weights. `dl-lab verify` finds by them where a difference began.

    A fit records them at the start, after updates 1, 2, 4, 8, ..., and at the end of each epoch.
    """
    if session.world.rank == 0:
        session.run.fingerprints(session.step, fingerprints(session.learner.weights()))


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0


def _to_host(entries: list[Ratio]) -> list[Ratio]:
    """Return the same ratios as numbers of the host, with one copy from the device for all sums."""
    sums = _read_numbers([entry.sum for entry in entries])
    counts = _read_numbers([entry.count for entry in entries])
    return [Ratio(s, c) for s, c in zip(sums, counts, strict=True)]


def _read_numbers(values: list[Any]) -> list[Any]:
    """Return the values as numbers; they are all tensors, or all numbers."""
    return torch.stack(values).tolist() if isinstance(values[0], torch.Tensor) else values
