"""A data set: three splits and facts about them; from arrays, from a table, or from data sets of torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import DataLoader

from dl_lab.datasets.batches import AUTO, Loading, Order, TensorSplit, fingerprint, shuffled
from dl_lab.datasets.class_names import as_class_names
from dl_lab.datasets.loaders import Collate, LoaderSplit
from dl_lab.datasets.rows import ByFraction, Rows
from dl_lab.datasets.tables.columns import Columns as TableColumns
from dl_lab.datasets.tables.encoding import to_plain
from dl_lab.datasets.tables.reading import Format
from dl_lab.datasets.tables.understanding import understand_table
from dl_lab.types import Batch, LabelledBatch, Split, UserError, columns_of, count

Array: TypeAlias = ArrayLike | Tensor
Columns: TypeAlias = Sequence[Array] | Mapping[str, Array]  # of a split; the first axis of each is the item
FRACTION = ByFraction()
ALL = TableColumns()
PLAIN = Format()


class Content(Protocol):
    """The content of a kind of data sets beside its splits.

    Attributes:
        words: The kind, for a message: "a series".
    """

    words: ClassVar[str]


Kind = TypeVar("Kind", bound=Content)


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits, and facts about them.

    Args:
        name: The name of the data set.
        label: How much of the official data this is: "full" (checksums or counts match the release), "part" (real, but
            not whole or not the official copy) or "generated".
        train: The training items.
        val: The validation items.
        test: The test items.
        fingerprint: A name of the content, which differs for other content.
        class_names: The classes by number.
        note: What a reader of the results must know about the data.
        preprocessing: The preparation of a new item for the model (a scaler, a vocabulary), in plain JSON values. A fit
            saves it as preprocessing.json in the run.
        class_counts: Split -> class -> number of items.
        about: How a file of the user's was understood, one sentence an entry.
        images: The data set of images, if this one has their features in their place.
        content: The content beside the splits: `SeriesContent`, `TextContent` or `SpeechContent` (see `content_as`).

    Attributes:
        examined: What an examination of all items has found out. `to` and `divided` pass it on; a data set with other
            splits begins without it.

    Raises:
        UserError: The class names are one text, or two of them look the same.
    """

    name: str
    label: Literal["full", "part", "generated"]
    train: Split
    val: Split
    test: Split
    fingerprint: str
    class_names: tuple[str, ...] = ()
    note: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    about: Sequence[str] = ()
    images: Dataset | None = None
    content: object = None
    examined: dict[str, object] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", as_class_names(self.class_names))

    @classmethod
    def from_arrays(
        cls,
        train: Columns,
        val: Columns,
        test: Columns,
        name: str = "arrays",
        class_names: Sequence[str] = (),
        transform: Callable[..., Batch] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Return a data set of arrays or tensors in memory (see `TensorSplit`).

        Args:
            train: The columns (x, y) of the training split, or a mapping of columns by name. The first axis of each
                column is the item.
            val: The columns of the validation split.
            test: The columns of the test split.
            name: The name of the data set.
            class_names: The classes, if the labels are class numbers.
            transform: Raw batch -> batch, on the device. None keeps the batch as it is.
            preprocessing: The facts that a predictor needs, in plain JSON values.

        Raises:
            UserError: A column is text, or a split has another number of columns.
            ValueError: The columns of a split have different lengths, or none.
        """
        splits: dict[str, TensorSplit] = {}
        digests: list[str] = []
        for part, columns in {"train": train, "val": val, "test": test}.items():
            batch = _to_batch(part, columns)
            splits[part] = TensorSplit(batch, transform or _keep)
            digests.append(fingerprint(*columns_of(batch)))
        digest = fingerprint(torch.tensor([int(digest, 16) % 2**62 for digest in digests]))
        return cls(
            name,
            "full",
            splits["train"],
            splits["val"],
            splits["test"],
            fingerprint=digest,
            class_names=as_class_names(class_names),
            preprocessing=preprocessing or {},
        )

    @classmethod
    def from_csv(
        cls,
        path: str,
        target: str,
        rows: Rows = FRACTION,
        columns: TableColumns = ALL,
        format: Format = PLAIN,
        kind: Literal["regression", "classes"] | None = None,
        data_dir: str = ".",
        loading: Loading = AUTO,
        order: Order = shuffled,
    ) -> Dataset:
        """Return the rows of a CSV or Parquet file: scaled numbers and one-hot categories, and one column to predict.

        The batches are `LabelledBatch`: features x (batch, features) float32, and targets y (batch,), which are classes
        int64 or scaled numbers float32. `about` describes each column. `preprocessing` has the mean and the deviation
        of the target, both in its own unit.

        Args:
            path: A file with a header, relative to the current folder or to `data_dir`.
            target: The column to predict.
            rows: How rows become train, val and test; by default 70 %, 15 % and 15 % at random.
            columns: Which columns are features, and of what kind.
            format: How the file is written.
            kind: Whether the target is a number or a class. None: its values decide.
            data_dir: The folder of the file if it is not in the current folder.
            loading: Where the tensors reside.
            order: The order of a training epoch.

        Raises:
            UserError: The file cannot be used; the message names file, line and column.
        """
        found = understand_table(path, target, kind, columns, format, rows, data_dir)
        targets = found.scale_targets()
        batches: dict[str, LabelledBatch] = {}
        for part, chosen in found.parts.items():
            batches[part] = LabelledBatch(torch.from_numpy(found.features[chosen]), torch.from_numpy(targets[chosen]))
        splits = hold_tensors(batches, loading, order)
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(columns).items()}
        return cls(
            "table",
            "full",
            splits["train"],
            splits["val"],
            splits["test"],
            fingerprint=fingerprint(*itertools.chain.from_iterable(batches.values())),
            class_names=found.class_names,
            note="; ".join(f"val and test, {note}" for note in found.strange.notes()),
            about=found.about,
            preprocessing={
                "target": target,
                "kind": found.kind,
                "mean": found.mean,
                "deviation": found.deviation,
                "class_names": list(found.class_names),
                "columns": to_plain(found.columns),
                "settings": settings,
                "format": asdict(format),
            },
        )

    @classmethod
    def from_loaders(
        cls,
        train: Any,
        val: Any,
        test: Any,
        name: str,
        fingerprint: str,
        class_names: Sequence[str] = (),
        collate: Collate | None = None,
        workers: int = 0,
        drop_last: bool = False,
        n_batches_per_epoch: int | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Return a data set of three data sets of torch (see `LoaderSplit`).

        Args:
            train: The training data set.
            val: The validation data set.
            test: The test data set.
            name: The name of the data set.
            fingerprint: A name of the content, like a version: runs of other content are not compared.
            class_names: The classes, if the labels are class numbers.
            collate: As in `LoaderSplit`.
            workers: As in `LoaderSplit`.
            drop_last: Whether the training split leaves out a smaller last batch of an epoch.
            n_batches_per_epoch: Batches of an epoch of an iterable training data set.
            preprocessing: The facts that a predictor needs, in plain JSON values.

        Raises:
            UserError: A split is a DataLoader.
        """
        if any(isinstance(split, DataLoader) for split in (train, val, test)):
            raise UserError(
                "Dataset.from_loaders takes the data sets, not their DataLoaders: give loader.dataset. The trainer "
                "makes the batches (trainer.batch_size), and shuffles the training split."
            )
        return cls(
            name,
            "full",
            train=LoaderSplit(train, collate, workers, drop_last, n_batches_per_epoch),
            val=LoaderSplit(val, collate, workers),
            test=LoaderSplit(test, collate, workers),
            fingerprint=fingerprint,
            class_names=as_class_names(class_names),
            preprocessing=preprocessing or {},
        )

    def content_as(self, kind: type[Kind]) -> Kind:
        """Return the content, which must be of this kind.

        Raises:
            UserError: The data set is of another kind.
        """
        if not isinstance(self.content, kind):
            raise UserError(f"This needs a data set of {kind.words}, but {self.name} is of another kind.")
        return self.content

    def to(self, device: torch.device) -> Dataset:
        """Return the same data set with batches on a device."""
        return self._with(self.train.to(device), self.val.to(device), self.test.to(device))

    def divided(self, rank: int, n_ranks: int) -> Dataset:
        """Return the part of one of several processes."""
        return self._with(*(split.divided(rank, n_ranks) for split in (self.train, self.val, self.test)))

    def _with(self, train: Split, val: Split, test: Split) -> Dataset:
        """Return the data set with splits of the same items."""
        same = replace(self, train=train, val=val, test=test)
        object.__setattr__(same, "examined", self.examined)  # the class is frozen
        return same

    def summary(self) -> dict[str, Any]:
        """Return the facts for the summary of a run, as plain JSON values."""
        summary: dict[str, Any] = {
            "name": self.name,
            "label": self.label,
            "note": self.note,
            "fingerprint": self.fingerprint,
            "sizes": {"train": len(self.train), "val": len(self.val), "test": len(self.test)},
        }
        if self.class_counts:
            summary["class_counts"] = self.class_counts
        if self.about:
            summary["about"] = list(self.about)
        return summary


def hold_tensors(batches: Mapping[str, Batch], loading: Loading, order: Order) -> dict[str, TensorSplit]:
    """Return splits that hold columns as they are.

    Args:
        batches: Split -> all its columns.
        loading: Where the tensors reside.
        order: The order of a training epoch.
    """
    splits: dict[str, TensorSplit] = {}
    for part, batch in batches.items():
        splits[part] = TensorSplit(batch, _keep, order, loading.residence, loading.workers)
    return splits


def _to_batch(part: str, columns: Columns) -> Batch:
    """Return the columns of a split as tensors: a mapping stays a mapping, two columns become a LabelledBatch."""
    is_named = isinstance(columns, Mapping)
    names = list(columns) if is_named else ["inputs", "labels"]
    if len(columns) != len(names):
        raise UserError(
            f"{part} has {count(len(columns), 'column')}: give inputs and labels, or a mapping of columns by name."
        )
    tensors = [
        _to_tensor(column, f"The {name} of {part}") for column, name in zip(columns_of(columns), names, strict=True)
    ]
    lengths = [len(tensor) for tensor in tensors]
    if not lengths or not all(lengths) or len(set(lengths)) > 1:
        sizes = " and ".join(f"{length} {name}" for length, name in zip(lengths, names, strict=True))
        raise ValueError(f"{part} has {sizes or 'no columns'}")
    return dict(zip(columns, tensors, strict=True)) if is_named else LabelledBatch(*tensors)


def _to_tensor(column: Array, what: str) -> Tensor:
    if isinstance(column, Tensor):
        return column
    array = np.asarray(column)
    if array.dtype.kind in "USO":
        raise UserError(
            f"{what} are of NumPy's type {array.dtype}; numbers are needed. Texts become class numbers by "
            "names, numbers = numpy.unique(labels, return_inverse=True)."
        )
    return torch.as_tensor(array)


def _keep(batch: Batch) -> Batch:
    return batch
