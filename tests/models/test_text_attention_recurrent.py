"""Recurrent classifiers that attend to all states: sizes, the formula, padding, words that count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab.models.text_attention_recurrent import AttentionPooling, TextAttentionRecurrent
from dl_lab.models.text_recurrent import TextRecurrent
from dl_lab.tasks.binary_classification import BinaryClassification
from dl_lab.types import TokenBatch


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"vocabulary_size": 10_000}, 106_753),
        ({"vocabulary_size": 20_000, "dim": 100, "hidden": 128, "n_layers": 3, "bidirectional": True}, 3_092_353),
    ],
)
def test_attention_adds_a_square_layer_and_a_query(arguments, parameters):
    model = TextAttentionRecurrent(n_outputs=1, **arguments)
    width = model.head.in_features
    assert size(model) == parameters
    assert size(model) - size(TextRecurrent(n_outputs=1, **arguments)) == width * (width + 1) + width


def test_the_weights_are_those_of_the_naive_formula():
    torch.manual_seed(0)
    pooling = AttentionPooling(3)
    states = torch.randn(2, 4, 3)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    weights = pooling(states, mask)
    for row, allowed, found in zip(states, mask, weights, strict=True):
        scores = []
        for h in row[allowed]:
            u = torch.tanh(pooling.project.weight @ h + pooling.project.bias)
            scores.append(torch.exp(u @ pooling.query.weight[0]))
        expected = torch.stack(scores) / sum(scores)
        torch.testing.assert_close(found[allowed], expected)
        assert found[~allowed].eq(0).all()


def test_equal_scores_give_the_mean_of_the_states():
    model = TextAttentionRecurrent(50, 2, hidden=5)
    nn.init.zeros_(model.pooling.query.weight)
    tokens = torch.randint(1, 50, (3, 7))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    states = model.forwards[0](model.words(tokens))[0]
    torch.testing.assert_close(model(tokens, mask), model.head(states.mean(dim=1)))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_padding_on_either_side_changes_nothing(cell, bidirectional):
    torch.manual_seed(0)
    model = TextAttentionRecurrent(50, 2, cell, dim=6, hidden=5, n_layers=2, bidirectional=bidirectional).eval()
    tokens = torch.randint(1, 50, (4, 6))
    alone = model(tokens, torch.ones_like(tokens, dtype=torch.bool))
    for padding in ((3, 0), (0, 3)):
        padded = nn.functional.pad(tokens, padding)
        torch.testing.assert_close(model(padded, padded != 0), alone)
        weights = model.word_weights(padded, padded != 0)
        torch.testing.assert_close(weights[:, :6].sum(dim=1), torch.ones(4))
        assert weights[:, 6:].eq(0).all()


def test_a_text_without_tokens_has_a_finite_answer():
    model = TextAttentionRecurrent(50, 1, bidirectional=True)
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    assert model(tokens, tokens != 0).isfinite().all()


def test_it_learns_which_word_counts():
    """One word among random ones tells the class: the weight goes to it."""
    torch.manual_seed(0)
    tokens = torch.randint(3, 50, (64, 12))
    labels = torch.arange(64) % 2
    places = torch.randint(0, 12, (64,))
    tokens[torch.arange(64), places] = 1 + labels
    mask = torch.ones_like(tokens, dtype=torch.bool)
    model = TextAttentionRecurrent(50, 1, "gru", dim=8, hidden=8)
    batch, task = TokenBatch(tokens, mask, labels), BinaryClassification()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss, _ = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
    at_the_word = model.word_weights(tokens, mask).detach()[torch.arange(64), places]
    assert float(at_the_word.mean()) > 3 / 12  # a mean over the states would give 1/12


def test_no_layer_is_refused():
    with pytest.raises(ValueError, match="n_layers 0 is not at least 1"):
        TextAttentionRecurrent(50, 1, n_layers=0)
