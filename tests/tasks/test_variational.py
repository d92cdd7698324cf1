"""The bound against torch's own KL and a hand-made model; its units; the same noise at every evaluation."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from dl_lab.models.vae import VAE
from dl_lab.tasks.variational import Variational, divergence
from dl_lab.types import LabelledBatch, add_tallies, read_tally

BATCH = LabelledBatch(torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(32))


def test_divergence_is_the_kl_of_two_normals():
    mean, log_variance = torch.randn(10, 3), torch.randn(10, 3)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    assert float(divergence(torch.zeros(1), torch.zeros(1))) == 0


def test_loss_and_bound_by_hand():
    class Fixed(nn.Module):
        def forward(self, x, _generator=None):
            return torch.zeros_like(x), torch.full((len(x), 2), 2.0), torch.zeros(len(x), 2)

    loss, tally = Variational(beta=0.5).loss(Fixed(), BATCH)
    metrics = read_tally(tally)
    assert math.isclose(metrics["reconstruction"], math.log(2), rel_tol=1e-6)
    assert math.isclose(metrics["kl"], 4, rel_tol=1e-6)  # two dimensions of mean²/2
    assert math.isclose(float(loss), math.log(2) + 0.5 * 4, rel_tol=1e-6)
    assert math.isclose(metrics["negative_elbo"], 16 * math.log(2) + 4, rel_tol=1e-6)


def test_beta_of_one_over_pixels_trains_the_bound():
    torch.manual_seed(0)
    metrics = read_tally(Variational(beta=1 / 16).measure(VAE((1, 4, 4), [8], 2), BATCH))
    assert math.isclose(metrics["loss"] * 16, metrics["negative_elbo"], rel_tol=1e-5)


def test_evaluation_repeats_its_noise_and_leaves_the_training_stream_alone():
    torch.manual_seed(0)
    model, task = VAE((1, 4, 4), [8], 2), Variational()
    state = torch.get_rng_state()
    first, second = (read_tally(task.measure(model, BATCH)) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_uneven_batches_average_exactly():
    class Shifted(nn.Module):
        def forward(self, x, _generator=None):
            flat = x.flatten(1)
            return x, flat[:, :2], flat[:, 2:4]

    whole = read_tally(Variational().measure(Shifted(), BATCH))
    parts = [
        Variational().measure(Shifted(), LabelledBatch(BATCH.x[s], BATCH.y[s])) for s in (slice(20), slice(20, 32))
    ]
    for name, value in read_tally(add_tallies(*parts)).items():
        assert math.isclose(value, whole[name], rel_tol=1e-5), name
