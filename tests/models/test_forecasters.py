"""Forecasters: shapes, parameter counts, and the inputs that each one uses."""

from __future__ import annotations

import pytest
import torch

from dl_lab import configs as config
from dl_lab.models.attention.mechanisms import Fused
from dl_lab.models.naive_forecast import FromLast, LinearAutoregression, Persistence, Seasonal
from dl_lab.models.recurrent_forecaster import RecurrentForecaster
from dl_lab.models.transformer_forecaster import TransformerForecaster


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_published_parameter_counts():
    assert size(RecurrentForecaster(13)) == 21069
    assert size(RecurrentForecaster(13, bidirectional=True)) == 42125


@pytest.mark.parametrize(
    "build",
    [
        lambda: RecurrentForecaster(3, horizon=2, hidden=16),
        lambda: RecurrentForecaster(3, horizon=2, hidden=16, cell="gru", bidirectional=True),
        lambda: RecurrentForecaster(3, horizon=2, hidden=16, bidirectional=True, n_layers=3),
        lambda: TransformerForecaster(3, 6, Fused, horizon=2, dim=8, heads=2, layers=1),
        lambda: FromLast(RecurrentForecaster(3, horizon=2, hidden=16)),
        lambda: LinearAutoregression(6, 3, 2),
    ],
    ids=["lstm", "gru", "layers", "transformer", "change", "linear"],
)
def test_forecast_depends_on_every_step_and_feature(build):
    torch.manual_seed(0)
    model = build()
    x = torch.rand(4, 6, 3, requires_grad=True)
    forecast = model.eval()(x)
    assert forecast.shape == (4, 2, 3)
    forecast.square().sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_more_layers_read_the_top_one(cell):
    """The forecast is the head of the last state of the top layer, both directions of it."""
    torch.manual_seed(0)
    model = RecurrentForecaster(3, hidden=5, cell=cell, bidirectional=True, n_layers=2).eval()
    x = torch.rand(4, 6, 3)
    outputs, _ = model.recurrent(x)
    top = torch.cat([outputs[:, -1, :5], outputs[:, 0, 5:]], dim=1)  # each direction after its own last step
    torch.testing.assert_close(model(x)[:, 0], model.head(top))


def test_dropout_acts_between_the_layers_too():
    model = RecurrentForecaster(3, dropout=0.5, n_layers=2)
    assert model.recurrent.dropout == 0.5
    assert size(model) == size(RecurrentForecaster(3)) + 4 * (64 + 64 + 2) * 64
    with pytest.raises(ValueError, match="n_layers 0 is not at least 1"):
        RecurrentForecaster(3, n_layers=0)


def test_naive_forecasts():
    x = torch.arange(12.0).view(1, 6, 2)
    assert Persistence(2)(x).tolist() == [[[10, 11], [10, 11]]]
    assert Seasonal(3, period=2)(x).tolist() == [[[8, 9], [10, 11], [8, 9]]]
    with pytest.raises(ValueError, match="a window of 6 steps does not hold a period of 7"):
        Seasonal(1, period=7)(x)


def test_autoregression_recovers_a_linear_rule():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, 2, generator=generator)
    y = 2 * x[:, -1:] - x[:, :1] + 0.5
    model = LinearAutoregression(3, 2, 1).fit(x, y, ridge=1e-9)
    torch.testing.assert_close(model(x), y, atol=1e-5, rtol=1e-5)


def test_dim_must_divide():
    with pytest.raises(ValueError, match="dim 10 is not a multiple of n_heads 4"):
        TransformerForecaster(3, 6, Fused, dim=10)


@pytest.mark.parametrize("mechanism", ["fused", "softmax", "mclaurin", "elu", "random_features", "window", "strided"])
def test_the_transformer_takes_any_mechanism_by_config(mechanism):
    words = ["experiment=air_transformer", f"model/attention={mechanism}", "dataset.source=generated"]
    composed = config.Composer().compose(words)
    model = config.build({"model": composed.config["procedure"]["learner"]["model"]}, "model")
    x = torch.randn(2, model.position.shape[0], composed.config["dataset"]["n_features"])
    assert model(x).shape == (2, 1, x.shape[2])
    assert type(model.blocks[0].attention.attention).__name__.lower() == mechanism.replace("_", "")
