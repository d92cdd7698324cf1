"""The vocabulary that every part shares: tallies, batches, data sets, and the protocols at the seams.

Long because one import gives the whole vocabulary, and the protocols are mostly their docstrings.
Nothing here imports torch at run time, so that commands which only read records stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Metrics: TypeAlias = dict[str, float]
Batch: TypeAlias = Any  # a NamedTuple, a tuple or a mapping of tensors whose first axis is the batch


class UserError(Exception):
    """An error that the user can mend. The command prints the message alone and exits with `exit_code`."""

    exit_code = 1


class ConfigError(UserError):
    """The configuration is wrong. This is found before anything is built or written."""

    exit_code = 2


class Interrupted(UserError):
    """The user (or the system) asked the run to stop, and the run stopped after the step in progress."""

    exit_code = 130


BROKEN_DATA = "The data are the cause"  # in the message of a `Diverged`: the doctor looks for these words


class Diverged(UserError):
    """The training loss is no longer a finite number."""


class Pruned(UserError):
    """A search ended the run early because it was not promising."""

    exit_code = 76


class OutOfMemory(UserError):
    """The device has no memory left for the run."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: The number of the current epoch, from 1; 0 for work without epochs.
        max_epochs: The number of the last epoch; 0 for work without epochs.
        done: The number of updates, or of steps of an analysis, so far.
        total: The number of updates or steps of the whole run.
        samples_per_second: The newest measurement of training samples per second; 0 while there is none.
    """

    epoch: int
    max_epochs: int
    done: int
    total: int
    samples_per_second: float = 0.0


class Measure(Protocol):
    """One entry of a tally: it adds up exactly over uneven batches and is read once per epoch.

    A measure of one's own is a dataclass of tensors and plain values. Any other class needs a method `state()` that
    returns the arguments of its constructor, so that a checkpoint can hold it.
    """

    def __add__(self, other: Self, /) -> Self: ...

    def values(self, name: str) -> Metrics:
        """Return the metrics by their full names. This waits for the device."""
        ...


def measure_state(measure: object) -> tuple[object, ...]:
    """Return the arguments from which the class of a measure builds an equal one.

    Raises:
        UserError: The measure is no dataclass and has no method `state()`.
    """
    if is_dataclass(measure):
        return tuple(getattr(measure, entry.name) for entry in fields(measure))
    state = getattr(measure, "state", None)
    if state is None:
        raise UserError(
            f"A {type(measure).__name__} in a tally must be a dataclass, or have a method state() that returns the "
            "arguments of its constructor. Otherwise a checkpoint cannot hold it."
        )
    return tuple(state())


Tally: TypeAlias = dict[str, Any]  # name -> Measure; Any because a task reads what its own measures hold


@dataclass(slots=True)
class Ratio:
    """A mean kept as a ratio of sums, on the device until it is read."""

    sum: Tensor | float
    count: Tensor | int

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.sum + other.sum, self.count + other.count)

    def values(self, name: str) -> Metrics:
        """Return the mean.

        Raises:
            UserError: The count is 0.
        """
        count = float(self.count)
        if count == 0:
            raise UserError(f"{name or 'loss'} is a mean over nothing: the count of its Ratio is 0.")
        return {name: float(self.sum) / count}


@dataclass(slots=True)
class Total:
    """A sum over samples that is reported as it is, for sources that do not divide."""

    sum: Tensor | float

    def __add__(self, other: Total) -> Total:
        return Total(self.sum + other.sum)

    def values(self, name: str) -> Metrics:
        """Return the sum."""
        return {name: float(self.sum)}


@dataclass(slots=True)
class Confusion:
    """Counts by (true class, predicted class): an integer matrix (n_classes, n_classes)."""

    counts: Tensor

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

    def values(self, name: str) -> Metrics:
        """Return the balanced accuracy: the mean recall of the classes that occur."""
        counts = self.counts.double().cpu()
        present = counts.sum(dim=1) > 0
        recall = counts.diagonal()[present] / counts.sum(dim=1)[present]
        return {"balanced_accuracy": float(recall.mean())}


def add_tallies(total: Tally, part: Tally) -> Tally:
    """Return the sum of two tallies. A name that only one of them has is kept."""
    both = dict(total)
    for name, measure in part.items():
        both[name] = total[name] + measure if name in total else measure
    return both


def read_tally(tally: Tally, prefix: str = "") -> Metrics:
    """Return the metrics of a tally: {"loss": Ratio} gives {"<prefix>loss": 0.12}."""
    metrics: Metrics = {}
    for name, measure in tally.items():
        for key, value in measure.values(name).items():
            metrics[prefix + key] = as_number(prefix + key, value)
    return metrics


def as_metrics(metrics: object) -> Metrics:
    """Return metrics as plain numbers.

    Raises:
        UserError: They are no mapping, a name is no text, or a value is no number.
    """
    if not isinstance(metrics, Mapping):
        raise UserError(f"Metrics must be a dictionary of numbers, such as {{'loss': 0.5}}, not {metrics!r:.60}.")
    for name in metrics:
        if not isinstance(name, str) or not name:
            raise UserError(f"The name of a metric must be a text, not {name!r}.")
    return {name: as_number(name, value) for name, value in metrics.items()}


def as_number(name: str, value: Any) -> float:
    """Return a metric as a plain number: scikit-learn gives NumPy's, which no checkpoint can hold.

    Raises:
        UserError: The value is no number.
    """
    if type(value) in (int, float):
        return value
    try:
        if not isinstance(value, str):
            return float(value.detach() if hasattr(value, "detach") else value)  # torch warns about a tensor's graph
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        pass
    raise UserError(f"The metric {name} must be a number; it is of the type {type(value).__name__}.")


def columns_of(batch: Batch) -> list[Any]:
    """Return the columns of a batch: a NamedTuple, a tuple, a list or a mapping of columns."""
    return list(batch.values()) if isinstance(batch, Mapping) else list(batch)


def rebuild(batch: Batch, columns: Iterable[Any]) -> Batch:
    """Return a batch of the same kind with other columns, in the same order."""
    if isinstance(batch, Mapping):
        return dict(zip(batch, columns, strict=True))
    if hasattr(batch, "_fields"):  # a NamedTuple
        return type(batch)(*columns)
    return type(batch)(columns)


def count(n: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "2,000 images"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def n_items(batch: Batch) -> int:
    """Return the number of items of a batch."""
    return len(columns_of(batch)[0])


def map_columns(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return the batch with every tensor changed; other columns (lists of texts) stay as they are."""
    return rebuild(batch, [change(c) if hasattr(c, "dim") else c for c in columns_of(batch)])


