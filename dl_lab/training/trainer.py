"""The one training loop: epochs over a learner, validation, best weights, checkpoints, one look at test.

The loop waits for the device only when it drains the tallies (every `DRAIN_STEPS` updates or `DRAIN_SECONDS`):
then the losses are checked, the sums move to the host, and the progress is shown. Sums are added one update at a
time in double precision, so that they do not depend on when that happens.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, Protocol

import torch

from dl_lab import types
from dl_lab.run import Run
from dl_lab.training import checkpoints, distributed
from dl_lab.types import (
    ConfigError,
    Dataset,
    Interrupted,
    Learner,
    Metrics,
    Ratio,
    Split,
    Tally,
    UserError,
    add_tallies,
    read_tally,
)

DRAIN_STEPS = 50
DRAIN_SECONDS = 0.5
REHEARSED_BATCHES = 1000  # an epoch's, of a data set that is not there yet
SAVE_SHARE = 50  # a checkpoint is at least this many times as old as writing it took


@dataclass
class Session:
    """What a fit is doing now: callbacks read it, and ask it to stop by setting `stop_reason`."""

    learner: Learner
    dataset: Dataset
    run: Run
    max_epochs: int
    batch_size: int
    n_batches: int
    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # updates since the start
    tally: Tally = field(default_factory=dict)  # of the current epoch, so far
    best: dict[str, Any] = field(default_factory=dict)  # epoch, metrics, weights
    history: list[Metrics] = field(default_factory=list)
    samples_per_second: float = 0.0
    stop_reason: str = ""


class Callback(Protocol):
    """What else happens during a fit; every method may be left out."""

    def fit_start(self, session: Session) -> None:
        """Before the first update, also of a resumed fit."""

    def update_start(self, session: Session) -> None:
        """Before every update, `session.step` of them being done; costs nothing where it is left out."""

    def progress(self, session: Session) -> None:
        """A few times a second while training."""

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """After an epoch's validation; metrics by full name ("val/loss")."""

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """After the test split was judged: its tally, and the final metrics; what is added to them is recorded."""

    def close(self, session: Session) -> None:
        """Always at the end, also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """What an exact continuation needs: plain types only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what state_dict gave."""


class Trainer:
    """Trains a learner on a data set.

    monitor, mode: which validation metric is the best, and whether least or greatest. test_weights: what the one
    look at the test split judges, the best weights or (as much coursework does) the last. checkpoint_seconds: a
    checkpoint is written, also in the middle of an epoch, when the last one is at least this old (and 50 times the
    time that writing it took: at most 2 % of a training goes there; 0 is as often as can be); checkpoint_steps also
    writes one every so many updates. log_steps: every how many updates the loss goes to TensorBoard (0: never).
    judge_train: after each epoch the whole training split is judged as well; what that measures replaces the running
    train/ metrics.
    """

    def __init__(
        self,
        max_epochs: int,
        batch_size: int,
        seed: int = 0,
        eval_batch_size: int = 1024,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        test_weights: Literal["best", "last"] = "best",
        device: str = "auto",
        checkpoint_seconds: float = 10.0,
        checkpoint_steps: int = 0,
        log_steps: int = 50,
        judge_train: bool = False,
        callbacks: Mapping[str, Callback | None] | None = None,
    ) -> None:
        if not monitor.startswith("val/"):
            raise ValueError(f"monitor {monitor!r} is not a val/ metric: selection must not look at train or test")
        if max_epochs < 1 or batch_size < 1 or eval_batch_size < 1:
            raise ValueError("max_epochs, batch_size and eval_batch_size must be at least 1")
        self.max_epochs, self.batch_size, self.eval_batch_size, self.seed = (
            max_epochs,
            batch_size,
            eval_batch_size,
            seed,
        )
        self.monitor, self.mode, self.test_weights, self.device = monitor, mode, test_weights, device
        self.checkpoint_seconds, self.checkpoint_steps, self.log_steps = (
            checkpoint_seconds,
            checkpoint_steps,
            log_steps,
        )
        self.callbacks = {name: callback for name, callback in (callbacks or {}).items() if callback is not None}
        self.judge_train = judge_train
        self.world, self._drain_steps = distributed.World(), 1

    def fit(self, learner: Learner, dataset: Dataset, run: Run) -> Metrics:
        """Train, keep the best weights, judge test once. A run that was interrupted goes on where it stopped."""
        self._saved_at, self._save_seconds = time.monotonic(), 0.0
        device = choose_device(self.device)
        learner.to(device)
        dataset = dataset.to(device)
        self.world = distributed.world()
        if self.world.size > 1:
            if not hasattr(learner, "distribute"):
                raise ConfigError(f"A {type(learner).__name__} works in one process: start it without torchrun.")
            learner.distribute(self.world.size)  # pyright: ignore[reportAttributeAccessIssue]
            dataset = dataset.divided(self.world.rank, self.world.size)
            distributed.own_seed(self.seed)
        n_batches = dataset.train.n_batches(self.batch_size)
        learner.plan(self.max_epochs * n_batches)
        session = Session(learner, dataset, run, self.max_epochs, self.batch_size, n_batches)
        if dataset.preprocessing:
            run.facts("preprocessing", dataset.preprocessing)
        if run.resuming:
            self._restore(session)
        if session.step == 0:
            self._fingerprint(session)
        try:
            self._call("fit_start", session)
            with _interruptible() as interrupted, distributed.together():
                while session.epoch < self.max_epochs and not session.stop_reason:
                    self._train_epoch(session, interrupted)
                    self._close_epoch(session)
            with distributed.together():
                return self._finish(session)
        finally:
            self._call("close", session)

    def rehearse(self, learner: Learner, dataset: Dataset) -> Metrics:
        """One update and one evaluation on two items, of parts built for this only: raises what would go wrong."""
        learner.plan(self.max_epochs * REHEARSED_BATCHES)
        batch = next(iter(dataset.train.batches(2)))
        learner.update(batch)
        metrics = read_tally(learner.evaluate(batch), "val/")
        for monitor in [self.monitor, *(getattr(callback, "monitor", "") for callback in self.callbacks.values())]:
            if monitor and monitor not in metrics:
                raise ConfigError(f"monitor {monitor!r} is not measured; there are {', '.join(sorted(metrics))}.")
        return metrics

    # -- one epoch --------------------------------------------------------------------------------------------

    def _train_epoch(self, session: Session, interrupted: threading.Event) -> None:
        learner, recent = session.learner, []
        started, drained, first = time.perf_counter(), time.perf_counter(), session.batch
        split = session.dataset.train
        stopping = False
        sizes = split.sizes(session.batch_size, self.seed, session.epoch) if self.world.size > 1 else []
        watching = [callback for callback in self.callbacks.values() if _watches_updates(callback)]
        for batch in split.epoch(session.batch_size, self.seed, session.epoch, start=session.batch):
            for callback in watching:
                callback.update_start(session)
            if self.world.size == 1:
                recent.append(learner.update(batch))
            else:
                recent.append(self._update_part(session, batch, sizes[session.batch]))
            session.batch += 1
            session.step += 1
            if session.step & (session.step - 1) == 0:  # 1, 2, 4, 8, ...
                self._fingerprint(session)
            saving = self.checkpoint_steps > 0 and session.step % self.checkpoint_steps == 0
            if self.world.size == 1:
                due = len(recent) >= DRAIN_STEPS or time.perf_counter() - drained > DRAIN_SECONDS
                stopping = interrupted.is_set()
            else:
                due = len(recent) >= self._drain_steps
            if due:
                n_recent = len(recent)
                self._drain(session, recent)
                if self.world.size > 1:  # all at the same step
                    stopping = self._agree(interrupted, (time.perf_counter() - drained) / n_recent)
                drained = time.perf_counter()
                session.samples_per_second = (session.batch - first) * session.batch_size / (drained - started)
                self._show(session)
                saving = saving or self.world.share(self._is_checkpoint_due())
            if saving or stopping:
                self._drain(session, recent)
                self._save(session)
            if stopping:
                raise Interrupted(f"Interrupted in epoch {session.epoch + 1} after step {session.step}.")
        self._drain(session, recent)
        if self.world.size > 1 and any(self.world.gather(interrupted.is_set())):  # an epoch may be shorter than asking
            self._save(session)
            raise Interrupted(f"Interrupted in epoch {session.epoch + 1} after step {session.step}.")
        n_samples = min((session.batch - first) * session.batch_size, len(split))
        session.samples_per_second = n_samples / max(time.perf_counter() - started, 1e-9)

    def _update_part(self, session: Session, batch: types.Batch, n: int) -> Tally:
        """One process's part of an update of n items: weighted by its share of them, which may be nothing."""
        n_own = self.world.part_of(n)
        tally = session.learner.update(batch, self.world.size * n_own / n)  # pyright: ignore[reportCallIssue]
        return tally if n_own else {}

    def _agree(self, interrupted: threading.Event, seconds_per_step: float) -> bool:
        """Whether any process was asked to stop; also sets after how many steps they next ask each other."""
        self._drain_steps = self.world.share(max(1, min(DRAIN_STEPS, int(DRAIN_SECONDS / seconds_per_step))))
        return any(self.world.gather(interrupted.is_set()))

    def _drain(self, session: Session, recent: list[Tally]) -> None:
        """Move the tallies of the recent updates to the host, check the losses, record them."""
        if not recent:
            return
        recent[:] = self.world.sum_each(recent)
        losses = _ratios([tally["loss"] for tally in recent])
        first = session.step - len(recent) + 1
        values = [(first + i, ratio.values("")[""]) for i, ratio in enumerate(losses)]
        session.run.losses([value for _, value in values])
        for step, value in values:
            if not math.isfinite(value):
                rates = ", ".join(f"{name} {rate:g}" for name, rate in session.learner.rates().items())
                where = getattr(getattr(session.learner, "task", None), "infinite_where", "")
                raise UserError(
                    f"The training loss became {value} at step {step} (epoch {session.epoch + 1}, {rates}): "
                    + (f"it is infinite where {where}; else " if where and value == math.inf else "")
                    + "a smaller learning rate, gradient clipping (learner.clip_norm) or other scaling may help."
                )
        if self.log_steps:
            session.run.board.series("step/loss", [(s, v) for s, v in values if s % self.log_steps == 0])
        for name in recent[0]:
            entries = [tally[name] for tally in recent]
            for entry in _ratios(entries) if isinstance(entries[0], Ratio) else entries:
                session.tally = add_tallies(session.tally, {name: entry})
        recent.clear()

    def _fingerprint(self, session: Session) -> None:
        """At the start, after updates 1, 2, 4, 8, ..., and at each epoch's end: where a difference began."""
        if self.world.rank:
            return
        session.run.fingerprints(session.step, checkpoints.fingerprints(session.learner.weights()))

    def _close_epoch(self, session: Session) -> None:
        """Validate, keep the best weights, record, save."""
        validated = time.perf_counter()
        if self.world.size > 1:
            session.learner.share_buffers()  # pyright: ignore[reportAttributeAccessIssue]
        train = session.tally | (self._judge(session, session.dataset.train) if self.judge_train else {})
        metrics = read_tally(train, "train/") | read_tally(self._judge(session, session.dataset.val), "val/")
        timings = {
            "samples_per_second": session.samples_per_second,
            "validation_seconds": time.perf_counter() - validated,
        }
        rates = session.learner.rates()
        session.epoch += 1
        session.batch, session.tally = 0, {}
        session.history.append(metrics)
        self._keep_best(session, metrics)
        session.learner.end_epoch(metrics)
        self._show(session)
        session.run.log({**metrics, **rates}, session.step, session.epoch, timings)
        if session.step & (session.step - 1):
            self._fingerprint(session)
        self._call("epoch_end", session, metrics)
        session.run.on_epoch(session.epoch, metrics)
        if self.world.share(self._is_checkpoint_due()):
            self._save(session)

    def _judge(self, session: Session, split: Split) -> Tally:
        tally: Tally = {}
        for batch in split.batches(self.eval_batch_size):
            tally = add_tallies(tally, session.learner.evaluate(batch))
        return self.world.sum_each([tally])[0]

    def _keep_best(self, session: Session, metrics: Metrics) -> None:
        if self.monitor not in metrics:
            raise UserError(f"monitor {self.monitor!r} is not measured; there are {', '.join(sorted(metrics))}.")
        value = metrics[self.monitor]
        old = session.best.get("metrics", {}).get(self.monitor, math.nan)
        if math.isnan(old) or (value < old if self.mode == "min" else value > old):
            weights = {name: tensor.clone() for name, tensor in session.learner.weights().items()}
            session.best = {"epoch": session.epoch, "metrics": metrics, "weights": weights}

    # -- the end ----------------------------------------------------------------------------------------------

    def _finish(self, session: Session) -> Metrics:
        learner, run, folder = session.learner, session.run, session.run.folder / "checkpoints"
        last = {"epoch": session.epoch, self.monitor: session.history[-1][self.monitor]}
        best = {"epoch": session.best["epoch"], self.monitor: session.best["metrics"][self.monitor]}
        checkpoints.save_weights(folder / "last.safetensors", learner.weights(), last)
        if best == last and _are_equal(session.best["weights"], learner.weights()):  # a callback may have changed them
            checkpoints.save_same(folder / "best.safetensors", folder / "last.safetensors")
        else:
            checkpoints.save_weights(folder / "best.safetensors", session.best["weights"], best)
        chosen, epoch = session.history[-1], session.epoch
        if self.test_weights == "best":
            learner.load_weights(session.best["weights"])
            chosen, epoch = session.best["metrics"], session.best["epoch"]
        tally = self._judge(session, session.dataset.test)
        metrics = {**chosen, **read_tally(tally, "test/")}
        self._call("fit_end", session, tally, metrics)
        run.log({k: v for k, v in metrics.items() if k not in chosen}, session.step, session.epoch)
        run.board.scalars({f"final/{name}": value for name, value in metrics.items()}, session.step)
        n_parameters, n_trainable = learner.n_parameters()
        run.finish(
            metrics,
            epoch=epoch,
            epochs=session.epoch,
            steps=session.step,
            weights=self.test_weights,
            monitor=self.monitor,
            mode=self.mode,
            best_epoch=session.best["epoch"],
            stop_reason=session.stop_reason,
            test_looks=1,
            parameters=n_parameters,
            trainable=n_trainable,
            dataset=session.dataset.summary(),
            **learner.notes(),
        )
        return metrics

    # -- exact continuation -----------------------------------------------------------------------------------

    def _is_checkpoint_due(self) -> bool:
        least = max(self.checkpoint_seconds, SAVE_SHARE * self._save_seconds) if self.checkpoint_seconds else 0.0
        return time.monotonic() - self._saved_at >= least

    def _save(self, session: Session) -> None:
        began = time.monotonic()
        self._write(session)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

    def _write(self, session: Session) -> None:
        others = self.world.gather(checkpoints.random_state())[1:]
        if self.world.rank:
            return
        state = {
            **({"random_of_others": others} if others else {}),
            "learner": session.learner.state_dict(),
            "random": checkpoints.random_state(),
            "positions": session.run.positions(),
            "callbacks": {name: callback.state_dict() for name, callback in self.callbacks.items()},
            "epoch": session.epoch,
            "batch": session.batch,
            "step": session.step,
            "tally": {name: [type(entry).__name__, *astuple(entry)] for name, entry in session.tally.items()},
            "best": session.best,
            "history": session.history,
            "stop_reason": session.stop_reason,
        }
        checkpoints.save(session.run.folder / "checkpoints", state)

    def _restore(self, session: Session) -> None:
        state = self.world.share(None if self.world.rank else checkpoints.load(session.run.folder / "checkpoints"))
        session.run.cut_back(state["positions"] if state else {})
        if state is None:
            return
        session.learner.load_state_dict(state["learner"])
        random_states = [state["random"], *state.get("random_of_others", [])]
        if len(random_states) == self.world.size:  # else the processes go on from new ones
            checkpoints.set_random_state(random_states[self.world.rank])
        for name, callback in self.callbacks.items():
            callback.load_state_dict(state["callbacks"].get(name, {}))
        session.epoch, session.batch, session.step = state["epoch"], state["batch"], state["step"]
        session.tally = {name: getattr(types, kind)(*fields) for name, (kind, *fields) in state["tally"].items()}
        session.best, session.history, session.stop_reason = (
            state["best"],
            state["history"],
            state["stop_reason"],
        )

    def _show(self, session: Session) -> None:
        self._call("progress", session)
        session.run.on_progress(
            {
                "epoch": min(session.epoch + 1, session.max_epochs),
                "max_epochs": session.max_epochs,
                "done": session.epoch * session.n_batches + session.batch,
                "total": session.max_epochs * session.n_batches,
                "samples_per_second": session.samples_per_second,
            }
        )

    def _call(self, hook: str, session: Session, *arguments: Any) -> None:
        for callback in self.callbacks.values():
            getattr(callback, hook)(session, *arguments)


def _watches_updates(callback: Callback) -> bool:
    return type(callback).update_start is not Callback.update_start


def _are_equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)


def _ratios(entries: list[Ratio]) -> list[Ratio]:
    """The same ratios as host numbers, with one copy from the device for all of them."""
    sums, counts = _numbers([e.sum for e in entries]), _numbers([e.count for e in entries])
    return [Ratio(s, c) for s, c in zip(sums, counts, strict=True)]


def _numbers(values: list[Any]) -> list[Any]:
    return torch.stack(values).tolist() if isinstance(values[0], torch.Tensor) else values


def choose_device(name: str) -> torch.device:
    """auto: cuda, else mps, else cpu; under torchrun each process has its own GPU.

    Raises UserError for a device that is not there.
    """
    if name in ("auto", "cuda") and distributed.is_several() and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        there = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise UserError(f"trainer.device={name} cannot be used: this machine has {there}.") from error
    return device


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set an event, so that the step in progress is finished and saved; a second one kills."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
