"""Training speed of the text models in tokens/s: dl-lab beside plain PyTorch loops, in one run.

    python scripts/benchmarks/text.py [--rounds 5] [--texts 512] [--json FILE]

Texts have random words and the lengths of real ones: news 43 tokens on average (cut at 128), reviews 230 (cut at 200).
Every contestant sees each text once in an epoch, with Adam, on one thread, and is timed in CPU seconds (neighbours on
the machine disturb those least), in turn, `rounds` times after one to warm up. Tokens are those of the texts, padding
does not count. Ratios are medians of the pairwise ratios to dl-lab.

- dl-lab: its Trainer with records and checkpoints on, length-bucketed batches
- dl-lab, no buckets: the same with every batch as long as the longest text may be, as much coursework pads
- plain loop: the same model, a DataLoader whose batches are padded to their longest text
- nn.TransformerEncoder: the plain loop over torch's own encoder with a key padding mask
- packed nn.LSTM: the plain loop over torch's own LSTM and packed sequences

Then the Padova homework's models, each with its experiment's own learner and batches of 256 reviews, and what an epoch
of 25,000 takes at that speed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from dl_lab import configs
from dl_lab.datasets.text.encoders import Vocabulary, WordEncoder
from dl_lab.datasets.text.tokens import Layout, Ragged, token_dataset
from dl_lab.models.attention.mechanisms import Fused
from dl_lab.models.post_norm_transformer import PostNormTransformer
from dl_lab.models.text_recurrent import TextRecurrent
from dl_lab.runs.board import NoBoard
from dl_lab.runs.environment import describe_environment
from dl_lab.runs.recorder import Run
from dl_lab.tasks.classification import Classification
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Callback, Trainer

N_WORDS, N_CLASSES = 2000, 4
KINDS = {"transformer": (43, 15, 128, 64), "lstm": (230, 170, 200, 32)}  # mean and sd of the lengths, cut, batch size
PADOVA = ("imdb_rnn", "imdb_lstm", "imdb_gru", "imdb_bilstm", "imdb_transformer")
Text = tuple[list[int], int]


def texts_of(kind: str, n: int) -> list[Text]:
    """Draw texts with the lengths of a kind of data set."""
    mean, sd, length, _ = KINDS[kind]
    rng = np.random.default_rng(0)
    sigma = np.sqrt(np.log(1 + (sd / mean) ** 2))
    lengths = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n).round().clip(5, length).astype(int)
    return [(rng.integers(2, N_WORDS, size).tolist(), int(rng.integers(N_CLASSES))) for size in lengths]


class TorchEncoder(nn.Module):
    """The Transformer of dl-lab around torch's nn.TransformerEncoder."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()
        layer = nn.TransformerEncoderLayer(100, 4, 512, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.inner.blocks = nn.ModuleList()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(batch, length) tokens and mask -> (batch, classes) logits."""
        x = self.encoder(self.inner.embed(tokens, mask), src_key_padding_mask=~mask) * mask[..., None]
        return self.inner.head(x.sum(dim=1) / mask.sum(dim=1, keepdim=True))


class PackedLSTM(nn.Module):
    """The LSTM of dl-lab around torch's nn.LSTM and packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm = nn.Embedding(N_WORDS, 100), nn.LSTM(100, 128, batch_first=True)
        self.head = nn.Linear(128, N_CLASSES)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(batch, length) tokens and mask -> (batch, classes) logits."""
        packed = pack_padded_sequence(self.words(tokens), mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


def transformer() -> PostNormTransformer:
    """Build dl-lab's transformer."""
    return PostNormTransformer(N_WORDS, 128, N_CLASSES, Fused, n_layers=2, hidden=512, frozen_words=False)


def lstm() -> TextRecurrent:
    """Build dl-lab's LSTM."""
    return TextRecurrent(N_WORDS, N_CLASSES, "lstm", dim=100, hidden=128)


class Clock(Callback):
    """CPU seconds of an epoch, from before its first update to its recorded end."""

    def fit_start(self, session: Any) -> None:
        """Start the clock."""
        self.started = time.process_time()

    def epoch_end(self, session: Any, metrics: Any) -> None:
        """Stop the clock."""
        self.seconds = time.process_time() - self.started


def of_dl_lab(model: Callable[[], nn.Module], texts: list[Text], length: int, batch: int, bucketing: bool) -> float:
    """CPU seconds of one epoch by the Trainer (with the validation of four texts)."""
    torch.manual_seed(0)
    ragged, labels = Ragged.of([t for t, _ in texts], N_WORDS), torch.tensor([y for _, y in texts])
    few = torch.arange(4)
    parts = {"train": (ragged, labels), "val": (ragged.take(few), labels[few]), "test": (ragged.take(few), labels[few])}
    words = WordEncoder("whitespace", Vocabulary(tuple(map(str, range(N_WORDS)))))
    layout = Layout(length, bucketing=bucketing)
    names = [str(i) for i in range(N_CLASSES)]
    dataset = token_dataset("texts", parts, words, layout, label="generated", class_names=names)
    learner = GradientLearner(model(), Classification(), partial(torch.optim.Adam, lr=1e-3))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {}, {}, NoBoard(), {})
        Trainer(1, batch, device="cpu", callbacks={"clock": clock}).fit(learner, dataset, run)
    return clock.seconds


