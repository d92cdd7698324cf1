"""The mean of the loss over all updates since the start."""

from __future__ import annotations

import numpy as np
import pytest

from dl_lab.runs.files import read_losses
from dl_lab.training.running_means import NAME


def test_the_mean_is_over_all_updates_of_all_epochs(execute):
    target = "+callbacks.running_mean._target_=dl_lab.training.running_means.RunningMeanLoss"
    folder, metrics = execute("dataset=digits", "trainer.max_epochs=2", "logger=none", target)
    losses = read_losses(folder)
    assert len(losses) == 42
    assert metrics[NAME] == pytest.approx(np.mean(losses))
    assert metrics[NAME] > metrics["train/loss"]