def split_batch(batch: Batch, n_parts: int) -> list[Batch]:
    """Return the parts of a batch, as `Tensor.tensor_split` makes them."""
    whole, rest = divmod(n_items(batch), n_parts)
    parts = []
    start = 0
    for i in range(n_parts):
        end = start + whole + (i < rest)
        parts.append(rebuild(batch, [column[start:end] for column in columns_of(batch)]))
        start = end
    return parts


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
    """Windows of a series and the steps after them, both scaled.

    Attributes:
        x: The windows (batch, length, features).
        y: The steps after them (batch, horizon, features).
        observed: True where y was measured, False where it was filled in (batch, horizon, features) bool.
    """

    x: Tensor
    y: Tensor
    observed: Tensor


START, STOP, PADDING, UNKNOWN, SPACE = range(5)  # the first symbols of a text written as characters


class SpeechBatch(NamedTuple):
    """Clips and their texts.

    Attributes:
        features: Log-mel features (batch, frames, n_mels), with zeros after the end of each clip.
        n_frames: The number of frames of each clip (batch,) int64.
        tokens: The texts (batch, text_length) int64: START, the characters, STOP, then PADDING.
    """

    features: Tensor
    n_frames: Tensor
    tokens: Tensor


class Split(Protocol):
    """One part of a data set."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every item once, in the stored order. The last batch may be smaller."""
        ...

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield every item once, in an order that depends on (seed, epoch) only; `start` skips that many batches."""
        ...

    def n_batches(self, batch_size: int) -> int:
        """Return the number of batches of an epoch."""
        ...

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        """Return the number of items of each batch of that epoch. A divided split gives those of the whole batches."""
        ...

    def to(self, device: torch.device) -> Split:
        """Return the same split with its batches on `device`."""
        ...

    def divided(self, rank: int, n_ranks: int) -> Split:
        """Return the same split for one of several processes: `batches` and `epoch` give its part of each batch.

        Parts are as `Tensor.tensor_split` makes them. All processes must take the same number of steps. So in `epoch`,
        where a batch has fewer items than there are processes, a process without an item gets the batch's first one,
        with weight 0.
        """
        ...


class Splits(Protocol):
    """What a task or a learner may ask of a data set; `datasets.dataset.Dataset` is one."""

    @property
    def train(self) -> Split:
        """The training split."""
        ...

    @property
    def val(self) -> Split:
        """The validation split."""
        ...

    @property
    def test(self) -> Split:
        """The test split."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        ...


