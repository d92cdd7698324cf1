"""Training throughput of IST2-CNN (224,892 parameters): dl-lab beside hand-written loops and Lightning, in one run.

    python scripts/benchmarks/throughput.py [--rounds 5] [--batch 8 64 512] [--samples 4096] [--quick]

Every contestant trains the same model from the same weights on the same batches in the same order with plain SGD,
on one thread, and is timed in CPU seconds (neighbours on the machine disturb those least), in turn, `rounds`
times. The ratios are medians of the pairwise ratios to `tuned`, the best hand-written loop. Before anything is timed,
the epoch losses are compared: the contestants must agree.

- tuned: resident uint8 images, index_select, channels_last, fused SGD, ReLU after pooling, loss summed on the device
- dl-lab: the dl-lab command's own path with TensorBoard, checkpoints, validation and progress on
- coursework: PIL images, ToTensor, DataLoader, loss.item() and accuracy each step
- lightning: Lightning's default Trainer (logger, bar, checkpoint) over the coursework's data set
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dl_lab import configs
from dl_lab.configs.targets import ALLOW_VARIABLE
from dl_lab.datasets.batches import shuffled
from dl_lab.datasets.images.labelled import generate_arrays
from dl_lab.jobs.one import execute
from dl_lab.models.oct_cnn import PooledCNN
from dl_lab.training.trainer import Callback

LR, SEED = 0.01, 0


class Clock(Callback):
    """CPU seconds of each epoch of a fit, from its first update to its recorded end."""

    seconds: ClassVar[list[float]] = []
    losses: ClassVar[list[float]] = []

    def fit_start(self, session) -> None:
        """Start the clock."""
        Clock.seconds, Clock.losses = [], []
        self.last = time.process_time()

    def epoch_end(self, session, metrics) -> None:
        """Note the seconds and the loss of the epoch."""
        now = time.process_time()
        Clock.seconds.append(now - self.last)
        Clock.losses.append(metrics["train/loss"])
        self.last = now


def tuned(x: torch.Tensor, y: torch.Tensor, batch: int, epochs: int) -> tuple[list[float], list[float]]:
    """The best plain PyTorch loop."""
    torch.manual_seed(SEED)
    model: Any = PooledCNN((1, 28, 28), 4)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=True)
    seconds, losses = [], []
    for epoch in range(epochs):
        started = time.process_time()
        model.train()
        total = torch.zeros(())
        for chosen in shuffled(len(x), SEED, epoch).split(batch):
            images = x.index_select(0, chosen).float().div_(256).contiguous(memory_format=torch.channels_last)
            labels = y.index_select(0, chosen)
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.detach() * len(labels)
        losses.append(float(total) / len(x))
        seconds.append(time.process_time() - started)
    return seconds, losses


class PilImages(torch.utils.data.Dataset):
    """As in the coursework: a PIL image, ToTensor for every item."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        from PIL import Image
        from torchvision.transforms import ToTensor

        self.images = [Image.fromarray(image.numpy()) for image in x.reshape(-1, 28, 28)]
        self.labels, self.transform = y, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.images[i]) * (255 / 256), self.labels[i]


