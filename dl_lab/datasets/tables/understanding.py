"""The content of a table: its columns, its target, and the rows of each split. Training rows alone decide."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dl_lab.datasets.rows import FILE_NUMBER, ByColumn, Given, Parts, Rows
from dl_lab.datasets.tables.cells import TableCells
from dl_lab.datasets.tables.columns import Column, Columns, understand
from dl_lab.datasets.tables.encoding import Strange, encode, find_strange
from dl_lab.datasets.tables.reading import Format, Stamp, find_file, read_tables, stamp_of
from dl_lab.types import UserError

Kind = Literal["regression", "classes"]
MOST_CLASSES = 20  # the most different whole numbers of a target that are classes; more of them are a quantity


@dataclass(frozen=True)
class Understood:
    """A table after it was read, divided and understood.

    Args:
        kind: Whether the target is a number or a class.
        features: (rows, width) float32, of all rows.
        targets: (rows,) float32 numbers in the target's unit, or int64 classes.
        parts: The rows of each split.
        columns: The columns.
        class_names: The classes by number; empty for a regression.
        mean: The mean of the target's numbers in the training rows; 0 for classes.
        deviation: Their standard deviation; 1 for classes.
        about: A description of each column.
        strange: Cells of val and test that train does not have.
    """

    kind: Kind
    features: np.ndarray
    targets: np.ndarray
    parts: Parts
    columns: list[Column]
    class_names: tuple[str, ...]
    mean: float
    deviation: float
    about: list[str]
    strange: Strange

    @property
    def n_outputs(self) -> int:
        """The outputs of a model: one for each class, or 1 for a number."""
        return len(self.class_names) if self.kind == "classes" else 1

    def scale_targets(self) -> np.ndarray:
        """Return numbers (rows,) float32 of mean 0 and deviation 1 in the training rows; classes stay as they are."""
        if self.kind == "classes":
            return self.targets
        return ((self.targets - self.mean) / self.deviation).astype(np.float32)


def understand_table(
    path: str, target: str, kind: Kind | None, columns: Columns, format: Format, rows: Rows, data_dir: str
) -> Understood:
    """Read a table once for the config and for the data set, as long as its files do not change.

    Args:
        path: A CSV or Parquet file with a header, relative to the current folder or to the data folder.
        target: The column to predict.
        kind: Whether the target is a number or a class. None: its values decide.
        columns: Which columns are features, and of what kind.
        format: How the file is written.
        rows: How rows become train, val and test.
        data_dir: The data folder.

    Raises:
        UserError: A cell cannot be used; the message names file, line and column.
    """
    files = [find_file(path, data_dir, "dataset.path")]
    if isinstance(rows, Given):
        files.append(find_file(rows.val, data_dir, "dataset.rows.val"))
        files.append(find_file(rows.test, data_dir, "dataset.rows.test"))
    stamps = tuple(stamp_of(file) for file in files)
    return _understand(_Question(stamps, target, kind, columns, format, rows))


@dataclass(frozen=True, eq=False)
class _Question:
    """The arguments of `_understand`. They are equal if their texts are: settings hold lists, which have no hash."""

    stamps: tuple[Stamp, ...]
    target: str
    kind: Kind | None
    columns: Columns
    format: Format
    rows: Rows

    def __hash__(self) -> int:
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and repr(self) == repr(other)


@functools.lru_cache(maxsize=4)
def _understand(question: _Question) -> Understood:
    target = question.target
    settings = question.columns
    rows = question.rows
    content = read_tables([Path(stamp.path) for stamp in question.stamps], question.format)
    cells = TableCells(content, settings.is_missing, question.format.decimal)
    answers = cells.column(target)
    if answers.missing.any():
        first = int(answers.missing.argmax())
        cell = answers.texts[first]
        stands = f" ({cell!r} stands for none; a class needs another name)" if cell else ""
        raise UserError(
            f"{content.where}, line {content.rows[first].line}: the target {target} has no value{stands}."
            " Delete the row, or predict it later with dl-lab predict."
        )
    found_kind, why = _decide_kind(cells, target, question.kind)
    class_names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    if found_kind == "classes":
        class_names, labels = _number_classes(cells, target)
        targets = labels
    else:
        targets = cells.numbers(target)
        if not np.isfinite(targets.astype(np.float32)).all():
            raise UserError(f"{content.where}: the target {target} holds numbers that are too large.")
    parts = rows(len(content.rows), labels, lambda name: cells.column(name).texts)
    if labels is not None:
        _check_classes(class_names, labels, parts, content.where, target)
    train = parts["train"]
    others = [FILE_NUMBER]
    if isinstance(rows, ByColumn):
        others.append(rows.column)
    columns = understand(cells, settings, target, train, others)
    features, _ = encode(cells, columns)
    strange = find_strange(cells, columns, np.concatenate([parts["val"], parts["test"]]))
    mean = float(targets[train].mean()) if labels is None else 0.0
    deviation = float(targets[train].std()) if labels is None else 1.0
    if deviation == 0:
        raise UserError(
            f"{content.where}: the target {target} is {mean:g} in every training row: there is nothing to learn."
        )
    about = [f"{target}: target, {why}", *(f"{column.name}: {column.words}" for column in columns)]
    return Understood(found_kind, features, targets, parts, columns, class_names, mean, deviation, about, strange)


def _decide_kind(cells: TableCells, target: str, wanted: Kind | None) -> tuple[Kind, str]:
    """Decide whether the target is a number or a class, and say why."""
    texts = cells.column(target).texts
    if wanted == "classes":
        return wanted, f"{len(set(texts))} classes, as dataset.kind says"
    if not cells.holds_numbers(target, "dataset.kind=classes"):
        if wanted == "regression":
            where = cells.table.where
            raise UserError(f"{where}: the target {target} holds words, not numbers: set dataset.kind=classes.")
        return "classes", f"{len(set(texts))} classes: it holds words"
    values = cells.numbers(target)
    n_different = len(np.unique(values))
    are_whole = bool(np.all(values == np.round(values)))
    are_few = are_whole and n_different <= min(MOST_CLASSES, len(values) // 2)
    if wanted == "regression" and are_few:
        return wanted, "regression, as dataset.kind says"
    if are_few:
        return "classes", f"{n_different} classes: so few different whole numbers (dataset.kind=regression: a number)"
    return "regression", f"a number: {n_different} different values (dataset.kind=classes for classes)"


def _number_classes(cells: TableCells, target: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes, sorted, and the class of each row (n,) int64."""
    where = cells.table.where
    texts, _, values = cells.column(target)
    names = sorted(set(texts))
    if values is not None:
        number = dict(zip(texts, values.tolist(), strict=True))
        names.sort(key=number.__getitem__)
        for one, other in itertools.pairwise(names):
            if number[one] == number[other]:
                raise UserError(f"{where}: the target {target} writes one number as {one!r} and as {other!r}.")
    if len(names) < 2:
        raise UserError(f"{where}: the target {target} is {names[0]!r} in every row: there is nothing to learn.")
    if len(names) > 0.5 * len(texts):
        raise UserError(
            f"{where}: the target {target} has {len(names)} different values in {len(texts)} rows: too many for"
            " classes."
        )
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(names), np.array([numbers[text] for text in texts], dtype=np.int64)


def _check_classes(names: Sequence[str], labels: np.ndarray, parts: Parts, where: str, target: str) -> None:
    trained = set(labels[parts["train"]].tolist())
    for number, name in enumerate(names):
        if number not in trained:
            n = int((labels == number).sum())
            raise UserError(f"{where}: the class {name!r} of {target} ({n} row{'s' * (n != 1)}) has no training row.")
