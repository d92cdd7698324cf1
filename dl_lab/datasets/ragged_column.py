"""Items of different lengths in one tensor, end to end: a column of a split that pads them batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class RaggedColumn:
    """Items end to end: item i is values[starts[i] : starts[i] + lengths[i]].

    It has the methods of a tensor that a `TensorSplit` needs of a column.

    Args:
        values: (rows, features).
        starts: (n,) int64, the first row of each item.
        lengths: (n,) int64, the rows of each item.
        pad_to: The length of all chosen items. Shorter items are padded with zeros, longer ones are cut. None: the
            length of the longest chosen item.
    """

    values: Tensor
    starts: Tensor
    lengths: Tensor
    pad_to: int | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def device(self) -> torch.device:
        """The device of the values."""
        return self.values.device

    def index_select(self, dim: int, chosen: Tensor) -> Tensor:
        """Return the chosen items (chosen, length, features), with zeros behind each.

        Raises:
            ValueError: `dim` is not 0.
        """
        if dim != 0:
            raise ValueError(f"the items are along axis 0, not {dim}")
        lengths = self.lengths[chosen]
        positions = torch.arange(self.pad_to or int(lengths.max()), device=chosen.device)
        inside = positions < lengths[:, None]  # (chosen, length)
        rows = torch.where(inside, self.starts[chosen][:, None] + positions, 0)
        gathered = self.values.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return gathered.masked_fill_(~inside[..., None], 0)

    def to(self, device: torch.device, non_blocking: bool = False) -> RaggedColumn:
        """Return the same items on a device."""
        return replace(
            self,
            values=self.values.to(device, non_blocking=non_blocking),
            starts=self.starts.to(device, non_blocking=non_blocking),
            lengths=self.lengths.to(device, non_blocking=non_blocking),
        )

    def select(self, chosen: Tensor) -> RaggedColumn:
        """Return a column of the chosen items; the values are not copied."""
        return replace(self, starts=self.starts[chosen], lengths=self.lengths[chosen])

    def numel(self) -> int:
        """Return how many numbers the values are."""
        return self.values.numel()

    def element_size(self) -> int:
        """Return the bytes of one number."""
        return self.values.element_size()