class Task(Protocol):
    """What is optimised and what is measured.

    A task may also have a method `start(dataset, device)`, which is called once before the first update. A task takes
    its class weights from the counts of the training labels there. A text `infinite_where` says where its loss is
    infinite. A task that is an `nn.Module` is trained, moved and saved with the model.
    """

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the scalar to minimise (a mean over the batch), and the tally of the batch with an entry "loss"."""
        ...

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of an evaluation batch: at least the entries of `loss`."""
        ...


class Learner(Protocol):
    """How one batch changes the model, and how one batch judges it.

    A learner of one's own takes `training.base_learner.BaseLearner` as its base and writes `update` and `evaluate`.
    """

    def initialise(self) -> None:
        """Load weights that a new training begins with, where they are not drawn. A resumed training skips this."""
        ...

    def start(self, dataset: Splits) -> None:
        """Prepare for a data set, after `to` and before the first update or evaluation."""
        ...

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        ...

    def plan(self, n_epochs: int, n_updates: int) -> None:
        """Take the length of the whole training, which schedules need. Called once, before the first update."""
        ...

    def distribute(self, n_processes: int) -> None:
        """Prepare for several processes: from now on `update` sees this process's part of each batch.

        Raises:
            ConfigError: The learner works in one process only.
        """
        ...

    def share_buffers(self) -> None:
        """Copy the running means of the first process to all processes."""
        ...

    def least_items(self) -> int:
        """Return the smallest batch that `update` takes: a rehearsal uses it."""
        ...

    def update(self, batch: Batch, weight: float = 1.0) -> Tally:
        """Learn from one batch.

        Args:
            batch: The batch, or this process's part of it.
            weight: With N processes, N times this part's share of the whole batch.

        Returns:
            The tally of the batch, before the update, with an entry "loss" that is a `Ratio`.
        """
        ...

    def evaluate(self, batch: Batch) -> Tally:
        """Judge one batch. This changes nothing."""
        ...

    def end_epoch(self, metrics: Metrics) -> None:
        """Step the schedules that go by epochs.

        Args:
            metrics: The metrics of the epoch, those of the validation included, by their full names.
        """
        ...

    def rates(self) -> Metrics:
        """Return the scheduled values by name: {"lr": 0.1}."""
        ...

    def notes(self) -> dict[str, Any]:
        """Return facts about how the run was trained, for its record: plain values by name."""
        ...

    def advice(self, loss: float) -> str:
        """Return a sentence that says what may help where the training loss is not a finite number."""
        ...

    def main_module(self) -> nn.Module | None:
        """Return the module that `load`, `export` and `predict` use; None where there is no torch module."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors that a prediction needs and that "best" keeps. Names of the main module have no prefix."""
        ...

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore what `weights` returned."""
        ...

    def n_parameters(self) -> tuple[int, int]:
        """Return the numbers of all parameters and of the trainable ones."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that an exact continuation needs: tensors and plain types only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


class Answer(NamedTuple):
    """What a predictor says about new data: the rows of one table, and notes about how it read the data."""

    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()


class Predictor(Protocol):
    """What `dl-lab predict RUN FILE|TEXT` calls: it applies the run's weights and preprocessing to new data.

    A predictor that also takes a text has an attribute `reads_text: bool = True`. One that takes a folder has
    `reads_folder: bool = True`.
    """

    def __call__(
        self, new: Any, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]
    ) -> Answer | Sequence[Mapping[str, Any]]:
        """Return the rows of one table in the units of the file, alone or with notes.

        Args:
            new: A Path, or a str where the user gave a text. A predictor takes one of them, or both.
            weights: The weights of the run's model.
            preprocessing: What the run's data set saved.

        Raises:
            UserError: The file or the text cannot be used.
        """
        ...
