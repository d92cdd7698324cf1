"""SimCLR (Chen et al. 2020): two random views of an item shall be neighbours."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from dl_lab.datasets.dataset import Dataset
from dl_lab.types import Ratio

VIEW = v2.Compose([v2.RandomAffine(20, (0.15, 0.15), (0.8, 1.2)), v2.GaussianNoise(sigma=0.1)])


class Views(torch.utils.data.Dataset):
    """Items: two views (2, 1, 8, 8) of an image, and its label."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return torch.stack([VIEW(self.images[i]), VIEW(self.images[i])]), self.labels[i]


def digit_views(n_train: int, n_val: int, workers: int, n_classes: int, input_shape: list[int]) -> Dataset:
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    parts = [slice(n_train), slice(n_train, n_train + n_val), slice(n_train + n_val, None)]
    splits = [Views(images[part], labels[part]) for part in parts]
    return Dataset.from_loaders(*splits, "digit_views", f"{n_train} {n_val}", workers=workers)


class SimClr:
    def __init__(self, temperature: float):
        self.temperature = temperature

    def loss(self, model: nn.Module, batch):
        n = len(batch.x)
        z = F.normalize(model(batch.x.transpose(0, 1).flatten(0, 1)), dim=1)  # all first views, then all second ones
        similar = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(2 * n, device=z.device).roll(n)
        loss = F.cross_entropy(similar, partner)
        return loss, {"loss": Ratio(loss.detach() * n, n)}

    @torch.no_grad()
    def measure(self, model: nn.Module, batch):
        z = F.normalize(model(batch.x[:, 0]), dim=1)
        nearest = (z @ z.T).fill_diagonal_(-torch.inf).argmax(dim=1)
        same = batch.y[nearest] == batch.y
        return {**self.loss(model, batch)[1], "neighbour": Ratio(same.sum(), len(same))}
