"""A schedule over the whole training: the learner is told how many updates there will be."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from dl_lab import configs as config
from dl_lab.commands import resume
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.tasks.classification import Classification
from dl_lab.training.learners import GradientLearner
from dl_lab.types import LabelledBatch, UserError

BATCH = LabelledBatch(torch.rand(4, 3), torch.zeros(4, dtype=torch.long))
CYCLE = partial(OneCycleLR, max_lr=0.4, pct_start=0.25, anneal_strategy="linear", cycle_momentum=False)
WORDS = (
    "dataset=digits",
    "dataset.source=generated",
    "dataset.n_generated=80",
    "trainer.batch_size=20",
    "trainer.device=cpu",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "scheduler=one_cycle",
    "learner.schedule_every=step",
    "logger=none",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
)


def learner(scheduler, every="step"):
    return GradientLearner(nn.Linear(3, 2), Classification(), partial(torch.optim.SGD, lr=1.0), scheduler, every)


def rates(own, n):
    found = []
    for _ in range(n):
        found.append(own.rates()["lr"])
        own.update(BATCH)
    return [*found, own.rates()["lr"]]


def test_the_rate_rises_to_the_peak_and_falls_to_the_least():
    own = learner(CYCLE)
    own.plan(4, 40)
    found = rates(own, 40)
    assert found[0] == pytest.approx(0.4 / 25)
    assert max(found) == pytest.approx(0.4, rel=0.05) and 9 <= found.index(max(found)) <= 10
    assert found[-1] == pytest.approx(0.4 / 25 / 1e4)
    assert all(rate > 0 for rate in found)


def test_a_number_of_its_own_is_kept_and_others_are_not_told():
    own = learner(partial(CYCLE, total_steps=100))
    own.plan(4, 40)
    assert own.schedule.scheduler.total_steps == 100
    steps = learner(partial(StepLR, step_size=1), "epoch")
    steps.plan(4, 40)
    assert rates(steps, 3) == [1.0] * 4


def test_the_trainer_tells_the_updates_of_all_epochs(execute):
    folder, _ = execute(*WORDS, "trainer.max_epochs=3")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [record["lr"] for record in records if "lr" in record]
    assert len(found) == 3 and found[0] > found[1] > found[2] == pytest.approx(0.1 / 25 / 1e4)


def test_a_resumed_cycle_goes_on_where_it_was(execute, tmp_path, monkeypatch):
    from dl_lab.training.trainer import Trainer

    whole, _ = execute(*WORDS, "trainer.max_epochs=4", "trainer.checkpoint_seconds=0")
    close = Trainer._close_epoch

    def stopped(self, session, loop):
        close(self, session, loop)
        if session.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_close_epoch", stopped)
    with pytest.raises(BaseException, match="dl-lab resume"):
        execute(*WORDS, "trainer.max_epochs=4", "trainer.checkpoint_seconds=0")
    monkeypatch.undo()
    assert resume.main([str(tmp_path / "run1")]) == 0
    assert (tmp_path / "run1" / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_wrong_settings_are_found_before_anything_is_written(execute, tmp_path):
    from dl_lab.types import ConfigError

    with pytest.raises(ConfigError, match="pct_start"):
        execute(*WORDS, "scheduler.pct_start=3")
    assert not list(tmp_path.glob("run*"))


def test_too_few_updates_for_its_phases_is_one_sentence():
    with pytest.raises(UserError, match=r"too few updates \(3\)"):
        learner(CYCLE).plan(1, 3)


def test_the_rehearsal_knows_no_number_of_updates():
    """On 16 generated images the whole training would be 4 updates, and pct_start=0.2 of 5 steps a rise of none."""
    words = [*WORDS, "trainer.max_epochs=4", "trainer.batch_size=512", "scheduler.pct_start=0.2"]
    fit = rehearse(config.Composer().compose(words).config)
    assert fit.training().learner.schedule.scheduler.total_steps > 1000
