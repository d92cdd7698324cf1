"""The one training loop: epochs over a learner, validation, best weights, checkpoints, one look at test."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Literal

import torch

from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.recorder import Run
from dl_lab.runs.weights import save_same, save_weights
from dl_lab.stopping import StopSignals, count_stop_signals
from dl_lab.training import distributed
from dl_lab.training.continuation import Continuation
from dl_lab.training.devices import check_device_name, choose_device
from dl_lab.training.evaluation import judge, keep_best
from dl_lab.training.rehearsal import rehearse_fit
from dl_lab.training.session import Callback, Callbacks, Session
from dl_lab.training.updates import UpdateLoop, record_fingerprints
from dl_lab.types import ConfigError, Learner, Metrics, Split, Tally, as_metrics, read_tally


class Trainer:
    """Trains a learner on a data set."""

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
        max_steps: int | None = None,
        validate_every_steps: int = 0,
        limit_batches: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Take the settings of a training.

        Args:
            max_epochs: Epochs of the whole training.
            batch_size: Items of a training batch.
            seed: The seed of the order of the training items.
            eval_batch_size: Items of an evaluation batch; it changes no result.
            monitor: The validation metric that decides which weights are the best.
            mode: Whether the least ("min") or the greatest value ("max") is the best.
            test_weights: The weights that the one look at the test split judges: the best, or the last (as much
                coursework does).
            device: "auto", or a device of torch like "cuda:1".
            checkpoint_seconds: The least age of a checkpoint, in seconds, before the next one is written, also within
                an epoch. The next one also waits 50 times as long as writing took, so that checkpoints take at most
                2 % of a training. 0 writes them as often as possible.
            checkpoint_steps: Number of updates after which a checkpoint is written in any case; 0 for none.
            log_steps: The board gets the loss of one update in `log_steps`; 0 for none.
            judge_train: Whether the whole training split is judged after each epoch. These metrics replace the running
                train/ metrics.
            callbacks: The callbacks by name; null takes one away.
            max_steps: The number of updates that ends the training, even within an epoch; null sets no limit.
            validate_every_steps: Number of updates between two validations within an epoch; 0 for none. Such a
                validation can be the best one. Early stopping and schedules by epochs do not see it.
            limit_batches: The most batches of each split to use, for a quick look; null uses all.
            drop_last: Whether the last batch of an epoch is left out if it is smaller than the others.

        Raises:
            ValueError: `monitor` is no validation metric, `device` is no name of a device, or a number is too small.
        """
        if not monitor.startswith("val/"):
            raise ValueError(f"monitor {monitor!r} is not a val/ metric: selection must not look at train or test")
        if max_epochs < 1 or batch_size < 1 or eval_batch_size < 1:
            raise ValueError("max_epochs, batch_size and eval_batch_size must be at least 1")
        if (max_steps is not None and max_steps < 1) or (limit_batches is not None and limit_batches < 1):
            raise ValueError("max_steps and limit_batches must be at least 1, or null")
        if validate_every_steps < 0 or log_steps < 0 or checkpoint_steps < 0:
            raise ValueError("validate_every_steps, log_steps and checkpoint_steps must not be negative")
        check_device_name(device)
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.seed = seed
        self.eval_batch_size = eval_batch_size
        self.monitor = monitor
        self.mode = mode
        self.test_weights = test_weights
        self.device = device
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint_steps = checkpoint_steps
        self.log_steps = log_steps
        self.judge_train = judge_train
        self.callbacks = {name: callback for name, callback in (callbacks or {}).items() if callback is not None}
        self.max_steps = max_steps
        self.validate_every_steps = validate_every_steps
        self.limit_batches = limit_batches
        self.drop_last = drop_last

    def fit(self, learner: Learner, dataset: Dataset, run: Run) -> Metrics:
        """Train, keep the best weights, and judge test once. An interrupted run continues from its last checkpoint.

        Returns:
            The metrics of the chosen epoch and of the test split, by their full names.

        Raises:
            UserError: The training cannot continue: it diverged, was interrupted, a metric is not measured, or a
                checkpoint could not hold the state of the learner or of a callback.
        """
        callbacks = Callbacks(self.callbacks)
        continuation = Continuation(callbacks, self.checkpoint_seconds, self.checkpoint_steps)
        session = self._begin(learner, dataset, run)
        if not (run.resuming and continuation.restore(session)):
            learner.initialise()
        run.begin()
        if session.step == 0:
            record_fingerprints(session)
        continuation.refuse_unreadable(session)
        try:
            callbacks.start(session)
            with count_stop_signals(most=1) as interrupted, distributed.together():
                loop = self._build_loop(session, callbacks, continuation, interrupted)
                while self._continues(session):
                    loop.run_epoch()
                    self._close_epoch(session, loop)
            with distributed.together():
                return self._finish(session, callbacks)
        finally:
            callbacks.call("close", session)

    def rehearse(self, learner: Learner, dataset: Dataset) -> Metrics:
        """Run one update and one evaluation on a few items, with parts that were built for this only.

        Returns:
            The metrics of the evaluation.

        Raises:
            Exception: Any fault that would end the training in its first step.
        """
        Callbacks(self.callbacks)
        monitors = [self.monitor, *(getattr(callback, "monitor", "") for callback in self.callbacks.values())]
        return rehearse_fit(learner, dataset, self.max_epochs, monitors)

    # -- the beginning ----------------------------------------------------------------------------------------

    def _begin(self, learner: Learner, dataset: Dataset, run: Run) -> Session:
        """Put everything on its device, and plan the training."""
        device = choose_device(self.device)
        learner.to(device)
        dataset = dataset.to(device)
        learner.start(dataset)
        world = distributed.world()
        if world.size > 1:
            learner.distribute(world.size)
            dataset = dataset.divided(world.rank, world.size)
            distributed.seed_by_rank(self.seed)
        n_batches = self.count_batches(dataset)
        n_updates = self.max_epochs * n_batches
        n_epochs = self.max_epochs
        if self.max_steps is not None and self.max_steps < n_updates:
            n_updates = self.max_steps
            n_epochs = math.ceil(self.max_steps / n_batches)
        learner.plan(n_epochs, n_updates)
        if dataset.preprocessing:
            run.facts("preprocessing", dataset.preprocessing)
        session = Session(
            learner, dataset, run, n_epochs, self.batch_size, n_batches, world=world, max_steps=self.max_steps
        )
        run.read_epoch = lambda: session.position
        return session

    def count_batches(self, dataset: Dataset) -> int:
        """Return the batches of an epoch.

        Raises:
            ConfigError: `drop_last` would leave none.
        """
        n_batches = dataset.train.n_batches(self.batch_size)
        if self.drop_last and len(dataset.train) % self.batch_size:
            n_batches -= 1
            if n_batches == 0:
                raise ConfigError(
                    f"trainer.drop_last=true leaves no batch: the training split has {len(dataset.train)} items, a "
                    f"batch {self.batch_size}."
                )
        return min(n_batches, self.limit_batches or n_batches)

    def _build_loop(
        self, session: Session, callbacks: Callbacks, continuation: Continuation, interrupted: StopSignals
    ) -> UpdateLoop:
        return UpdateLoop(
            session,
            callbacks,
            continuation,
            interrupted,
            seed=self.seed,
            log_steps=self.log_steps,
            max_steps=self.max_steps,
            validate_every_steps=self.validate_every_steps,
            validate=lambda: self._validate_within(session, callbacks),
        )

    def _continues(self, session: Session) -> bool:
        is_complete = session.epoch >= session.max_epochs or session.step == self.max_steps
        return not is_complete and not session.stop_reason

    # -- validation -------------------------------------------------------------------------------------------

    def _close_epoch(self, session: Session, loop: UpdateLoop) -> None:
        """Validate, keep the best weights, record the metrics, and save."""
        began = time.perf_counter()
        if session.world.size > 1:
            session.learner.share_buffers()
        metrics = self._validate(session, loop.callbacks, session.epoch + 1)
        timings = {
            "samples_per_second": session.samples_per_second,
            "validation_seconds": time.perf_counter() - began,
        }
        rates = session.learner.rates()
        session.epoch += 1
        session.batch = 0
        session.tally = {}
        session.history.append(metrics)
        session.learner.end_epoch(metrics)
        loop.show()
        session.run.log({**metrics, **rates}, session.step, session.epoch, timings)
        if session.step & (session.step - 1):  # a power of two has its fingerprints already
            record_fingerprints(session)
        loop.callbacks.call("epoch_end", session, metrics)
        session.run.on_epoch(session.epoch, metrics)
        is_over = not self._continues(session)
        if session.world.share(loop.continuation.is_due_after_epoch(is_over)):
            loop.continuation.save(session)

    def _validate_within(self, session: Session, callbacks: Callbacks) -> None:
        """Validate within an epoch, and record it under a fraction of the epoch."""
        if session.world.size > 1:
            session.learner.share_buffers()
        metrics = self._validate(session, callbacks, session.position)
        session.run.log({**metrics, **session.learner.rates()}, session.step, session.position)

    def _validate(self, session: Session, callbacks: Callbacks, epoch: float) -> Metrics:
        """Judge the validation split (and the training split), and keep the weights if they are the best so far."""
        callbacks.call("evaluation_start", session, "val")
        train = session.tally
        if self.judge_train:
            train = train | self._judge(session, session.dataset.train)
        val = self._judge(session, session.dataset.val)
        metrics = read_tally(train, "train/") | read_tally(val, "val/")
        keep_best(session, metrics, self.monitor, self.mode, epoch)
        callbacks.call("evaluation_end", session, "val", metrics)
        _make_plain(metrics)
        return metrics

    def _judge(self, session: Session, split: Split) -> Tally:
        return judge(session.learner, split, self.eval_batch_size, self.limit_batches, session.world)

    # -- the end ----------------------------------------------------------------------------------------------

    def _finish(self, session: Session, callbacks: Callbacks) -> Metrics:
        """Save the best and the last weights, judge test once, and write the summary."""
        learner = session.learner
        run = session.run
        callbacks.call("evaluation_start", session, "test")
        self._save_weights(session)
        chosen = session.history[-1]
        epoch: float = session.epoch
        if self.test_weights == "best":
            learner.load_weights(session.best["weights"])
            chosen = session.best["metrics"]
            epoch = session.best["epoch"]
        tally = self._judge(session, session.dataset.test)
        metrics = {**chosen, **read_tally(tally, "test/")}
        callbacks.call("evaluation_end", session, "test", metrics)
        callbacks.call("fit_end", session, tally, metrics)
        _make_plain(metrics)
        run.log({name: value for name, value in metrics.items() if name not in chosen}, session.step, session.epoch)
        run.board.scalars({f"final/{name}": value for name, value in metrics.items()}, session.step)
        n_parameters, n_trainable = learner.n_parameters()
        facts: dict[str, object] = {
            "epoch": epoch,
            "epochs": session.epoch,
            "steps": session.step,
            "weights": self.test_weights,
            "monitor": self.monitor,
            "mode": self.mode,
            "best_epoch": session.best["epoch"],
            "stop_reason": session.stop_reason,
            "test_looks": 1 + run.summary.get("earlier_test_looks", 0),
            "parameters": n_parameters,
            "trainable": n_trainable,
            "dataset": session.dataset.summary(),
        }
        if self.limit_batches is not None:
            facts["limit_batches"] = self.limit_batches
        run.finish(metrics, **facts, **learner.notes())
        return metrics

    def _save_weights(self, session: Session) -> None:
        """Write last.safetensors and best.safetensors: two names of one file where the weights are the same."""
        folder = session.run.folder / "checkpoints"
        weights = session.learner.weights()
        last = {"epoch": session.epoch, self.monitor: session.history[-1][self.monitor]}
        best = {"epoch": session.best["epoch"], self.monitor: session.best["metrics"][self.monitor]}
        save_weights(folder / "last.safetensors", weights, last)
        if best == last and _are_equal(session.best["weights"], weights):  # a callback may have changed them
            save_same(folder / "best.safetensors", folder / "last.safetensors")
        else:
            save_weights(folder / "best.safetensors", session.best["weights"], best)


def _make_plain(metrics: Metrics) -> None:
    """Turn what callbacks added into plain numbers, in place: the best weights share the dictionary.

    Raises:
        UserError: A name is no text, or a value is no number.
    """
    metrics.update(as_metrics(metrics))


def _are_equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)
