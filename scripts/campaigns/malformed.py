"""Malformed run and sweep folders, read by every verb: never a traceback."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from campaigns.kills import QUICK, run_undisturbed
from campaigns.processes import Problem
from campaigns.shell import Shell

MAKE_SWEEP = [
    "-m", *QUICK, "dataset.n_generated=64", "trainer.batch_size=8", "trainer.max_epochs=2", "optimizer.lr=0.01,0.02"
]  # fmt: skip
FILES = (
    "status.json",
    "summary.json",
    "env.json",
    "config.yaml",
    ".hydra/overrides.yaml",
    "metrics.jsonl",
    "timings.jsonl",
    "weights.jsonl",
    "losses.f64",
    "checkpoints/best.safetensors",
    "checkpoints/last.safetensors",
    "events.out.tfevents.*",
    "../sweep.yaml",
    "../configs.jsonl",
    "../results.csv",
)
VERBS = (
    ["runs"],
    ["runs", "--json"],
    ["compare"],
    ["compare", "SWEEP"],
    ["diff", "RUN", "OTHER"],
    ["verify", "RUN", "--steps", "2"],
    ["resume", "RUN"],
    ["export", "RUN"],
    ["predict", "RUN", "nothing.png"],
    ["best", "SWEEP"],
    ["report", "SWEEP"],
    ["clean", "--dry-run"],
    ["check", "--config-dir", "RUN"],
    ["SAME SWEEP"],
)
FOREIGN = (
    "[]",
    "null",
    "3",
    '"text"',
    "{}",
    '{"state": "done"}',
    '{"state": 3, "pid": "x", "host": [], "heartbeat": {}}',
    '{"state": "running", "pid": -1, "heartbeat": "yesterday"}',
    '{"metrics": [1], "dataset": "x", "epochs": "many", "error": "text", "choices": 3, "format": null}',
    '{"metrics": {"val/loss": "low", "test/accuracy": null}, "dataset": {"name": 3, "label": []}}',
    '{"format": 99}',
    "a: [1, 2\n",
    "procedure: 3\nmodel: []\ntrainer: text\ndataset: 7\nreference: x\n",
    "\x00\x01\x02",
)


def _truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def _garble(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"x")
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(bytes(data))


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def _replace(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(FOREIGN))


def _make_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _double(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data + data)


def _forget_keys(path: Path, rng: random.Random) -> None:
    """Remove or replace some entries of a JSON object, at any depth."""
    try:
        value = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError):
        _garble(path, rng)
        return
    if not isinstance(value, dict):
        _replace(path, rng)
        return
    _change_entries(value, rng)
    path.write_text(json.dumps(value))


def _change_entries(value: dict, rng: random.Random) -> None:
    for key in list(value):
        if isinstance(value[key], dict) and rng.random() < 0.5:
            _change_entries(value[key], rng)
        elif rng.random() < 0.3:
            value[key] = rng.choice([None, [], {}, "text", -1, 1e300, True])
        elif rng.random() < 0.2:
            del value[key]


CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    _truncate, _garble, _empty, _remove, _replace, _make_folder, _link_to_itself, _double, _forget_keys
)  # fmt: skip


def damage(work: Path, rng: random.Random) -> None:
    """Damage one to three files of a finished sweep, and run every verb on it."""
    whole, _ = run_undisturbed(work, "sweep to damage", MAKE_SWEEP)
    folder = work / "malformed"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    shutil.copytree(whole / "outputs", folder / "outputs")
    (sweep,) = [plan.parent for plan in (folder / "outputs").glob("sweeps/*/*/sweep.yaml")]
    run, other = sorted(path.parent for path in sweep.glob("*/status.json"))
    done = []
    for _ in range(rng.randint(1, 3)):
        pattern, change = rng.choice(FILES), rng.choice(CHANGES)
        found = [*run.glob(pattern)] if not pattern.startswith("..") else [sweep / pattern[3:]]
        if found and found[0].is_file():
            change(found[0], rng)
            done.append(f"{change.__name__} {pattern}")
    verbs = list(VERBS) if rng.random() < 0.2 else rng.sample(VERBS, 5)
    for verb in verbs:
        places = {"RUN": str(run), "OTHER": str(other), "SWEEP": str(sweep)}
        words = [places.get(word, word) for word in verb] if verb != ["SAME SWEEP"] else MAKE_SWEEP
        answer = Shell.at(folder).run([word.replace(str(folder) + "/", "") for word in words])
        if answer["error"] or "Traceback" in answer["text"]:
            last = (answer["error"] or answer["text"]).strip().splitlines()
            where = [line.strip() for line in last if "dl_lab/" in line]
            raise Problem(f"dl-lab {' '.join(verb)} after {', '.join(done)}: {last[-1]} ({where[-1] if where else ''})")
