"""Decoding: greedy and beam search, over a decoder and over CTC, against exhaustive search."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dl_lab.models.speech import SpeechEncoder, SpeechToText
from dl_lab.models.text_decoders import AttentionDecoder, RecurrentDecoder
from dl_lab.tasks.decoding import find_best_path, find_best_text, search_beams, search_greedily, search_prefixes
from dl_lab.types import PADDING, START, STOP

N_SYMBOLS, LENGTH, SEED = 6, 3, 3


@pytest.fixture(params=["recurrent", "attention"])
def model(request):
    """Random weights, sharpened so that texts differ and end at different lengths."""
    torch.manual_seed(SEED)
    sizes = {"dim": 8, "n_heads": 2, "hidden": 8}
    decoder = (
        RecurrentDecoder(N_SYMBOLS, **sizes)
        if request.param == "recurrent"
        else AttentionDecoder(N_SYMBOLS, **sizes, text_length=LENGTH + 1)
    )
    net = SpeechToText(SpeechEncoder(5, **sizes, n_layers=1, max_frames=30, mask_padding=True), decoder)
    for layer in (net.decoder.cross.attention.value, net.decoder.cross.attention.out, net.decoder.head[1]):
        torch.nn.init.normal_(layer.weight, std=1.5)
    return net.eval()


@pytest.fixture
def clips():
    torch.manual_seed(SEED)
    return torch.randn(8, 20, 5), torch.tensor([20, 20, 9, 20, 13, 20, 7, 20])


def reread(model: SpeechToText, features: Tensor, n_frames: Tensor) -> list[list[int]]:
    """Search greedily, clip by clip, and read the whole prefix again for each symbol."""
    texts = []
    for i in range(len(features)):
        text = [START]
        while len(text) <= LENGTH and text[-1] != STOP:
            logits = model(features[i : i + 1], n_frames[i : i + 1], torch.tensor([text]))
            text.append(int(logits[0, -1].argmax()))
        texts.append(text)
    return texts


def up_to_stop(rows: Tensor) -> list[list[int]]:
    return [row[: row.index(STOP) + 1] if STOP in row else row for row in rows.tolist()]


@torch.no_grad()
def test_greedy_equals_reading_the_prefix_again(model, clips):
    written = search_greedily(model, *clips, LENGTH)
    texts = reread(model, *clips)
    assert up_to_stop(written) == texts
    assert len({len(text) for text in texts}) > 1, "texts of one length prove little"
    for row in written.tolist():
        if STOP in row:
            assert set(row[row.index(STOP) + 1 :]) <= {PADDING}


def test_one_beam_is_greedy(model, clips):
    assert up_to_stop(search_beams(model, *clips, LENGTH, beams=1)) == up_to_stop(
        search_greedily(model, *clips, LENGTH)
    )


@torch.no_grad()
def log_probabilities(model, features, n_frames, texts: list[list[int]]) -> list[float]:
    """Return the log-probabilities of texts of one clip, each with START and, if it has one, STOP."""
    rows = torch.full((len(texts), LENGTH + 1), PADDING)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    clip = features.expand(len(texts), -1, -1), n_frames.expand(len(texts))
    scores = model(*clip, rows[:, :-1]).log_softmax(dim=-1).gather(2, rows[:, 1:, None])[..., 0]
    return [float(score[: len(text) - 1].sum()) for score, text in zip(scores, texts, strict=True)]


def all_texts():
    """Yield every text that a search may return: ended within LENGTH symbols, or LENGTH symbols without a stop."""
    others = [symbol for symbol in range(N_SYMBOLS) if symbol != STOP]
    for size in range(LENGTH):
        yield from ([START, *middle, STOP] for middle in itertools.product(others, repeat=size))
    yield from ([START, *whole] for whole in itertools.product(others, repeat=LENGTH))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_texts(model, clips, length_penalty):
    features, n_frames = clips[0][:2], clips[1][:2]
    texts = list(all_texts())
    written = up_to_stop(search_beams(model, features, n_frames, LENGTH, N_SYMBOLS**LENGTH, length_penalty))
    for i, own in enumerate(written):
        clip = features[i : i + 1], n_frames[i : i + 1]
        scores = log_probabilities(model, *clip, texts)
        per_symbol = [score / (len(text) - 1) ** length_penalty for score, text in zip(scores, texts, strict=True)]
        assert own == texts[per_symbol.index(max(per_symbol))]


def test_more_beams_find_no_worse_text(model, clips):
    few, many = (up_to_stop(search_beams(model, *clips, LENGTH, beams)) for beams in (1, 30))
    gains = []
    for i, pair in enumerate(zip(few, many, strict=True)):
        before, after = log_probabilities(model, clips[0][i : i + 1], clips[1][i : i + 1], list(pair))
        gains.append(after - before)
    assert min(gains) > -1e-5
    assert max(gains) > 1e-3, "greedy was best everywhere: the beams were not tried"


def test_the_best_path_merges_and_drops_blanks():
    blank, a, b = PADDING, 4, 5
    path = [a, a, blank, a, b, b, blank, blank]
    logits = torch.nn.functional.one_hot(torch.tensor([path, path]), N_SYMBOLS).float()
    texts = find_best_path(logits, torch.tensor([8, 4]))
    assert texts.shape == (2, 10)
    assert texts[0].tolist() == [START, a, a, b, STOP, *[PADDING] * 5]
    assert texts[1].tolist() == [START, a, a, STOP, *[PADDING] * 6]  # what lies behind the clip is not read


def all_alignments(scores: Tensor) -> dict[tuple[int, ...], float]:
    """Return each text's log-probability, summed over its alignments, for scores (steps, n_symbols) of one clip."""
    steps, n_symbols = scores.shape
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for path in itertools.product(range(n_symbols), repeat=steps):
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != PADDING)
        found.setdefault(text, []).append(scores[torch.arange(steps), torch.tensor(path)].sum())
    return {text: float(torch.stack(parts).logsumexp(dim=0)) for text, parts in found.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("steps", "n_symbols"), [(1, 4), (3, 5), (5, 3), (5, 4)])
