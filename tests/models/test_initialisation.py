"""Initial weights by config, and the published parameter counts of the feed-forward nets."""

from __future__ import annotations

import pytest
import torch

from dl_lab import configs as config
from dl_lab.jobs.procedure import build_procedure

COUNTS = {
    "octmnist_logistic_regression": 3_140,
    "octmnist_feedforward": 198_004,
    "octmnist_mlp_numpy": 157_804,
    "octmnist_perceptron": 4 * 785,
    "digits_softmax": 650,
    "ag_news_feedforward": 68_484,
    "ag_news_l1": 297_668,
    "ag_news_l2": 297_668,
    "ag_news_early_stopping": 297_668,
    "ag_news_learning_rate": 136_644,
    "ag_news_grid_search": 299_620,
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_count(name):
    composed = config.Composer().compose([f"experiment={name}", "profile=smoke"])
    facts = build_procedure(composed.config).describe()
    assert (facts["parameters"], facts["trainable"]) == (COUNTS[name], COUNTS[name])


def test_normal_weights_and_zero_biases():
    torch.manual_seed(0)
    composed = config.Composer().compose(["dataset=ag_news", "model=normal_mlp", "model.hidden=[300,200]"])
    model = config.build(composed.config, "model")
    linear = [module for module in model if isinstance(module, torch.nn.Linear)]
    assert len(linear) == 3
    for layer in linear[:2]:
        assert layer.weight.mean().abs() < 0.002
        assert layer.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert all(not layer.bias.any() for layer in linear)
