"""A stream of random walks of different lengths, and a recurrent net that says where each walk is going."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from dl_lab.datasets.dataset import Dataset


class Walks(torch.utils.data.IterableDataset):
    """Walks (length, 1) with a drift, and 1 where the drift is upwards; endless without `n`."""

    def __init__(self, seed: int, n: int | None = None):
        self.seed = seed
        self.n = n
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        count = 0
        while self.n is None or count < self.n:
            label = int(torch.randint(2, (), generator=generator))
            length = int(torch.randint(5, 20, (), generator=generator))
            steps = torch.randn(length, 1, generator=generator) + 0.5 * (2 * label - 1)
            yield steps.cumsum(dim=0), label
            count += 1


def collate(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    walks, labels = zip(*items, strict=True)
    lengths = torch.tensor([len(walk) for walk in walks])
    return {"walks": pad_sequence(walks, batch_first=True), "lengths": lengths, "y": torch.tensor(labels)}


def walks(n_batches: int, n_held_out: int, n_classes: int) -> Dataset:
    splits = [Walks(0), Walks(1, n_held_out), Walks(2, n_held_out)]
    return Dataset.from_loaders(*splits, "walks", f"{n_held_out}", collate=collate, n_batches_per_epoch=n_batches)


class Net(nn.Module):
    def __init__(self, n_classes: int, width: int):
        super().__init__()
        self.gru = nn.GRU(1, width, batch_first=True)
        self.head = nn.Linear(width, n_classes)

    def forward(self, walks: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(walks, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(self.gru(packed)[1][0])
