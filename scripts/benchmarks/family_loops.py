# Long because each family's data and loss stand beside the loops that use them.
"""The families of families.py: their dl-lab jobs, and the same mathematics written by hand without dl-lab's trainer.

A family says how a hand-written loop holds its data, makes a batch and judges one. Three loops use that: `tuned`, the
best plain loop we know; `notebook`, the loop of a coursework's notebook; `with_lightning`, Lightning's default Trainer
over the notebook's data. All of them train the model class of the job from the same initial weights, validate after
each epoch and judge test once. Each returns the mean training loss of every epoch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab import configs
from dl_lab.datasets.batches import shuffled
from dl_lab.datasets.text.tokens import POOL
from dl_lab.tasks.transcription import ConnectionistTranscription
from dl_lab.types import PADDING, START, STOP, ForecastBatch, LabelledBatch, SpeechBatch, TokenBatch, WindowBatch

SEED = 0
EVALUATION_BATCH = 1024

Judged = tuple[Tensor, Tensor | None]  # the mean loss of a batch, and how many items are right

# -- how data are held ----------------------------------------------------------------------------------------------


class Columns:
    """Tensors that are ready for the model, or bytes that become ready in the batch."""

    def __init__(self, split: Any, batch_type: Any, ready: Callable[[Tensor], Tensor]) -> None:
        self.columns = split.columns
        self.type = batch_type
        self.ready = ready

    def __len__(self) -> int:
        return len(self.columns[0])

    def epoch(self, batch: int, number: int) -> Sequence[Tensor]:
        """Return the batches of an epoch, as numbers of items."""
        return shuffled(len(self), SEED, number).split(batch)

    def batch(self, chosen: Tensor) -> Any:
        """Return the batch of these items."""
        first, *rest = [column.index_select(0, chosen) for column in self.columns]
        return self.type(self.ready(first), *rest)

    def item(self, i: int) -> tuple[Any, ...]:
        """Return one item, as a Dataset of torch does."""
        return tuple(column[i] for column in self.columns)

    def collate(self, items: list[Any]) -> Any:
        """Put items together to a batch."""
        return self.type(*[torch.stack(list(column)) for column in zip(*items, strict=True)])


class Images(Columns):
    """Images as bytes; the notebook's are PIL images that ToTensor converts one by one."""

    def __init__(self, split: Any, shape: tuple[int, ...], divisor: float) -> None:
        self.shape = shape
        self.divisor = divisor
        self._pil: list[Any] = []
        super().__init__(split, LabelledBatch, self.scaled)

    def scaled(self, x: Tensor) -> Tensor:
        """Return images as numbers, with their shape."""
        return x.reshape(-1, *self.shape).float().div_(self.divisor)

    def item(self, i: int) -> tuple[Any, ...]:
        """Return one item, as a Dataset of torch does."""
        from PIL import Image
        from torchvision.transforms.functional import to_tensor

        if not self._pil:
            height, width = self.shape[1:]
            flat = self.columns.x.reshape(len(self), -1, height, width).permute(0, 2, 3, 1).squeeze(-1)
            self._pil = [Image.fromarray(image.numpy()) for image in flat]
        return to_tensor(self._pil[i]) * (255 / self.divisor), self.columns.y[i]


class Texts:
    """Texts as one matrix, padded once; a bucketed batch is cut to its longest text. The notebook pads each batch."""

    def __init__(self, split: Any) -> None:
        self.layout = split.layout
        self.lengths = split.texts.lengths
        self.labels = split.labels
        starts = self.lengths.cumsum(0) - self.lengths
        self.texts = [split.texts.numbers[s : s + n].long() for s, n in zip(starts, self.lengths, strict=True)]
        self._x: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, batch: int, number: int) -> Sequence[Tensor]:
        """Return the batches of an epoch, as numbers of items."""
        order = shuffled(len(self), SEED, number)
        if not self.layout.bucketing:
            return order.split(batch)
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(POOL * batch)]
        batches = [one for pool in pools for one in pool.split(batch)]
        return [batches[i] for i in shuffled(len(batches), SEED, number).tolist()]

    def batch(self, chosen: Tensor) -> TokenBatch:
        """Return the batch of these items."""
        if self._x is None:
            items = [self.item(i) for i in range(len(self))]
            self._x, self._mask, _ = self.collate(items)
        longest = int(self.lengths[chosen].max()) if self.layout.bucketing else self.layout.length
        x, mask = self._x.index_select(0, chosen), self._mask.index_select(0, chosen)
        return TokenBatch(x[:, :longest], mask[:, :longest], self.labels.index_select(0, chosen))

    def item(self, i: int) -> tuple[Any, ...]:
        """Return one item, as a Dataset of torch does."""
        return self.texts[i], self.labels[i]

    def collate(self, items: list[Any]) -> TokenBatch:
        """Put items together to a batch."""
        length, number = self.layout.length, self.layout.pad_number
        rows = []
        masks = []
        for text, _ in items:
            n_missing = length - len(text)
            sides = (n_missing, 0) if self.layout.padding == "left" else (0, n_missing)
            rows.append(F.pad(text, sides, value=number))
            masks.append(F.pad(torch.ones(len(text), dtype=torch.bool), sides, value=False))
        return TokenBatch(torch.stack(rows), torch.stack(masks), torch.stack([label for _, label in items]))


