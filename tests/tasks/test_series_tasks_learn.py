"""It learns: each task and model overfits one small batch."""

from __future__ import annotations

import pytest
import torch

from dl_lab.models.attention.mechanisms import Fused
from dl_lab.models.autoencoder import Autoencoder
from dl_lab.models.naive_forecast import FromLast
from dl_lab.models.recurrent_forecaster import RecurrentForecaster
from dl_lab.models.series_autoencoders import ConvAutoencoder, LSTMAutoencoder
from dl_lab.models.transformer_forecaster import TransformerForecaster
from dl_lab.models.vae import VAE, ConvVAE
from dl_lab.tasks.forecasting import Forecasting
from dl_lab.tasks.reconstruction import Reconstruction
from dl_lab.tasks.variational import Variational
from dl_lab.types import ForecastBatch, WindowBatch, read_tally


def waves(n=8, length=16):
    time = torch.arange(length + 1) / 8 * torch.pi + torch.arange(n)[:, None]
    return torch.stack([time.sin(), time.cos()], dim=2)  # (n, length + 1, 2)


FORECAST = ForecastBatch(waves()[:, :-1], waves()[:, -1:], torch.ones(8, 1, 2, dtype=torch.bool))
WINDOWS = WindowBatch(waves()[:, :-1])
IMAGES = WindowBatch((torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float())
CASES = {
    "lstm": (lambda: RecurrentForecaster(2, hidden=16, dropout=0), Forecasting(), FORECAST, "loss", 0.01),
    "gru": (lambda: RecurrentForecaster(2, hidden=16, cell="gru", dropout=0), Forecasting(), FORECAST, "loss", 0.01),
    "change": (
        lambda: FromLast(RecurrentForecaster(2, hidden=16, dropout=0)),
        Forecasting(),
        FORECAST,
        "loss",
        0.01,
    ),
    "transformer": (
        lambda: TransformerForecaster(2, 16, Fused, dim=16, heads=2, layers=1, dropout=0),
        Forecasting(),
        FORECAST,
        "loss",
        0.01,
    ),
    "conv autoencoder": (lambda: ConvAutoencoder((16, 2)), Reconstruction(), WINDOWS, "loss", 0.02),
    "lstm autoencoder": (lambda: LSTMAutoencoder((16, 2), 16), Reconstruction(), WINDOWS, "loss", 0.02),
    "dense autoencoder": (
        lambda: Autoencoder((1, 8, 8), [32], activation="relu"),
        Reconstruction(),
        IMAGES,
        "loss",
        0.02,
    ),
    "vae": (lambda: VAE((1, 8, 8), [64], 8), Variational(0.0), IMAGES, "reconstruction", 0.05),
    "conv vae": (lambda: ConvVAE((1, 8, 8), (8, 16), 8), Variational(0.0), IMAGES, "reconstruction", 0.05),
}


@pytest.mark.parametrize("name", CASES)
def test_overfits_one_batch(name):
    torch.manual_seed(0)
    build, task, batch, metric, goal = CASES[name]
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(model, batch)[0].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert read_tally(task.measure(model, batch))[metric] < goal
