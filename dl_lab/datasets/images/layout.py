"""The layout of a folder of images: settings of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Splits:
    """Where the images of train, val and test come from.

    Args:
        train: A share of the images, or a name: of a folder, or of a value in the column `split` of a table.
        val: The same. Beside names, val may be a share of the training images.
        test: The same as for train.
        seed: The seed of every draw: of the splits, and of the images that are kept of a class.

    Raises:
        ValueError: The shares do not add up to 1, or shares and names are mixed.
    """

    train: float | str
    val: float | str
    test: float | str
    seed: int

    def __post_init__(self) -> None:
        given = {"train": self.train, "val": self.val, "test": self.test}
        shares = self.shares
        if len(shares) == 3 and (min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9):
            raise ValueError(f"splits {given} are not positive shares that add up to 1")
        if len(shares) not in (0, 3) and (set(shares) != {"val"} or not 0 < shares["val"] < 1):
            raise ValueError(f"splits {given} mixes shares and names: only val may be a share beside names")

    @property
    def shares(self) -> dict[str, float]:
        """The splits that are shares."""
        return {split: float(value) for split, value in self._items() if not isinstance(value, str)}

    @property
    def names(self) -> dict[str, str]:
        """The splits that are names."""
        return {split: value for split, value in self._items() if isinstance(value, str)}

    def _items(self) -> list[tuple[str, float | str]]:
        return [("train", self.train), ("val", self.val), ("test", self.test)]


@dataclass(frozen=True)
class HeldOut:
    """How many images of a release are drawn for validation and test.

    Args:
        n_val: Validation images.
        n_test: Test images. None: the release has a test split of its own.
        seed: The seed of the draw.
    """

    n_val: int
    n_test: int | None
    seed: int


@dataclass(frozen=True)
class Layout:
    """How the images of a folder are laid out.

    Args:
        table: A CSV file with the columns path and label, relative to the folder. None: class folders.
        class_names: The classes and their order. Empty: all, sorted.
        stratified: Whether shares are drawn from each class, or from all images together.
        n_per_class: The most images to keep of each class in each split's folder. None keeps all.
        n_official: The number of images of the official release. None: unknown.

    Raises:
        ValueError: `n_per_class` is less than 1.
    """

    table: str | None
    class_names: Sequence[str]
    stratified: bool
    n_per_class: int | None
    n_official: int | None

    def __post_init__(self) -> None:
        if self.n_per_class is not None and self.n_per_class < 1:
            raise ValueError(f"layout.n_per_class {self.n_per_class} is not at least 1")
