"""Speech models: the course's parameter counts and formulas, masked padding, steps that equal the whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from dl_lab.models.residual_attention import Attention
from dl_lab.models.speech import SpeechCTC, SpeechEncoder, SpeechToText, n_steps, sinusoids
from dl_lab.models.text_decoders import AttentionDecoder, RecurrentDecoder

SMALL = {"dim": 16, "n_heads": 2, "hidden": 24}


def encoder(mask_padding=True, n_layers=2, n_mels=8, max_frames=60, **sizes):
    return SpeechEncoder(
        n_mels, **{**SMALL, **sizes}, n_layers=n_layers, max_frames=max_frames, mask_padding=mask_padding
    )


def decoder(kind, text_length=12, n_symbols=9, **sizes):
    sizes = {**SMALL, **sizes}
    if kind == "recurrent":
        return RecurrentDecoder(n_symbols, **sizes)
    return AttentionDecoder(n_symbols, **sizes, text_length=text_length)


KINDS = ["recurrent", "attention"]


def model(kind, mask_padding=True):
    torch.manual_seed(0)
    if kind == "ctc":
        return SpeechCTC(encoder(mask_padding), 16, 9).eval()
    return SpeechToText(encoder(mask_padding), decoder(kind)).eval()


@pytest.fixture
def clips():
    """Return (features, n_frames, tokens) of three clips of different length, with zeros behind each."""
    torch.manual_seed(1)
    n_frames = torch.tensor([40, 23, 8])
    features = torch.randn(3, 40, 8) * (torch.arange(40) < n_frames[:, None])[..., None]
    return features, n_frames, torch.randint(0, 9, (3, 11))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_course():
    course = {"dim": 200, "n_heads": 2, "hidden": 400}
    assert count(encoder(n_mels=80, max_frames=2754, **course)) == 812_800
    assert count(encoder(n_mels=80, max_frames=2754, n_layers=4, **course)) == 1_456_800
    assert count(decoder("recurrent", n_symbols=35, **course)) == 658_435
    assert count(decoder("attention", n_symbols=35, text_length=99, **course)) == 517_035


def test_attention_is_the_formula():
    torch.manual_seed(0)
    attention, x, source = Attention(12, 3), torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    q, k, v = attention.query(x), attention.key(source), attention.value(source)
    heads = []
    for part in range(3):
        own = slice(4 * part, 4 * part + 4)
        weights = torch.softmax(q[..., own] @ k[..., own].mT / math.sqrt(4), dim=-1)
        heads.append(weights @ v[..., own])
        torch.testing.assert_close(attention.weights(x, attention.remember(source))[:, part], weights)
    torch.testing.assert_close(attention(x, attention.remember(source)), attention.out(torch.cat(heads, dim=-1)))


def test_positions_are_those_of_the_course():
    table = sinusoids(1377, 200)
    for position, i in ((0, 0), (5, 3), (1376, 99)):
        angle = position * math.exp(-math.log(3000) / 99 * i)
        assert float(table[position, i]) == pytest.approx(math.sin(angle), abs=1e-3)
        assert float(table[position, 100 + i]) == pytest.approx(math.cos(angle), abs=1e-3)


def test_the_encoder_halves_the_frames(clips):
    features, n_frames, _ = clips
    for length in (39, 40):
        encoded, mask = encoder()(features[:, :length], n_frames.clamp(max=length))
        assert encoded.shape == (3, 20, 16)
        assert mask.sum(dim=1).tolist() == [20, 12, 4] == n_steps(n_frames).tolist()
    assert encoder(mask_padding=False)(features, n_frames)[1] is None


@pytest.mark.parametrize("kind", [*KINDS, "ctc"])
def test_masked_padding_changes_nothing(kind, clips):
    features, n_frames, tokens = clips
    net = model(kind)
    for i, n in enumerate(n_frames.tolist()):
        if kind == "ctc":
            alone, (together, steps) = net(features[i : i + 1, :n], n_frames[i : i + 1])[0], net(features, n_frames)
            torch.testing.assert_close(together[i, : steps[i]], alone[0], atol=1e-5, rtol=1e-4)
        else:
            alone = net(features[i : i + 1, :n], n_frames[i : i + 1], tokens[i : i + 1])
            torch.testing.assert_close(net(features, n_frames, tokens)[i], alone[0], atol=1e-5, rtol=1e-4)


def test_unmasked_padding_counts_as_in_the_course(clips):
    features, n_frames, tokens = clips
    net = model("recurrent", mask_padding=False)
    alone = net(features[1:2, :23], n_frames[1:2], tokens[1:2])
    assert not torch.allclose(net(features, n_frames, tokens)[1], alone[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_padding", [True, False])
def test_steps_give_the_logits_of_the_whole_text(kind, mask_padding, clips):
    features, n_frames, tokens = clips
    net = model(kind, mask_padding)
    whole, memory = net(features, n_frames, tokens), net.encode(features, n_frames)
    state = net.start(3, 1, features.device)
    for i in range(tokens.shape[1]):
        logits, state = net.step(tokens[:, i : i + 1], state, memory)
        torch.testing.assert_close(logits[:, 0], whole[:, i], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_do_not_influence_each_other(kind, clips):
    features, n_frames, tokens = clips
    net = model(kind)
    others = torch.stack([tokens, tokens.flip(1)], dim=1)  # (batch, beams, length)
    memory, state = net.encode(features, n_frames), net.start(3, 2, features.device)
    for i in range(5):
        logits, state = net.step(others[..., i], state, memory)
    for b in range(2):
        whole = net(features, n_frames, others[:, b, :5])
        torch.testing.assert_close(logits[:, b], whole[:, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_symbol_sees_a_later_one(kind, clips):
    features, n_frames, tokens = clips
    net, changed = model(kind), tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 9
    before, after = net(features, n_frames, tokens), net(features, n_frames, changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("kind", [*KINDS, "ctc"])
def test_alignments_lie_on_the_clip(kind, clips):
    features, n_frames, tokens = clips
    looked = model(kind).alignment(features, n_frames, tokens)
    heads = 1 if kind == "ctc" else 2
    assert looked.shape == (3, heads, 10, 20)
    if kind == "ctc":
        likely = model(kind)(features, n_frames)[0].softmax(dim=-1)
        assert torch.equal(looked[1, 0, 4], likely[1, :, tokens[1, 5]])
    else:
        torch.testing.assert_close(looked.sum(dim=-1), torch.ones(3, heads, 10))
        assert not looked[2, ..., 4:].any()


def test_inputs_that_do_not_fit_are_refused(clips):
    features, n_frames, tokens = clips
    with pytest.raises(ValueError, match="more than max_frames 60"):
        encoder()(F.pad(features, (0, 0, 0, 30)), n_frames)
    with pytest.raises(ValueError, match="more than the 11"):
        model("attention")(features, n_frames, tokens.repeat(1, 2))
    with pytest.raises(ValueError, match="not a multiple"):
        Attention(10, 3)
    with pytest.raises(ValueError, match="even"):
        sinusoids(5, 7)
