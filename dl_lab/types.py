"""The vocabulary every part shares: tallies, batches, data sets, and the protocols at the seams.

Nothing here imports torch at run time, so that commands which only read records stay fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dl_lab.run import Run

Metrics: TypeAlias = dict[str, float]
Batch: TypeAlias = Any  # a NamedTuple of tensors whose first axis is the batch


class UserError(Exception):
    """Something the user can mend; the command prints the message alone and exits with `exit_code`."""

    exit_code = 1


class ConfigError(UserError):
    """The configuration is wrong: found before anything was built or written."""

    exit_code = 2


class Interrupted(UserError):
    """The user (or the system) asked the run to stop; it did so after the step in progress."""

    exit_code = 130


class Pruned(UserError):
    """A search found the run not promising and ended it early."""

    exit_code = 76


class Measure(Protocol):
    """One entry of a tally: adds up exactly over uneven batches, is read once per epoch."""

    def __add__(self, other: Any, /) -> Any: ...

    def values(self, name: str) -> Metrics:
        """The metrics it amounts to, by their full names; waits for the device."""
        ...


Tally: TypeAlias = dict[str, Any]  # name -> Measure


@dataclass(slots=True)
class Ratio:
    """A mean kept as a ratio of sums, on the device until it is read."""

    sum: Tensor | float
    count: Tensor | int

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.sum + other.sum, self.count + other.count)

    def values(self, name: str) -> Metrics:
        return {name: float(self.sum) / float(self.count)}


@dataclass(slots=True)
class Total:
    """A sum over samples that is reported as it is, for sources that do not divide."""

    sum: Tensor | float

    def __add__(self, other: Total) -> Total:
        return Total(self.sum + other.sum)

    def values(self, name: str) -> Metrics:
        return {name: float(self.sum)}


@dataclass(slots=True)
class Confusion:
    """Counts by (true class, predicted class): an integer matrix (n_classes, n_classes)."""

    counts: Tensor

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

    def values(self, name: str) -> Metrics:
        """Balanced accuracy: the mean recall of the classes that occur."""
        counts = self.counts.double().cpu()
        present = counts.sum(dim=1) > 0
        recall = counts.diagonal()[present] / counts.sum(dim=1)[present]
        return {"balanced_accuracy": float(recall.mean())}


def add_tallies(total: Tally, part: Tally) -> Tally:
    """The tally of both; a name that only one of them has is kept."""
    return {**total, **{name: total[name] + part[name] if name in total else part[name] for name in part}}


def read_tally(tally: Tally, prefix: str = "") -> Metrics:
    """{"loss": Ratio} -> {"<prefix>loss": 0.12}."""
    return {prefix + key: value for name, entry in tally.items() for key, value in entry.values(name).items()}


class LabelledBatch(NamedTuple):
    """Inputs x (batch, ...) and class labels y (batch,) int64."""

    x: Tensor
    y: Tensor


class TokenBatch(NamedTuple):
    """Token numbers x (batch, length) int64, mask (batch, length) bool, True for a token, labels y (batch,) int64."""

    x: Tensor
    mask: Tensor
    y: Tensor


class WindowBatch(NamedTuple):
    """Windows of a series x (batch, length, features), scaled."""

    x: Tensor


class ForecastBatch(NamedTuple):
    """Windows x (batch, length, features) and the steps after them y (batch, horizon, features), both scaled;
    observed (batch, horizon, features) bool: which of y were measured, not filled in."""

    x: Tensor
    y: Tensor
    observed: Tensor


START, STOP, PADDING, UNKNOWN, SPACE = range(5)  # the first symbols of a text written as characters


class SpeechBatch(NamedTuple):
    """Log-mel features (batch, frames, n_mels), zeros behind the n_frames (batch,) int64 of each clip, and tokens
    (batch, text_length) int64: START, the characters, STOP, then PADDING."""

    features: Tensor
    n_frames: Tensor
    tokens: Tensor


class Split(Protocol):
    """One part of a data set."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every item once, in the stored order (the last batch may be smaller)."""
        ...

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Every item once, in an order that depends on (seed, epoch) only; `start` skips that many batches."""
        ...

    def n_batches(self, batch_size: int) -> int: ...

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        """How many items the batches of that epoch have, also those of which this split is a part."""
        ...

    def to(self, device: torch.device) -> Split:
        """The same split whose batches come out on `device`."""
        ...

    def divided(self, rank: int, n_ranks: int) -> Split:
        """The same split for one of several processes: `batches` and `epoch` give its part of each batch.

        Parts are as `Tensor.tensor_split` makes them. In `epoch`, where a batch has fewer items than there are
        processes, those without one get the batch's first item, so that all take as many steps; it has no weight.
        """
        ...


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits, and what must be said about them.

    `label` says how much of the official data this is: "full" (checksum or counts match the release),
    "part" (real but not whole, or not the official copy) or "generated". `fingerprint` identifies the content.
    `preprocessing` is what a new item must go through before the model takes it (a scaler, a vocabulary), in plain
    JSON values: a fit saves it as preprocessing.json in the run.
    """

    name: str
    label: Literal["full", "part", "generated"]
    train: Split
    val: Split
    test: Split
    fingerprint: str
    class_names: tuple[str, ...] = ()
    note: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> Dataset:
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def divided(self, rank: int, n_ranks: int) -> Dataset:
        """The part of one of several processes."""
        splits = (split.divided(rank, n_ranks) for split in (self.train, self.val, self.test))
        return replace(self, **dict(zip(("train", "val", "test"), splits, strict=True)))

    def summary(self) -> dict[str, Any]:
        sizes = {"train": len(self.train), "val": len(self.val), "test": len(self.test)}
        return {
            "name": self.name,
            "label": self.label,
            "note": self.note,
            "fingerprint": self.fingerprint,
            "sizes": sizes,
            **{key: self.extras[key] for key in ("class_counts",) if key in self.extras},
        }


class Task(Protocol):
    """What is optimised and what is measured."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """The scalar to minimise (a mean over the batch) and the tally of the batch."""
        ...

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """The tally of an evaluation batch: at least what `loss` tallies."""
        ...


class Learner(Protocol):
    """How one batch changes, or judges, the model."""

    def to(self, device: torch.device) -> None: ...

    def plan(self, n_updates: int) -> None:
        """Told once, before the first update, how many updates the whole training has: for schedules over all of it."""
        ...

    def update(self, batch: Batch) -> Tally: ...

    def evaluate(self, batch: Batch) -> Tally: ...

    def end_epoch(self, metrics: Metrics) -> None:
        """Called after each epoch's validation: the place of per-epoch schedules."""
        ...

    def rates(self) -> Metrics:
        """What is scheduled, by name: {"lr": 0.1}."""
        ...

    def notes(self) -> dict[str, Any]:
        """What a record of the run must say about how it was trained: plain values by name."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What `predict` needs, and what "best" keeps."""
        ...

    def load_weights(self, weights: Mapping[str, Tensor]) -> None: ...

    def n_parameters(self) -> tuple[int, int]:
        """(all, trainable)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs: tensors and plain types only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Experiment(Protocol):
    """Anything a YAML may run."""

    def __call__(self, run: Run) -> Metrics: ...


class Predictor(Protocol):
    """What `dl-lab predict RUN FILE|TEXT` does: the run's weights and preprocessing on something new.

    One that also takes a text says so by an attribute `reads_text: bool = True`.
    """

    def __call__(
        self, new: Any, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Rows of one table, in the units of the file (a Path; a text is a str). Raises UserError for what cannot be
        used."""
        ...
