"""The transcription tasks: the course's loss, the masked one, augmentation, and each model learns one tiny batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dl_lab.models.speech import SpeechCTC, SpeechEncoder, SpeechToText
from dl_lab.models.text_decoders import AttentionDecoder, RecurrentDecoder
from dl_lab.tasks.text_similarity import cut_at_stop
from dl_lab.tasks.transcription import ConnectionistTranscription, Transcription
from dl_lab.types import PADDING, START, STOP, SpeechBatch, read_tally

SIZES = {"dim": 32, "n_heads": 2, "hidden": 48}
N_SYMBOLS, LENGTH = 9, 6
PLAIN = {"label_smoothing": 0.1, "mask_padding": False, "beams": 1, "length_penalty": 0.0}


@pytest.fixture
def batch():
    """Four clips: each symbol is its own band for six frames, with silence around."""
    torch.manual_seed(0)
    texts = [[5, 6, 7, 8], [8, 6], [7, 5, 8], [6, 6]]
    features, tokens = torch.zeros(4, 34, 9), torch.full((4, LENGTH), PADDING)
    n_frames = torch.tensor([8 * len(text) + 2 for text in texts])
    for row, text in enumerate(texts):
        for place, symbol in enumerate(text):
            features[row, 8 * place + 2 : 8 * place + 8, symbol] = 1
        tokens[row, : len(text) + 2] = torch.tensor([START, *text, STOP])
    return SpeechBatch(features, n_frames, tokens)


def model(kind, mask_padding=True):
    torch.manual_seed(0)
    encoder = SpeechEncoder(9, **SIZES, n_layers=1, max_frames=40, mask_padding=mask_padding)
    if kind == "ctc":
        return SpeechCTC(encoder, 32, N_SYMBOLS)
    if kind == "recurrent":
        return SpeechToText(encoder, RecurrentDecoder(N_SYMBOLS, **SIZES))
    return SpeechToText(encoder, AttentionDecoder(N_SYMBOLS, **SIZES, text_length=LENGTH))


def test_the_loss_of_the_course_counts_padding(batch):
    net = model("attention")
    loss, tally = Transcription(**PLAIN).loss(net, batch)
    logits = net(batch.features, batch.n_frames, batch.tokens[:, :-1])
    smoothed = torch.full_like(logits, 0.1 / N_SYMBOLS).scatter_add(
        2, batch.tokens[:, 1:, None], torch.full((4, LENGTH - 1, 1), 0.9)
    )
    expected = -(smoothed * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(loss, expected)
    assert read_tally(tally)["loss"] == pytest.approx(float(expected.detach()))


def test_the_masked_loss_counts_the_text_and_its_stop(batch):
    net, task = model("attention"), Transcription(**{**PLAIN, "mask_padding": True, "label_smoothing": 0.0})
    loss, tally = task.loss(net, batch)
    scores = net(batch.features, batch.n_frames, batch.tokens[:, :-1]).log_softmax(dim=-1)
    counted = [
        float(scores[row, place - 1, symbol].detach())
        for row, text in enumerate(batch.tokens.tolist())
        for place, symbol in enumerate(text)
        if place and symbol != PADDING
    ]
    assert float(loss.detach()) == pytest.approx(-sum(counted) / len(counted), abs=1e-5)
    assert int(tally["loss"].count) == len(counted) == 15


@pytest.mark.parametrize("mask_padding", [True, False])
def test_uneven_batches_average_exactly(batch, mask_padding):
    net, task = model("recurrent").eval(), Transcription(**{**PLAIN, "mask_padding": mask_padding})
    whole = read_tally(task.measure(net, batch))
    first, second = (SpeechBatch(*[c[part] for c in batch]) for part in (slice(0, 3), slice(3, 4)))
    parts = [task.measure(net, part) for part in (first, second)]
    for name, value in whole.items():
        summed = parts[0][name] + parts[1][name]
        assert summed.values("")[""] == pytest.approx(value, abs=1e-5), name


def test_ctc_is_torchs_loss_per_symbol(batch):
    net = model("ctc")
    loss, _ = ConnectionistTranscription().loss(net, batch)
    logits, steps = net(batch.features, batch.n_frames)
    expected = []
    for i, text in enumerate([[5, 6, 7, 8], [8, 6], [7, 5, 8], [6, 6]]):
        scores = logits[i, : steps[i]].log_softmax(dim=-1)[:, None]
        whole = F.ctc_loss(
            scores, torch.tensor([text]), torch.tensor([len(scores)]), torch.tensor([len(text)]), PADDING, "sum"
        )
        expected.append(whole / len(text))
    torch.testing.assert_close(loss, torch.stack(expected).mean())


@pytest.mark.parametrize(("kind", "steps"), [("recurrent", 60), ("attention", 60), ("ctc", 120)])
def test_it_learns_one_batch_by_heart(kind, steps, batch):
    net = model(kind).train()
    task = ConnectionistTranscription() if kind == "ctc" else Transcription(**{**PLAIN, "mask_padding": True})
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        loss, _ = task.loss(net, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    metrics = read_tally(task.measure(net.eval(), batch))
    assert metrics["cer"] == 0 and metrics["wer"] == 0
    assert metrics["jaccard"] == metrics["cosine"] == metrics["damerau_levenshtein"] == 1


@pytest.mark.parametrize("kind", ["attention", "ctc"])
def test_only_training_is_augmented(kind, batch):
    seen = []

    def silence(features):
        seen.append(features.shape)
        return torch.zeros_like(features)

    task = ConnectionistTranscription(augment=silence) if kind == "ctc" else Transcription(**PLAIN, augment=silence)
    net = model(kind).eval()
    quiet = batch._replace(features=torch.zeros_like(batch.features))
    loss, _ = task.loss(net, batch)
    assert seen == [(4, 9, 34)]  # (batch, mels, frames), what torchaudio masks
    torch.testing.assert_close(loss, task.loss(net, quiet)[0])
    assert read_tally(task.measure(net, batch))["loss"] != pytest.approx(float(loss.detach()))
    assert len(seen) == 2


def test_spec_augment_masks_bands_and_times():
    from torchaudio.transforms import SpecAugment

    from dl_lab.tasks.transcription import augment_features

    torch.manual_seed(0)
    batch = SpeechBatch(torch.randn(4, 200, 80), torch.full((4,), 200), torch.zeros(4, 3))
    masked = augment_features(batch, SpecAugment(1, 80, 1, 27, iid_masks=True, p=0.2))
    hit = (masked != batch.features).float()
    bands, times = (hit.mean(dim=1) == 1).sum(dim=1), (hit.mean(dim=2) == 1).sum(dim=1)
    assert bands.max() <= 27 and times.max() <= 40  # p: at most a fifth of the frames
    assert len(set(bands.tolist())) > 1 and times.any()


def test_the_beam_is_used(batch):
    """If all symbols are nearly equally probable, the most probable text is the shortest."""
    net = model("attention").eval()
    one, many = (Transcription(**{**PLAIN, "beams": beams}).write(net, batch) for beams in (1, 20))
    assert all(len(cut_at_stop(row)) == 2 for row in many.tolist())
    assert any(len(cut_at_stop(row)) > 2 for row in one.tolist())
    with pytest.raises(ValueError, match="beams 0"):
        Transcription(**{**PLAIN, "beams": 0})


def test_the_prefix_search_is_used(batch):
    """Both `write` and `measure` search prefixes; test_decoding checks the search itself."""
    net = model("ctc").eval()
    torch.nn.init.normal_(net.head.weight, std=0.3)
    one, many = (ConnectionistTranscription(beams=beams) for beams in (1, 20))
    assert not torch.equal(one.write(net, batch), many.write(net, batch))
    assert read_tally(many.measure(net, batch._replace(tokens=many.write(net, batch))))["cer"] == 0
    with pytest.raises(ValueError, match="beams 0"):
        ConnectionistTranscription(beams=0)