def test_a_wide_prefix_search_finds_every_text_with_its_probability(seed, steps, n_symbols):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(2, steps, n_symbols)
    n_steps = torch.tensor([steps, max(steps - 2, 1)])
    texts, sizes, scores = search_prefixes(logits, n_steps, beams=n_symbols**steps)
    for i, n in enumerate(n_steps.tolist()):
        expected = all_alignments(logits[i, :n].log_softmax(dim=-1))
        found = {
            tuple(row[:size]): score
            for row, size, score in zip(texts[i].tolist(), sizes[i].tolist(), scores[i].tolist(), strict=True)
            if score > -torch.inf
        }
        assert found.keys() == expected.keys()
        assert int((scores[i] > -torch.inf).sum()) == len(expected), "a text occurs twice"
        assert found == pytest.approx(expected, abs=1e-4)
        best = max(expected, key=expected.__getitem__)
        assert find_best_text(logits, n_steps, n_symbols**steps)[i].tolist()[: len(best) + 2] == [START, *best, STOP]


def test_the_best_text_may_differ_from_the_best_path():
    """Graves et al. 2006, section 3.2: the empty path is the most probable path, but "a" the most probable text."""
    blank, a = PADDING, 3
    scores = torch.full((1, 2, 4), 1e-9).log()
    scores[0, :, blank], scores[0, :, a] = torch.tensor(0.6).log(), torch.tensor(0.4).log()
    both = torch.tensor([2])
    assert find_best_path(scores, both).tolist() == [[START, STOP, PADDING, PADDING]]  # .36
    assert find_best_text(scores, both, 4).tolist() == [[START, a, STOP, PADDING]]  # .64


def test_one_beam_finds_the_best_path_if_every_step_is_certain():
    torch.manual_seed(0)
    logits = 50 * torch.nn.functional.one_hot(torch.randint(0, 4, (16, 30)), N_SYMBOLS).float()
    n_steps = torch.randint(1, 31, (16,))
    for beams in (1, 5):
        assert torch.equal(find_best_text(logits, n_steps, beams), find_best_path(logits, n_steps))


@pytest.mark.parametrize("beams", [1, 3, 20])
def test_searching_many_clips_equals_searching_each(beams):
    torch.manual_seed(1)
    logits, n_steps = 2 * torch.randn(12, 25, N_SYMBOLS), torch.randint(1, 26, (12,))
    together = find_best_text(logits, n_steps, beams)
    assert together.shape == (12, 27)
    assert len(set(map(tuple, together.tolist()))) > 6
    for i, n in enumerate(n_steps.tolist()):
        alone = find_best_text(logits[i : i + 1, :n], n_steps[i : i + 1], beams)
        assert up_to_stop(together[i : i + 1]) == up_to_stop(alone)
        assert set(together[i, n + 2 :].tolist()) <= {PADDING}
    noise = torch.randn(12, 25, N_SYMBOLS).masked_fill(torch.arange(25)[:, None] < n_steps[:, None, None], 0)
    assert torch.equal(find_best_text(logits + 9 * noise, n_steps, beams), together)


def test_more_beams_find_more_probable_texts():
    """Only the mean over clips must rise: a search that drops prefixes may miss the best text of a clip."""
    torch.manual_seed(2)
    logits, n_steps = 2 * torch.randn(16, 20, N_SYMBOLS), torch.full((16,), 20)
    likely = {}
    for beams in (1, 50):
        texts, sizes, scores = search_prefixes(logits, n_steps, beams)
        loss = torch.nn.functional.ctc_loss(
            logits.log_softmax(dim=-1).transpose(0, 1), texts[:, 0], n_steps, sizes[:, 0], PADDING, "none"
        )
        assert (scores[:, 0] <= -loss + 1e-4).all(), "more than all alignments"
        likely[beams] = -loss
    assert likely[50].mean() > likely[1].mean() + 0.1


def test_a_search_without_beams_is_refused(model, clips):
    with pytest.raises(ValueError, match="beams 0"):
        search_beams(model, *clips, LENGTH, 0)
    with pytest.raises(ValueError, match="beams 0"):
        search_prefixes(torch.zeros(1, 2, 4), torch.tensor([2]), 0)