class InOrder(torch.utils.data.Sampler):
    """dl-lab's order of an epoch, for a DataLoader."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, -1

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        self.epoch += 1
        return iter(shuffled(self.n, SEED, self.epoch).tolist())


def coursework(x: torch.Tensor, y: torch.Tensor, batch: int, epochs: int) -> tuple[list[float], list[float]]:
    """The usual loop of a notebook."""
    torch.manual_seed(SEED)
    model = ReluFirst()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loader = torch.utils.data.DataLoader(PilImages(x, y), batch, sampler=InOrder(len(x)), generator=torch.Generator())
    seconds, losses = [], []
    for _ in range(epochs):
        started = time.process_time()
        model.train()
        total, correct = 0.0, 0
        for images, labels in loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
        losses.append(total / len(x))
        seconds.append(time.process_time() - started)
    return seconds, losses


class ReluFirst(PooledCNN):
    """The same net with the usual order, ReLU before the pooling."""

    def __init__(self) -> None:
        super().__init__((1, 28, 28), 4)
        conv1, pool1, relu1, conv2, pool2, relu2 = self[0]  # pyright: ignore
        self[0] = nn.Sequential(conv1, relu1, pool1, conv2, relu2, pool2)


def lightning(x: torch.Tensor, y: torch.Tensor, batch: int, epochs: int) -> tuple[list[float], list[float]]:
    """Lightning's default Trainer."""
    import logging

    import lightning  # pyright: ignore[reportMissingImports]

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    seconds, losses = [], []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = ReluFirst()

        def training_step(self, batch, index):
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def on_train_epoch_start(self) -> None:
            self.started = time.process_time()

        def on_train_epoch_end(self) -> None:
            seconds.append(time.process_time() - self.started)
            losses.append(float(self.trainer.callback_metrics["train/loss"]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    torch.manual_seed(SEED)
    module = Module()
    loader = torch.utils.data.DataLoader(PilImages(x, y), batch, sampler=InOrder(len(x)), generator=torch.Generator())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            lightning.Trainer(max_epochs=epochs, default_root_dir=folder, accelerator="cpu").fit(module, loader)
    return seconds, losses


def dl_lab(x: torch.Tensor, y: torch.Tensor, batch: int, epochs: int) -> tuple[list[float], list[float]]:
    """The dl-lab command's own path: compose, check, run folder, TensorBoard, checkpoints, validation, figures."""
    with tempfile.TemporaryDirectory() as folder:
        arrays: Any = {}
        for split, n in (("train", len(x)), ("val", 64), ("test", 64)):
            arrays |= {f"{split}_images": x[:n].numpy(), f"{split}_labels": y[:n].numpy()}
        np.savez(Path(folder) / "octmnist.npz", **arrays)
        overrides = [
            "experiment=octmnist_cnn", "dataset.test_set=all", f"paths.data_dir={folder}", f"seed={SEED}",
            f"optimizer.lr={LR}",
            f"trainer.batch_size={batch}", f"trainer.max_epochs={epochs}", f"hydra.run.dir={folder}/run",
            "threads=1", "trainer.device=cpu", "trainer.checkpoint_seconds=0",
            "+callbacks.clock._target_=clock.Clock",
        ]  # fmt: skip
        composed = configs.Composer().compose(overrides)
        execute(composed, ["dl-lab", *overrides], quiet=True)
    return Clock.seconds, Clock.losses


CONTESTANTS: dict[str, Callable] = {
    "tuned": tuned,
    "dl-lab": dl_lab,
    "coursework": coursework,
    "lightning": lightning,
}


def compare(batch: int, samples: int, rounds: int, names: list[str]) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds; the first epoch of each contestant warms up and is not counted."""
    images, labels = generate_arrays(samples, (1, 28, 28), 4)["train"]
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    times: dict[str, list[float]] = {name: [] for name in names}
    losses: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in names:
            seconds, losses[name] = CONTESTANTS[name](x, y, batch, 3)
            times[name].append(min(seconds[1:]))
    for name in names:
        np.testing.assert_allclose(losses[name], losses["tuned"], rtol=2e-3, err_msg=f"{name} trains something else")
    return {
        name: {
            "samples_per_s": samples / statistics.median(times[name]),
            "ratio": statistics.median(a / b for a, b in zip(times["tuned"], times[name], strict=True)),
            "loss": losses[name][-1],
        }
        for name in names
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="*", default=[8, 64, 512])
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.modules["clock"] = sys.modules[__name__]
    Clock.__module__ = "clock"
    os.environ[ALLOW_VARIABLE] = "clock"
    results = {}
    print(f"{'batch':>6} {'':12} {'samples/s':>10} {'ratio to tuned':>15} {'loss':>8}")
    for batch in options.batch:
        results[batch] = compare(batch, options.samples, options.rounds, options.only)
        for name, row in results[batch].items():
            print(
                f"{batch:>6} {name:12} {row['samples_per_s']:>10,.0f} {row['ratio']:>15.2f} {row['loss']:>8.4f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