class Clips(Columns):
    """Clips of speech: log-mel features of uneven length, padded to the longest of a batch."""

    def __init__(self, split: Any) -> None:
        super().__init__(split, SpeechBatch, lambda x: x)
        column = self.columns[0]
        self.features = [
            column.values[s : s + n] for s, n in zip(column.starts.tolist(), column.lengths.tolist(), strict=True)
        ]

    def batch(self, chosen: Tensor) -> SpeechBatch:
        """Return the batch of these items."""
        return self.collate([self.item(i) for i in chosen.tolist()])

    def item(self, i: int) -> tuple[Any, ...]:
        """Return one item, as a Dataset of torch does."""
        return self.features[i], self.columns.n_frames[i], self.columns.tokens[i]

    def collate(self, items: list[Any]) -> SpeechBatch:
        """Put items together to a batch."""
        features, n_frames, tokens = zip(*items, strict=True)
        padded = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        return SpeechBatch(padded, torch.stack(n_frames), torch.stack(tokens))


# -- how a batch is judged ------------------------------------------------------------------------------------------


def classes(model: nn.Module, batch: Any) -> Judged:
    """Judge a classifier by cross-entropy and accuracy."""
    logits = model(*batch[:-1])
    return F.cross_entropy(logits, batch.y), (logits.argmax(dim=1) == batch.y).sum()


def two_classes(model: nn.Module, batch: TokenBatch) -> Judged:
    """Judge a classifier of two classes by cross-entropy and accuracy."""
    logits = model(batch.x, batch.mask).squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, batch.y.float()), ((logits > 0) == batch.y.bool()).sum()


def copies(model: nn.Module, batch: WindowBatch) -> Judged:
    """Judge an autoencoder by its mean squared error."""
    return F.mse_loss(model(batch.x), batch.x), None


