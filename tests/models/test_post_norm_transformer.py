"""The encoder of frozen word vectors: published size, torch's own layer, padding, attention maps."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from dl_lab.models.attention import mechanisms
from dl_lab.models.post_norm_transformer import PostNormTransformer, sinusoids

SMALL = {"dim": 12, "n_heads": 3, "n_layers": 2, "hidden": 16}


def build(attention=mechanisms.Fused, **changes):
    torch.manual_seed(0)
    return PostNormTransformer(40, 10, 4, attention, **{**SMALL, **changes}).eval()


def batch():
    mask = torch.arange(10) < torch.tensor([10, 4, 1])[:, None]
    tokens = torch.randint(2, 40, (3, 10), generator=torch.Generator().manual_seed(0)).masked_fill(~mask, 1)
    return tokens, mask


def test_the_published_size():
    with torch.device("meta"):
        model = PostNormTransformer(102_016, 128, 4, mechanisms.Softmax)
    assert sum(p.numel() for p in model.parameters()) == 12_012_196
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 1_810_596


def test_a_block_equals_torchs_encoder_layer():
    model = build(mechanisms.Softmax, n_layers=1)
    block = model.blocks[0]
    peer = nn.TransformerEncoderLayer(12, 3, 16, dropout=0.0, batch_first=True).eval()
    peer.self_attn.in_proj_weight.data = block.attention.project_in.weight.data
    peer.self_attn.in_proj_bias.data = block.attention.project_in.bias.data
    peer.self_attn.out_proj.load_state_dict(block.attention.project_out.state_dict())
    peer.linear1.load_state_dict(block.feedforward[0].state_dict())
    peer.linear2.load_state_dict(block.feedforward[3].state_dict())
    peer.norm1.load_state_dict(block.attention_norm.state_dict())
    peer.norm2.load_state_dict(block.feedforward_norm.state_dict())
    tokens, mask = batch()
    x = model.embed(tokens, mask)
    expected = peer(x.detach().requires_grad_(), src_key_padding_mask=~mask)  # a gradient: not torch's fast path
    torch.testing.assert_close(block(x, mask)[mask], expected[mask])


def test_positions_are_those_of_the_paper():
    table = sinusoids(50, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    place, i = 17, 1
    angle = torch.tensor(place / 10_000 ** (2 * i / 6))
    torch.testing.assert_close(table[place, 2 * i : 2 * i + 2], torch.stack([angle.sin(), angle.cos()]))
    assert sinusoids(3, 5).shape == (3, 5)


def test_padding_does_not_change_the_output():
    model = build()
    tokens, mask = batch()
    whole = model(tokens, mask)
    alone = torch.cat([model(row[None, :n], m[None, :n]) for row, m, n in zip(tokens, mask, (10, 4, 1), strict=True)])
    torch.testing.assert_close(whole, alone)
    moves = (0, 6, 9)
    left = [torch.stack([row.roll(n) for row, n in zip(x, moves, strict=True)]) for x in (tokens, mask)]
    torch.testing.assert_close(model(*left), whole)


NAMED = {
    "softmax": mechanisms.Softmax,
    "fused": mechanisms.Fused,
    "mclaurin": mechanisms.McLaurin,
    "elu": mechanisms.Elu,
    "random_features": mechanisms.RandomFeatures,
    "window": partial(mechanisms.Window, window=2),
    "strided": mechanisms.Strided,
}


@pytest.mark.parametrize("name", NAMED)
def test_attention_maps_are_the_weights_of_any_mechanism(name):
    model = build(NAMED[name])
    tokens, mask = batch()
    maps = model.attention_maps(tokens, mask)
    assert [layer.shape for layer in maps] == [(3, 3, 10, 10)] * 2
    for row, n in enumerate((10, 4, 1)):
        weights = maps[0][row, :, :n]
        torch.testing.assert_close(weights[..., :n].sum(-1), torch.ones(3, n))
        assert not weights[..., n:].any(), "no weight on padding"
    attention, x = model.blocks[0].attention, model.embed(tokens, mask)
    _, _, v = attention._project(x)
    rebuilt = attention.project_out((maps[0] @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(rebuilt[mask], attention(x, mask)[mask], atol=1e-5, rtol=1e-4)
