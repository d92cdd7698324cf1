"""Speed of writing text and of reading features, each beside the plain way in the same run; CPU seconds, one thread.

    python scripts/benchmarks/transcription.py [--clips 16] [--rounds 5] [--json FILE]

decode: greedy search over `clips` clips of 6.5 s by the course's models, batched, with what was read kept as a state,
beside the plain loop: a clip at a time, the encoder once, then for each symbol the decoder over the whole prefix and
the encoder's steps, as the course's models write. Texts must be equal; ratio_without_encoder leaves the encoder, which
both run alike, out of both. features: an epoch of log-mel batches out of the memory-mapped cache beside one that reads
the WAV files and transforms them anew. similarity: rapidfuzz and our multiset overlaps beside textdistance.

Rounds take turns; ratios are medians of pairwise ratios (neighbours on the machine disturb those least). The kept
results are docs/results/benchmarks/transcription.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from dl_lab import configs
from dl_lab.runs.environment import describe_environment
from dl_lab.tasks.decoding import search_greedily
from dl_lab.tasks.text_similarity import cosine, damerau_levenshtein, jaccard
from dl_lab.types import START, STOP

FRAMES, LENGTH = 896, 98  # 6.5 seconds; the course's longest text


def model_of(name: str) -> Any:
    """Build a model of the configs with random weights."""
    torch.manual_seed(0)
    overrides = [f"model={name}", "task=transcription", "dataset=lj_speech"]
    return configs.build(configs.Composer().compose(overrides).config, "model").eval()


@torch.no_grad()
def plain_greedy(model: Any, features: torch.Tensor, n_frames: torch.Tensor) -> list[list[int]]:
    """Decode one clip after the other, and one symbol after the other, without a cache."""
    texts = []
    for i in range(len(features)):
        encoded, mask = model.encoder(features[i : i + 1], n_frames[i : i + 1])
        text = [START]
        while len(text) <= LENGTH and text[-1] != STOP:
            logits = model.decoder(torch.tensor([text]), model.decoder.remember(encoded, mask))
            text.append(int(logits[0, -1].argmax()))
        texts.append(text)
    return texts


def up_to_stop(rows: torch.Tensor) -> list[list[int]]:
    """Cut each text after its STOP."""
    return [row[: row.index(STOP) + 1] if STOP in row else row for row in rows.tolist()]


def in_turns(rounds: int, plain: Callable[[], Any], ours: Callable[[], Any]) -> dict[str, float]:
    """Median CPU seconds of both, and the median ratio plain / ours; each warms up once."""
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds + 1):
        for name, work in (("plain", plain), ("ours", ours)):
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    pairs = zip(seconds["plain"][1:], seconds["ours"][1:], strict=True)
    return {
        **{f"{name}_s": statistics.median(values[1:]) for name, values in seconds.items()},
        "ratio": statistics.median(a / b for a, b in pairs),
    }


@torch.no_grad()
def cpu_seconds(work: Callable[[], Any], rounds: int) -> list[float]:
    """Call a function several times. Return the CPU seconds of each call."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return found


def decoding(n_clips: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Time greedy decoding against the plain loop."""
    found = {}
    for name in ("speech_lstm", "speech_attention"):
        model = model_of(name)
        features = torch.randn(n_clips, FRAMES, 80, generator=torch.Generator().manual_seed(0))
        n_frames = torch.full((n_clips,), FRAMES)
        plain = plain_greedy(model, features, n_frames)
        ours = up_to_stop(search_greedily(model, features, n_frames, LENGTH))
        timed = in_turns(
            rounds,
            lambda m=model, f=features, n=n_frames: plain_greedy(m, f, n),
            lambda m=model, f=features, n=n_frames: search_greedily(m, f, n, LENGTH),
        )
        encoding = statistics.median(cpu_seconds(lambda m=model, f=features, n=n_frames: m.encoder(f, n), rounds))
        without = (timed["plain_s"] - encoding) / (timed["ours_s"] - encoding)
        timed |= {"encoder_s": encoding, "ratio_without_encoder": without}
        symbols = sum(len(text) - 1 for text in plain)
        found[name] = {"clips": n_clips, "symbols": symbols, "texts_equal": plain == ours, **timed}
    return found


def features(rounds: int, n_clips: int = 64) -> dict[str, Any]:
    """On toy speech in the release's layout."""
    import soundfile

    from dl_lab.datasets.ragged_column import RaggedColumn
    from dl_lab.datasets.speech.audio import LogMel, read_wav
    from dl_lab.datasets.speech.features import read_features
    from dl_lab.datasets.speech.tones import speak

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i:03}.wav" for i in range(n_clips)]
        for i, path in enumerate(paths):
            soundfile.write(path, speak("a quick brown fox jumps over the lazy dog " * 2, seed=i), 22_050)
        settings = LogMel()
        cached = read_features(paths, settings, 22_050, Path(folder) / "cache", ())
        column = RaggedColumn(cached.values, cached.starts, cached.n_frames)
        order = torch.randperm(n_clips).split(16)

        def anew() -> None:
            for chosen in order:
                parts = [settings(torch.from_numpy(read_wav(paths[i]))) for i in chosen.tolist()]
                torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

        return {"clips": n_clips, **in_turns(rounds, anew, lambda: [column.index_select(0, c) for c in order])}


def similarity(rounds: int, n: int = 100) -> dict[str, Any]:
    """Three similarities of texts of 99 symbols with a tenth of them changed."""
    import random

    import textdistance

    rng = random.Random(0)
    pairs = []
    for _ in range(n):
        a = [rng.randrange(4, 35) for _ in range(99)]
        pairs.append((a, [rng.randrange(4, 35) if rng.random() < 0.1 else symbol for symbol in a]))
    theirs = (
        textdistance.jaccard.normalized_similarity,
        textdistance.cosine.normalized_similarity,
        textdistance.damerau_levenshtein.normalized_similarity,
    )
    own = (jaccard, cosine, damerau_levenshtein)
    timed = in_turns(
        rounds,
        lambda: [measure(a, b) for a, b in pairs for measure in theirs],
        lambda: [measure(a, b) for a, b in pairs for measure in own],
    )
    return {"pairs": n, **timed}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "decode": decoding(options.clips, options.rounds),
        "features": features(options.rounds),
        "similarity": similarity(options.rounds),
    }
    shown = {**results["decode"], "features": results["features"], "similarity": results["similarity"]}
    for name, row in shown.items():
        more = f"texts equal: {row['texts_equal']}" if "texts_equal" in row else ""
        print(
            f"{name:18} plain {row['plain_s']:8.3f} s   ours {row['ours_s']:8.4f} s   ratio {row['ratio']:6.1f}  {more}"
        )
    if options.json:
        machine = {"cpu": describe_environment([])["cpu"], "threads": 1, "torch": torch.__version__}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**results, **machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