def bound(model: nn.Module, batch: LabelledBatch) -> Judged:
    """Judge a variational autoencoder by its evidence bound."""
    logits, mean, log_variance = model(batch.x)
    kl = (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(dim=1).mean()
    return F.binary_cross_entropy_with_logits(logits, batch.x) + 1e-3 * kl, None


def forecasts(model: nn.Module, batch: ForecastBatch) -> Judged:
    """Judge a forecaster by its mean squared error."""
    return F.mse_loss(model(batch.x), batch.y), None


def transcripts(model: nn.Module, batch: SpeechBatch) -> Judged:
    """Judge a transcription by the CTC loss."""
    logits, n_steps = model(batch.features, batch.n_frames)
    is_text = (batch.tokens != PADDING) & (batch.tokens != START) & (batch.tokens != STOP)
    scores = logits.float().log_softmax(dim=-1).transpose(0, 1)
    return F.ctc_loss(scores, batch.tokens[:, 1:], n_steps, is_text.sum(dim=1), blank=PADDING), None


def written_transcripts(model: nn.Module, batch: SpeechBatch) -> Judged:
    """As `transcripts`, and the model's own text compared with the true one by dl-lab's functions."""
    measured: Any = ConnectionistTranscription().measure(model, batch)
    return measured["loss"].sum / measured["loss"].count, None


# -- NumPy models, written plainly ------------------------------------------------------------------------------------


class PlainPerceptron:
    """The coursework's loop."""

    def __init__(self) -> None:
        self.W = np.zeros((4, 785))

    def update(self, x: np.ndarray, y: np.ndarray) -> float:
        """Learn from samples, one after the other."""
        mistakes = 0
        for x_i, y_i in zip(np.hstack([x, np.ones((len(x), 1))]), y, strict=True):
            predicted = np.argmax(self.W.dot(x_i))
            if predicted != y_i:
                self.W[y_i] += x_i
                self.W[predicted] -= x_i
                mistakes += 1
        return mistakes

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the classes of samples."""
        return np.argmax(self.W.dot(np.hstack([x, np.ones((len(x), 1))]).T), axis=0)


class PlainMLP:
    """The coursework's loop: every formula as it stands."""

    def __init__(self) -> None:
        random = np.random.RandomState(SEED)
        self.W1, self.b1 = random.normal(0.1, 0.1, (200, 784)), np.zeros(200)
        self.W2, self.b2 = random.normal(0.1, 0.1, (4, 200)), np.zeros(4)

    def update(self, x: np.ndarray, y: np.ndarray) -> float:
        """Learn from samples, one after the other."""
        loss = 0.0
        for x_i, y_i in zip(x, y, strict=True):
            h = np.maximum(self.W1.dot(x_i) + self.b1, 0)
            z = self.W2.dot(h) + self.b2
            p = np.exp(z - z.max())
            d2 = p / p.sum()
            loss -= np.log(d2[y_i])
            d2[y_i] -= 1
            d1 = self.W2.T.dot(d2) * (h > 0)
            self.W2 = self.W2 - 0.001 * np.outer(d2, h)
            self.b2 = self.b2 - 0.001 * d2
            self.W1 = self.W1 - 0.001 * np.outer(d1, x_i)
            self.b1 = self.b1 - 0.001 * d1
        return loss

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the classes of samples."""
        h = np.maximum(x @ self.W1.T + self.b1, 0)
        return np.argmax(h @ self.W2.T + self.b2, axis=1)


def numpy_loop(family: Family, config: Any, data: Any, model: Any) -> list[float]:
    """Epochs of a NumPy model; train and val are judged after each of them, test at the end."""
    splits = [(s.columns.x.flatten(1).numpy() / 256, s.columns.y.numpy()) for s in (data.train, data.val, data.test)]
    x, y = splits[0]
    losses = []
    for epoch in range(config["trainer"]["max_epochs"]):
        order = shuffled(len(y), SEED, epoch).numpy()
        losses.append(float(model.update(x[order], y[order])) / len(y))
        for inputs, labels in splits[:2]:
            (model.predict(inputs) == labels).mean()
    (model.predict(splits[2][0]) == splits[2][1]).mean()
    return losses


def numpy_tuned(family: Family, config: Any, data: Any) -> list[float]:
    """The best loop: no new array in a step (dl_lab.from_scratch)."""
    return numpy_loop(family, config, data, model_of(config))


def numpy_notebook(family: Family, config: Any, data: Any) -> list[float]:
    """The coursework's loop."""
    return numpy_loop(family, config, data, family.plain() if family.plain else None)


# -- the families ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        name: As the table shows it.
        words: The job, without its length.
        size: The override that makes about n training samples, with {n}; `scale` of n is put there.
        hold: A split of the job's data -> how a hand-written loop holds it.
        judge: The loss of a batch.
        evaluate: The same for val and test, where more is measured there than the loss; None is `judge`.
        lengths: Training samples of the short and of the long run.
        scale: Generated rows for each training sample.
        images: Whether the model wants channels_last.
        plain: Of a NumPy model, the same formulas written plainly; such a family has loops of its own.
    """

    name: str
    words: tuple[str, ...]
    hold: Callable[[Any], Any]
    judge: Callable[[nn.Module, Any], Judged]
    lengths: tuple[int, int] = (2048, 16384)
    size: str = "++dataset.n_generated={n}"
    scale: float = 1.0
    images: bool = False
    plain: Callable[[], Any] | None = None
    evaluate: Callable[[nn.Module, Any], Judged] | None = None

    def overrides(self, samples: int) -> list[str]:
        """The job's words for a number of training samples."""
        fixed = ["dataset.source=generated", f"seed={SEED}", "threads=1", "trainer.device=cpu", "procedure=fit"]
        return [*self.words, *fixed, self.size.format(n=math.ceil(samples * self.scale))]


IMDB = ("trainer.batch_size=64", "trainer.eval_batch_size=256")
FAMILIES = {
    family.name: family
    for family in (
        Family("MLP (digits)", ("dataset=digits", "model=mlp"), lambda s: Images(s, (1, 8, 8), 16), classes),
        Family(
            "CNN (OCTMNIST)",
            ("experiment=octmnist_cnn", "trainer.batch_size=64", "callbacks.running_mean=null"),
            lambda s: Images(s, (1, 28, 28), 256),
            classes,
            images=True,
        ),
        Family(
            "ResNet-9 (CIFAR-10, a quarter of its width)",
            (
                "dataset=cifar10",
                "model=resnet9",
                "model.width=16",
                "optimizer=sgd_momentum",
                "learner.channels_last=true",
            ),
            lambda s: Images(s, (3, 32, 32), 255),
            classes,
            (256, 1024),
            images=True,
        ),
        Family("LSTM (IMDB)", ("experiment=imdb_lstm", *IMDB), Texts, two_classes, (256, 1024), scale=2.0),
        Family("GRU (IMDB)", ("experiment=imdb_gru", *IMDB), Texts, two_classes, (256, 1024), scale=2.0),
        Family(
            "Transformer encoder (AG News)",
            (
                "experiment=glove_transformer",
                "vectors=null",
                "predictor=null",
                "model.hidden=256",
                "~procedure.sentences",
            ),
            Texts,
            classes,
            (512, 2048),
        ),
        Family(
            "Encoder-decoder (IMDB)",
            ("experiment=imdb_transformer", *IMDB, "model.dropout=0.0"),
            Texts,
            two_classes,
            (256, 1024),
            scale=2.0,
        ),
        Family(
            "Dense autoencoder (NYC taxi)",
            ("experiment=taxi_dense_ae", "callbacks=default"),
            lambda s: Columns(s, WindowBatch, lambda x: x),
            copies,
            scale=1.9,
        ),
        Family("VAE (MNIST)", ("experiment=mnist_vae",), lambda s: Images(s, (1, 28, 28), 255), bound),
        Family(
            "Forecasting LSTM (Air Quality)",
            ("experiment=air_lstm", "callbacks=default"),
            lambda s: Columns(s, ForecastBatch, lambda x: x),
            forecasts,
            scale=1.45,
        ),
        Family(
            "CTC (speech)",
            ("experiment=tone_speech_ctc", "callbacks=default", "scheduler=none"),
            Clips,
            transcripts,
            (128, 512),
            evaluate=written_transcripts,
        ),
        Family(
            "NumPy perceptron (OCTMNIST)",
            ("experiment=octmnist_perceptron", "dataset/order=shuffled"),
            lambda s: Images(s, (1, 28, 28), 256),
            classes,
            plain=PlainPerceptron,
        ),
        Family(
            "NumPy MLP (OCTMNIST)",
            ("experiment=octmnist_mlp_numpy", "dataset/order=shuffled", "~dataset.order.normals_before"),
            lambda s: Images(s, (1, 28, 28), 256),
            classes,
            (512, 2048),
            plain=PlainMLP,
        ),
    )
}


def model_of(config: Any) -> Any:
    """The job's model, freshly drawn."""
    torch.manual_seed(SEED)
    return configs.build({"model": config["procedure"]["learner"]["model"]}, "model")


def optimizer_of(config: Any, parameters: Any, fused: bool) -> torch.optim.Optimizer:
    """The job's optimizer as one would write it."""
    about = dict(config["procedure"]["learner"]["optimizer"])
    kind = getattr(torch.optim, about.pop("_target_").rpartition(".")[2])
    about.pop("_partial_")
    return kind(parameters, **{**about, "fused": fused})


# -- the loops ------------------------------------------------------------------------------------------------------


def tuned(family: Family, config: Any, data: Any) -> list[float]:
    """The best plain loop: data ready in memory, a fused optimizer, no wait inside an epoch, inference mode."""
    model = model_of(config)
    if family.images:
        model.to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(config, trained, fused=True)
    train, val, test = (family.hold(split) for split in (data.train, data.val, data.test))
    size = config["trainer"]["batch_size"]
    losses: list[float] = []
    best = math.inf
    kept: dict[str, Tensor] = {}
    for epoch in range(config["trainer"]["max_epochs"]):
        model.train()
        total, right = torch.zeros(()), torch.zeros(())
        for chosen in train.epoch(size, epoch):
            loss, n_right = family.judge(model, laid_out(train.batch(chosen), family.images))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.detach() * len(chosen)
            right += 0 if n_right is None else n_right
        losses.append(float(total) / len(train))
        judged = _judge_all(model, family, val)
        if judged < best:
            best = judged
            kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(kept)
    _judge_all(model, family, test)
    return losses


def laid_out(batch: Any, images: bool) -> Any:
    """The batch, its images in the memory order of convolutions."""
    return batch._replace(x=batch.x.contiguous(memory_format=torch.channels_last)) if images else batch


@torch.inference_mode()
def _judge_all(model: nn.Module, family: Family, split: Any) -> float:
    model.eval()
    total = torch.zeros(())
    for chosen in torch.arange(len(split)).split(EVALUATION_BATCH if not isinstance(split, Texts) else 256):
        loss, _ = (family.evaluate or family.judge)(model, laid_out(split.batch(chosen), family.images))
        total += loss * len(chosen)
    return float(total) / len(split)


class Items(torch.utils.data.Dataset):
    """The notebook's data set: an item at a time."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, i: int) -> Any:
        return self.held.item(i)


class Batches:
    """The batches of an epoch as lists of numbers, for a DataLoader; the next call gives the next epoch."""

    def __init__(self, held: Any, size: int, is_training: bool) -> None:
        self.held = held
        self.size = size
        self.is_training = is_training
        self.epoch = -1

    def __len__(self) -> int:
        return math.ceil(len(self.held) / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        self.epoch += 1
        order = self.held.epoch(self.size, self.epoch) if self.is_training else None
        yield from (one.tolist() for one in order or torch.arange(len(self.held)).split(self.size))


def loaders(family: Family, config: Any, data: Any) -> list[Any]:
    """DataLoaders of train, val and test, as a notebook makes them."""
    size = config["trainer"]["batch_size"]
    made = []
    for split in (data.train, data.val, data.test):
        held = family.hold(split)
        batches: Any = Batches(held, size, split is data.train)
        own = torch.Generator()  # or the loader would draw from the model's random numbers
        made.append(
            torch.utils.data.DataLoader(Items(held), batch_sampler=batches, collate_fn=held.collate, generator=own)
        )
    return made


def notebook(family: Family, config: Any, data: Any) -> list[float]:
    """The usual loop: a DataLoader over single items, padding to the full length, .item() at every step."""
    model = model_of(config)
    optimizer = optimizer_of(config, [p for p in model.parameters() if p.requires_grad], fused=False)
    train, val, test = loaders(family, config, data)
    losses = []
    for _ in range(config["trainer"]["max_epochs"]):
        model.train()
        total, right = 0.0, 0
        for batch in train:
            optimizer.zero_grad()
            loss, n_right = family.judge(model, batch)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch[0])
            right += 0 if n_right is None else n_right.item()
        losses.append(total / len(train.dataset))
        _judge_loader(model, family, val)
    _judge_loader(model, family, test)
    return losses


@torch.no_grad()
def _judge_loader(model: nn.Module, family: Family, loader: Any) -> float:
    model.eval()
    total = 0.0
    for batch in loader:
        total += (family.evaluate or family.judge)(model, batch)[0].item() * len(batch[0])
    return total / len(loader.dataset)


def with_lightning(family: Family, config: Any, data: Any) -> list[float]:
    """Lightning's default Trainer: logger, progress bar, checkpoint, validation."""
    import lightning  # pyright: ignore[reportMissingImports]

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    losses: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of(config)

        def training_step(self, batch, index):
            loss, _ = family.judge(self.model, batch)
            self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch[0]))
            return loss

        def validation_step(self, batch, index):
            self.log("val/loss", (family.evaluate or family.judge)(self.model, batch)[0], batch_size=len(batch[0]))

        def test_step(self, batch, index):
            self.log("test/loss", (family.evaluate or family.judge)(self.model, batch)[0], batch_size=len(batch[0]))

        def on_train_epoch_end(self) -> None:
            losses.append(float(self.trainer.callback_metrics["train/loss"]))

        def configure_optimizers(self):
            return optimizer_of(config, [p for p in self.parameters() if p.requires_grad], fused=False)

    module = Module()
    train, val, test = loaders(family, config, data)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer = lightning.Trainer(
                max_epochs=config["trainer"]["max_epochs"], default_root_dir=folder, accelerator="cpu"
            )
            trainer.fit(module, train, val)
            trainer.test(module, test, verbose=False)
    return losses
