"""The encoder-decoder with a prompt: when the prompt leaks the label, and when it does not."""

from __future__ import annotations

import pytest
import torch

from dl_lab.models.text_seq2seq import TextSeq2Seq
from dl_lab.tasks.binary_classification import BinaryClassification
from dl_lab.types import TokenBatch


def build(**changes):
    torch.manual_seed(0)
    return TextSeq2Seq(30, 1, **{"dim": 8, "n_heads": 2, "hidden": 16, "dropout": 0.0, **changes})


def batch(n):
    tokens = torch.randint(2, 30, (n, 6), generator=torch.Generator().manual_seed(n))
    return TokenBatch(tokens, torch.ones(n, 6, dtype=torch.bool), torch.arange(n) % 2)


def test_a_constant_start_hides_the_labels():
    model, task, texts = build().eval(), BinaryClassification(), batch(4)
    logits = model(texts.x, texts.mask)
    for label in (0, 1):
        same = texts._replace(y=torch.full((4,), label))
        task.measure(model, same)
        torch.testing.assert_close(task._predict(model, same)[0], logits.squeeze(1))
    torch.testing.assert_close(model(texts.x, texts.mask, torch.zeros(4, dtype=torch.int64)), logits)


def test_in_a_batch_of_one_the_previous_label_is_the_texts_own():
    """All texts are alike here: only the leak tells their labels, in batches of one and nowhere else."""
    model, task = build(), BinaryClassification(prompt="previous_label")
    one = batch(1)
    texts = [one._replace(y=torch.tensor([label])) for label in (0, 1)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(80):
        loss, _ = task.loss(model, texts[step % 2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert all(task.measure(model, text)["accuracy"].values("accuracy")["accuracy"] == 1 for text in texts)
    pair = TokenBatch(one.x.repeat(2, 1), one.mask.repeat(2, 1), torch.tensor([0, 1]))
    assert task.measure(model, pair)["accuracy"].values("accuracy")["accuracy"] == 0


def test_attention_may_skip_the_padding():
    model, texts = build(skip_padding=True).train(), batch(3)
    padded = torch.nn.functional.pad(texts.x, (0, 5), value=1)
    mask = torch.arange(11).expand(3, 11) < 6
    torch.testing.assert_close(model(padded, mask), model(texts.x, texts.mask), atol=1e-5, rtol=1e-4)


def test_it_has_as_many_parameters_as_the_source():
    """T4: a word embedding, an embedding of two labels, nn.Transformer with one layer each, one linear unit."""
    model = TextSeq2Seq(10_000, 1)
    transformer = torch.nn.Transformer(32, 4, 1, 1, 128, 0.1, batch_first=True)
    expected = 10_000 * 32 + 2 * 32 + sum(p.numel() for p in transformer.parameters()) + 32 + 1
    assert sum(p.numel() for p in model.parameters()) == expected


def test_heads_must_divide():
    with pytest.raises(ValueError, match="dim 8 is not a multiple of n_heads 3"):
        build(n_heads=3)