def of_plain_loop(model: Callable[[], nn.Module], texts: list[Text], length: int, batch: int) -> float:
    """CPU seconds of one epoch of the usual loop."""
    torch.manual_seed(0)
    trained = model()
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)

    def collate(items: list[Text]) -> tuple[Tensor, Tensor, Tensor]:
        rows = [torch.tensor(text[:length]) for text, _ in items]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        return pad_sequence(rows, batch_first=True, padding_value=1), mask, torch.tensor([y for _, y in items])

    loader: Any = torch.utils.data.DataLoader(texts, batch, shuffle=True, collate_fn=collate)  # pyright: ignore
    started, total, correct = time.process_time(), 0.0, 0
    trained.train()
    for tokens, mask, labels in loader:
        optimizer.zero_grad()
        logits = trained(tokens, mask)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
    return time.process_time() - started


def contestants(kind: str) -> Iterator[tuple[str, Callable[..., float]]]:
    """Yield each contestant with its function, which returns the CPU seconds of an epoch."""
    model = transformer if kind == "transformer" else lstm
    yield "dl-lab", partial(of_dl_lab, model, bucketing=True)
    yield "dl-lab, no buckets", partial(of_dl_lab, model, bucketing=False)
    yield "plain loop", partial(of_plain_loop, model)
    peer = ("nn.TransformerEncoder", TorchEncoder) if kind == "transformer" else ("packed nn.LSTM", PackedLSTM)
    yield peer[0], partial(of_plain_loop, peer[1])


def measure(kind: str, n: int, rounds: int) -> list[dict[str, Any]]:
    """Time the contestants of one kind of model in turns."""
    *_, length, batch = KINDS[kind]
    texts = texts_of(kind, n)
    n_tokens = sum(len(text) for text, _ in texts)
    seconds: dict[str, list[float]] = {name: [] for name, _ in contestants(kind)}
    for _ in range(rounds + 1):
        for name, epoch in contestants(kind):
            seconds[name].append(epoch(texts=texts, length=length, batch=batch))
    first = seconds["dl-lab"][1:]
    return [
        {
            "model": kind,
            "contestant": name,
            "tokens_per_second": round(n_tokens / statistics.median(values[1:])),
            "times_dl_lab": round(statistics.median(v / f for v, f in zip(values[1:], first, strict=True)), 3),
        }
        for name, values in seconds.items()
    ]


def padova(rounds: int) -> list[dict[str, Any]]:
    """Median CPU seconds of one update of 256 reviews, models in turn; an epoch has 98 of them."""
    parts: dict[str, Any] = {}
    for name in PADOVA:
        torch.manual_seed(0)
        generated = ["dataset.source=generated", "+dataset.n_generated=256"]
        config = configs.Composer().compose([f"experiment={name}", *generated]).config
        dataset = configs.build(config, "dataset")
        parts[name] = configs.build(config, "learner"), next(iter(dataset.train.batches(256)))
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, (learner, batch) in parts.items():
            started = time.process_time()
            learner.update(batch)
            seconds[name].append(time.process_time() - started)
    return [
        {
            "experiment": name,
            "parameters": parts[name][0].n_parameters()[0],
            "tokens": parts[name][1].x.shape[1],
            "seconds_per_epoch": round(98 * statistics.median(values[1:]), 1),
        }
        for name, values in seconds.items()
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for kind in KINDS for row in measure(kind, options.texts, options.rounds)]
    for row in rows:
        print("{model:12} {contestant:22} {tokens_per_second:>9,} tokens/s  {times_dl_lab:.2f} x dl-lab".format(**row))
    models = padova(options.rounds)
    for row in models:
        print("{experiment:18} {parameters:>8,} parameters  {seconds_per_epoch:>6.1f} CPU s an epoch".format(**row))
    if options.json:
        machine = {"cpu": describe_environment([])["cpu"], "torch": torch.__version__, "threads": 1}
        about = {"texts": options.texts, "rounds": options.rounds, "rows": rows, "padova": models, **machine}
        options.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
