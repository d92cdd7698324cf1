"""Reconstruction: against the clean input, with noise that evaluation repeats."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab.tasks.reconstruction import Reconstruction
from dl_lab.types import WindowBatch

BATCH = WindowBatch(torch.full((64, 40), 0.5))


def test_the_target_is_clean():
    loss, tally = Reconstruction(0.1).loss(nn.Identity(), BATCH)
    assert abs(float(loss) - 0.01) < 0.001, "an identity keeps the noise's variance"
    assert tally["loss"].count == 64
    assert float(Reconstruction().loss(nn.Identity(), BATCH)[0]) == 0


def test_noise_is_clipped_to_the_range_of_pixels():
    noisy = Reconstruction(noise=1.0).add_noise(BATCH.x)
    assert (float(noisy.min()), float(noisy.max())) == (0, 1)
    assert float(Reconstruction(noise=1.0, clip=False).add_noise(BATCH.x).max()) > 1


def test_evaluation_repeats_its_noise_and_leaves_the_training_stream_alone():
    task = Reconstruction(noise=0.3)
    state = torch.get_rng_state()
    first, second = (float(task.measure(nn.Identity(), BATCH)["loss"].sum) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    one, two = (float(task.loss(nn.Identity(), BATCH)[0]) for _ in range(2))
    assert one != two


def test_negative_noise():
    with pytest.raises(ValueError, match="noise -1 is negative"):
        Reconstruction(noise=-1)


def test_a_reconstruction_of_another_shape_is_refused_and_not_broadcast():
    for act in (Reconstruction().loss, Reconstruction().measure):
        with pytest.raises(ValueError, match=r"the model's output is \(64, 1\), but the task needs \(64, 40\)"):
            act(nn.Linear(40, 1), BATCH)
