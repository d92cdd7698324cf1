"""The clock around some updates: it counts the waits for batches, and nothing else."""

from __future__ import annotations

import time

import pytest
import torch

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run
from dl_lab.tasks.classification import Classification
from dl_lab.training import waiting
from dl_lab.training.learners import GradientLearner
from dl_lab.training.session import Session
from dl_lab.training.trainer import Trainer
from dl_lab.training.waiting import CLOCKED, WaitingClock
from dl_lab.types import LabelledBatch


def test_a_wait_ends_with_the_batch_and_an_epoch_forgets_it(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: float(next(now)))
    clock = WaitingClock()
    clock.begin_epoch()
    clock.begin_update()  # 0: the first batch of an epoch, which is read after a validation
    clock.end_update()
    clock.begin_wait()  # 2
    clock.begin_update()
    clock.end_update()
    clock.begin_wait()
    clock.begin_epoch()
    clock.begin_update()
    assert (clock.waits, clock.works) == ([1.0], [1.0, 1.0])


class Ends:
    """Keeps the session of a fit."""

    session: Session

    def close(self, session):
        self.session = session

    def evaluation_start(self, session, split):
        time.sleep(0.05)  # no wait for a batch


class SlowSplit(TensorSplit):
    """Takes a moment for each batch."""

    def epoch(self, *arguments, **named):
        for batch in super().epoch(*arguments, **named):
            time.sleep(0.02)
            yield batch


@pytest.mark.parametrize(("kind", "is_slow"), [(SlowSplit, True), (TensorSplit, False)])
def test_the_loop_clocks_the_waits_for_batches_and_no_validations(tmp_path, kind, is_slow):
    items = LabelledBatch(torch.rand(40, 2), torch.arange(40) % 2)
    train, val = kind(items, lambda raw: raw), TensorSplit(items, lambda raw: raw)
    dataset = Dataset("x", "generated", train, val, val, fingerprint="")
    learner = GradientLearner(torch.nn.Linear(2, 2), Classification(), lambda weights: torch.optim.SGD(weights, lr=0.1))
    ends = Ends()
    trainer = Trainer(3, 2, device="cpu", callbacks={"ends": ends})
    trainer.fit(learner, dataset, Run.create(tmp_path / "run", {}, {}, NoBoard(), {}))
    clock = ends.session.clock
    assert len(clock.works) == 6 and len(clock.waits) == 5  # updates 0, 11, 22, 33, 44, 55 of 60; 0 begins an epoch
    assert ends.session.step == 60 and CLOCKED == 11
    assert all((wait > 0.015) == is_slow for wait in sorted(clock.waits)[:-1])  # a busy machine may delay one
