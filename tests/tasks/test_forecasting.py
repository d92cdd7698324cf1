"""R²: as scikit-learn defines it, exactly additive, undefined for a constant feature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

from dl_lab.tasks.forecasting import Determination, Forecasting
from dl_lab.types import ForecastBatch, add_tallies, read_tally


def data(n=50):
    generator = torch.Generator().manual_seed(0)
    actual = torch.rand(n, 1, 3, generator=generator)
    return actual + 0.2 * torch.randn(n, 1, 3, generator=generator), actual


def test_agrees_with_scikit_learn():
    predicted, actual = data()
    measure = Determination.of(predicted, actual)
    y, p = actual[:, 0].numpy(), predicted[:, 0].numpy()
    np.testing.assert_allclose(measure.pooled(), r2_score(y, p, multioutput="variance_weighted"), rtol=1e-6)
    np.testing.assert_allclose(measure.per_feature(), r2_score(y, p, multioutput="raw_values"), rtol=1e-6)
    np.testing.assert_allclose(measure.uniform(), r2_score(y, p), rtol=1e-6)


def test_a_constant_feature_has_no_r2_and_is_left_out_of_the_plain_mean():
    predicted, actual = data()
    actual[..., 1] = 0.3
    measure = Determination.of(predicted, actual)
    scores = measure.per_feature()
    assert math.isnan(scores[1])
    assert math.isclose(measure.uniform(), float((scores[0] + scores[2]) / 2), rel_tol=1e-9)


def test_unobserved_targets_do_not_count():
    predicted, actual = data()
    observed = torch.ones_like(actual, dtype=torch.bool)
    observed[::3] = False
    part = Determination.of(predicted, actual, observed)
    kept = Determination.of(predicted[observed].view(-1, 1, 3), actual[observed].view(-1, 1, 3))
    torch.testing.assert_close(part.per_feature(), kept.per_feature())


def test_uneven_batches_add_up():
    predicted, actual = data()
    observed = torch.rand(actual.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    noise = iter([predicted, predicted[:33], predicted[33:]])

    class Given(nn.Module):
        def forward(self, _x):
            return next(noise)

    batch = ForecastBatch(actual, actual, observed)
    task, model = Forecasting(), Given()
    whole = read_tally(task.measure(model, batch))
    parts = [task.measure(model, ForecastBatch(*[c[s] for c in batch])) for s in (slice(33), slice(33, None))]
    for name, value in read_tally(add_tallies(*parts)).items():
        assert math.isclose(value, whole[name], rel_tol=1e-6), name
    assert set(whole) == {"loss", "mae", "r2", "r2_uniform", "r2_observed", "r2_observed_uniform"}


@pytest.mark.parametrize("output", [(1, 1), (1,), (1, 1, 3)])
def test_a_forecast_of_another_shape_is_refused_and_not_broadcast(output):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, math.prod(output)), nn.Unflatten(1, output))
    batch = ForecastBatch(torch.rand(5, 4, 3), torch.rand(5, 2, 3), torch.ones(5, 2, 3, dtype=torch.bool))
    for act in (Forecasting().loss, Forecasting().measure):
        with pytest.raises(ValueError, match=r"the model's output is \(5, .*\), but the task needs \(5, 2, 3\)"):
            act(model, batch)
