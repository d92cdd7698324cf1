"""How the rows of a data set become train, val and test: by fraction, in order, by a column, by files, or in folds.

Each way takes the number of rows, their classes (None for a regression), and a function that returns the cells of a
column. It returns the numbers of the rows of each split, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dl_lab.types import UserError

SPLITS = ("train", "val", "test")
Parts = dict[str, np.ndarray]
Cells = Callable[[str], Sequence[str]]


class Rows(Protocol):
    """A way to divide rows into train, val and test."""

    def __call__(self, n: int, labels: np.ndarray | None, cells: Cells) -> Parts:
        """Return the numbers of the rows of each split.

        Args:
            n: The number of rows.
            labels: (n,) the class of each row. None: there are no classes.
            cells: Returns the cells of a column, by its name.

        Raises:
            UserError: A split would have no row.
            ValueError: A setting makes no sense.
        """
        ...


@dataclass(frozen=True)
class ByFraction:
    """Random rows, the classes in proportion.

    Args:
        val: The share of validation.
        test: The share of test.
        seed: The seed of the draw.
        stratify: Whether the classes have the same shares in all splits.
    """

    val: float = 0.15
    test: float = 0.15
    seed: int = 42
    stratify: bool = True

    def __call__(self, n: int, labels: np.ndarray | None, cells: Cells) -> Parts:
        """Draw the rows of each split."""
        _check_shares(self.val, self.test)
        order = np.random.default_rng(self.seed).permutation(n)
        if labels is None or not self.stratify:
            return _sort_parts(_cut(order, self.val, self.test))
        parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        for label in np.unique(labels):
            own = order[labels[order] == label]
            for split, rows in _cut(own, self.val, self.test).items():
                parts[split].append(rows)
        return _sort_parts({split: np.concatenate(rows) for split, rows in parts.items()})


@dataclass(frozen=True)
class InOrder:
    """The first rows for training, the last rows for test: for rows that are sorted by time.

    Args:
        val: The share of validation.
        test: The share of test.
    """

    val: float = 0.15
    test: float = 0.15

    def __call__(self, n: int, labels: np.ndarray | None, cells: Cells) -> Parts:
        """Cut the rows into three parts."""
        _check_shares(self.val, self.test)
        return _sort_parts(_cut(np.arange(n), self.val, self.test))


@dataclass(frozen=True)
class ByColumn:
    """A column names the split of each row.

    Args:
        column: The name of the column. The column is no feature.
        train: The cell of a training row.
        val: The cell of a validation row.
        test: The cell of a test row.
    """

    column: str
    train: str = "train"
    val: str = "val"
    test: str = "test"

    def __call__(self, n: int, labels: np.ndarray | None, cells: Cells) -> Parts:
        """Return the rows whose cell names the split."""
        names = {self.train: "train", self.val: "val", self.test: "test"}
        found = np.array(cells(self.column))
        strange = sorted(set(found.tolist()) - names.keys())
        if strange:
            raise UserError(
                f"The column {self.column} holds {strange[0]!r}, which names no split. The names are {', '.join(names)}"
                " (dataset.rows.train, .val and .test set them)."
            )
        return _sort_parts({split: np.flatnonzero(found == name) for name, split in names.items()})


@dataclass(frozen=True)
class Folds:
    """Cross-validation: fold `fold` of `n` is test, the next fold is validation, and the others are training.

    A sweep runs all folds: dl-lab -m dataset/rows=folds dataset.rows.fold=0,1,2,3,4

    Args:
        n: The number of folds, at least 3.
        fold: The number of the test fold, from 0.
        seed: The seed of the draw.
        stratify: Whether the classes have the same shares in all folds.
    """

    n: int = 5
    fold: int = 0
    seed: int = 42
    stratify: bool = True

    def __call__(self, n: int, labels: np.ndarray | None, cells: Cells) -> Parts:
        """Divide the rows into folds."""
        if self.n < 3 or not 0 <= self.fold < self.n:
            raise ValueError(f"fold {self.fold} of n {self.n}: there must be at least 3 folds, counted from 0")
        order = np.random.default_rng(self.seed).permutation(n)
        if labels is not None and self.stratify:
            order = order[np.argsort(labels[order], kind="stable")]  # every fold takes one row in n of every class
        number = np.empty(n, dtype=int)
        number[order] = np.arange(n) % self.n
        val = (self.fold + 1) % self.n
        return _sort_parts(
            {
                "train": np.flatnonzero((number != self.fold) & (number != val)),
                "val": np.flatnonzero(number == val),
                "test": np.flatnonzero(number == self.fold),
            }
        )


@dataclass(frozen=True)
class Given:
    """Validation and test are files of their own; `dataset.path` is the training file.

    Args:
        val: The file of validation rows.
        test: The file of test rows.
    """

    val: str
    test: str

    def __call__(self, n: int, labels: np.ndarray | None, cells: Cells) -> Parts:
        """Return the rows of each file."""
        number = np.array(list(map(int, cells(FILE_NUMBER))))
        return _sort_parts({split: np.flatnonzero(number == i) for i, split in enumerate(SPLITS)})

    @property
    def paths(self) -> list[str]:
        """The files of validation and test rows."""
        return [self.val, self.test]


FILE_NUMBER = "\0file"  # the column with the number of a row's file: 0 train, 1 val, 2 test


def _check_shares(val: float, test: float) -> None:
    if val <= 0 or test <= 0 or val + test >= 1:
        raise ValueError(f"val {val} and test {test} must be positive shares that leave something to train on")


def _cut(rows: np.ndarray, val: float, test: float) -> Parts:
    n_val = max(round(len(rows) * val), 1)
    n_test = max(round(len(rows) * test), 1)
    ends = [max(len(rows) - n_val - n_test, 0), max(len(rows) - n_test, 0)]
    return dict(zip(SPLITS, np.split(rows, ends), strict=True))


def _sort_parts(parts: Parts) -> Parts:
    """Return the parts in file order. Raise a UserError for an empty part."""
    for split in SPLITS:
        if not len(parts[split]):
            sizes = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
            raise UserError(f"No rows are left for {split} ({sizes}). See dataset.rows.")
    return {split: np.sort(rows) for split, rows in parts.items()}
