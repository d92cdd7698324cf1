"""The text Transformer takes any mechanism, ignores padding, can be causal, and learns."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from dl_lab import configs as config
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.models.attention import mechanisms
from dl_lab.models.attention.multi_head import MultiHeadAttention
from dl_lab.models.text_transformer import TextTransformer
from dl_lab.types import ConfigError

MECHANISMS = sorted(config.Composer().loader.get_group_options("model/attention"))
SMALL = ["experiment=ag_news_attention", "dataset.length=40", "dataset.vocabulary_size=300", "model.dropout=0"]


def build(*overrides: str) -> TextTransformer:
    torch.manual_seed(0)
    return config.build(config.Composer().compose([*SMALL, *overrides]).config, "model")


def tokens_and_mask(length: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(2, 300, (3, length), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(length) < torch.tensor([[length], [10], [1]])
    return tokens, mask


@pytest.mark.parametrize("name", MECHANISMS)
def test_padding_does_not_change_the_output(name):
    model = build(f"model/attention={name}").eval()
    tokens, mask = tokens_and_mask()
    logits = model(tokens, mask)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(model(tokens.masked_fill(~mask, 7), mask), logits)
    if name != "strided":  # its stride follows the padded length
        torch.testing.assert_close(model(tokens[1:2, :10], mask[1:2, :10]), logits[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "low_rank"])
def test_causal_blocks_do_not_see_later_tokens(name):
    block = build(f"model/attention={name}", "model.causal=true").eval().blocks[0]
    x = torch.randn(1, 24, 64)
    mask = torch.ones(1, 24, dtype=torch.bool)
    changed = torch.cat([x[:, :15], torch.randn(1, 9, 64)], dim=1)
    torch.testing.assert_close(block(changed, mask)[:, :15], block(x, mask)[:, :15], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MECHANISMS)
def test_learns_a_few_texts_by_heart(name):
    model = build(f"model/attention={name}")
    tokens, mask = tokens_and_mask()
    labels = torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(model(tokens, mask), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model(tokens, mask).argmax(dim=1).equal(labels)


def test_multi_head_attention_equals_torchs():
    ours = MultiHeadAttention(8, 2, mechanisms.Fused, length=5)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.project_in.weight)
        theirs.in_proj_bias.copy_(ours.project_in.bias)
        theirs.out_proj.weight.copy_(ours.project_out.weight)
        theirs.out_proj.bias.copy_(ours.project_out.bias)
    x, mask = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected, _ = theirs(x, x, x, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim 10 is not a multiple of n_heads 4"):
        MultiHeadAttention(10, 4, mechanisms.Softmax, length=5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model/attention=low_rank", "model.causal=true"), "low-rank attention cannot be causal"),
        (("model/attention=low_rank", "model.attention.rank=41"), "rank 41 is above the length 40"),
        (("model/attention=mclaurin", "model.attention.terms=2"), "terms 2 is even"),
        (("model.n_heads=5",), "dim 64 is not a multiple of n_heads 5"),
    ],
)
def test_check_refuses_what_cannot_work(overrides, words):
    composed = config.Composer().compose([*SMALL, *overrides])
    config.check(composed.config)
    with pytest.raises(ConfigError, match=words):
        rehearse(composed.config)


def test_every_layer_has_its_own_mechanism():
    model = TextTransformer(50, 16, 4, partial(mechanisms.LowRank, rank=4), dim=8, n_heads=2, hidden=8)
    projections = {id(block.attention.attention.project_k) for block in model.blocks}
    assert len(projections) == 2
