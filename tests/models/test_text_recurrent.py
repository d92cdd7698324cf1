"""The recurrent classifiers: published sizes, packed sequences, and what padding does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab.models.text_recurrent import CELLS, TextRecurrent
from dl_lab.tasks.binary_classification import BinaryClassification
from dl_lab.types import TokenBatch


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"cell": "rnn"}, 101_441),
        ({"cell": "lstm"}, 105_665),
        ({"cell": "gru"}, 104_257),
        ({"cell": "lstm", "bidirectional": True}, 111_329),
    ],
)
def test_the_padova_models_have_their_published_sizes(arguments, parameters):
    assert size(TextRecurrent(10_000, 1, **arguments)) == parameters


def test_the_improved_buffalo_model_has_its_published_size():
    model = TextRecurrent(20_000, 1, dim=100, hidden=128, n_layers=3, bidirectional=True)
    assert size(model) == 3_026_305
    assert size(TextRecurrent(20_000, 1, dim=100, hidden=128, n_layers=3)) == 2_382_081


def ragged(padding, longest=9):
    lengths = torch.tensor([9, 3, 5, 1])
    place = torch.arange(longest)
    mask = place < lengths[:, None] if padding == "right" else place >= longest - lengths[:, None]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.zeros(4, longest, dtype=torch.int64)
    for row, counts, length in zip(tokens, mask, lengths.tolist(), strict=True):
        row[counts] = torch.randint(2, 50, (length,), generator=generator)
    return tokens, mask, lengths


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_skipping_the_padding_equals_packed_sequences(cell, bidirectional):
    torch.manual_seed(0)
    model = TextRecurrent(50, 2, cell, dim=6, hidden=5, n_layers=2, bidirectional=bidirectional)
    peer = CELLS[cell](6, 5, 2, batch_first=True, bidirectional=bidirectional)
    for i in range(2):
        parts = [(model.forwards[i], "")] + ([(model.backwards[i], "_reverse")] if bidirectional else [])
        for part, suffix in parts:
            for name, weight in part.named_parameters():
                getattr(peer, f"{name.removesuffix('_l0')}_l{i}{suffix}").data = weight.data
    tokens, mask, lengths = ragged("right")
    packed = nn.utils.rnn.pack_padded_sequence(model.words(tokens), lengths, batch_first=True, enforce_sorted=False)
    _, state = peer(packed)
    last = state[0] if isinstance(state, tuple) else state
    expected = model.head(torch.cat(list(last[-2:]) if bidirectional else [last[-1]], dim=1))
    torch.testing.assert_close(model(tokens, mask), expected)
    on_the_left, left_mask, _ = ragged("left")
    torch.testing.assert_close(model(on_the_left, left_mask), expected)


def test_the_last_step_forgets_a_text_before_much_padding():
    """Why imdb_lstm_last_step fails: behind enough padding all texts end in nearly the same state."""
    torch.manual_seed(0)
    model = TextRecurrent(50, 1, dim=8, hidden=16, skip_padding=False).eval()
    tokens = torch.randint(2, 50, (64, 20))

    def spread(n_padding):
        padded = nn.functional.pad(tokens, (0, n_padding), value=1)
        return float(model(padded, padded != 1).detach().std())

    assert spread(200) < 0.01 * spread(0)
    cured = TextRecurrent(50, 1, dim=8, hidden=16)
    padded = nn.functional.pad(tokens, (0, 200), value=1)
    torch.testing.assert_close(cured(padded, padded != 1), cured(tokens, tokens != 1))


def test_frozen_words_are_not_trained():
    model = TextRecurrent(50, 1, frozen_words=True)
    assert not model.words.weight.requires_grad
    with pytest.raises(ValueError, match="n_layers 0 is not at least 1"):
        TextRecurrent(50, 1, n_layers=0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_learns_a_tiny_batch(cell):
    torch.manual_seed(0)
    model = TextRecurrent(50, 1, cell, n_layers=2, bidirectional=True)
    tokens, mask, _ = ragged("right")
    batch, task = TokenBatch(tokens, mask, torch.tensor([0, 1, 1, 0])), BinaryClassification()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss, _ = task.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
