"""Items of different lengths in one tensor, end to end: a column of a split that comes out padded, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class RaggedColumn:
    """Item i is values[starts[i] : starts[i] + lengths[i]]; values (rows, features), starts and lengths (n,) int64.

    Chosen items come as (chosen, length, features), zeros behind each: `pad_to` long (longer items are cut), or where
    that is None as long as the longest of them. It has the methods of a tensor that a TensorSplit's column needs.
    """

    values: Tensor
    starts: Tensor
    lengths: Tensor
    pad_to: int | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def index_select(self, dim: int, chosen: Tensor) -> Tensor:
        if dim != 0:
            raise ValueError(f"items lie along axis 0, not {dim}")
        lengths = self.lengths[chosen]
        positions = torch.arange(self.pad_to or int(lengths.max()), device=chosen.device)
        inside = positions < lengths[:, None]  # (chosen, length)
        rows = torch.where(inside, self.starts[chosen][:, None] + positions, 0)
        gathered = self.values.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return gathered.masked_fill_(~inside[..., None], 0)

    def to(self, device: torch.device, non_blocking: bool = False) -> RaggedColumn:
        moved = [t.to(device, non_blocking=non_blocking) for t in (self.values, self.starts, self.lengths)]
        return replace(self, values=moved[0], starts=moved[1], lengths=moved[2])

    def select(self, chosen: Tensor) -> RaggedColumn:
        """The same values with some of the items only; nothing is copied."""
        return replace(self, starts=self.starts[chosen], lengths=self.lengths[chosen])

    def numel(self) -> int:
        return self.values.numel()

    def element_size(self) -> int:
        return self.values.element_size()
