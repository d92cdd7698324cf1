"""A small encoder with the interface of Hugging Face's models, and texts in batches that are mappings."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dl_lab.datasets.dataset import Dataset


class Config:
    def __init__(self, **kwargs):
        settings = {"vocab_size": 100, "hidden_size": 32, "num_labels": 2, "num_hidden_layers": 1, **kwargs}
        for name, value in settings.items():
            setattr(self, name, value)


@dataclass
class Output:
    logits: Tensor


class Classifier(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        layer = nn.TransformerEncoderLayer(config.hidden_size, 4, 2 * config.hidden_size, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:
        hidden = self.encoder(self.embeddings(input_ids), src_key_padding_mask=attention_mask == 0)
        return Output(logits=self.classifier(hidden[:, 0]))


class Texts(torch.utils.data.Dataset):
    """Random tokens; the label says whether token 7 occurs."""

    def __init__(self, n: int, length: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(1, 20, (n, length), generator=generator)
        lengths = torch.randint(length // 2, length, (n, 1), generator=generator)
        self.mask = (torch.arange(length) < lengths).long()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids = self.ids[i] * self.mask[i]
        return {"input_ids": ids, "attention_mask": self.mask[i], "labels": (ids == 7).any().long()}


def texts(n: int, length: int, n_classes: int) -> Dataset:
    splits = [Texts(m, length, seed) for seed, m in enumerate([n, n // 4, n // 4])]
    return Dataset.from_loaders(*splits, "texts", f"{n} {length}", class_names=("without", "with"))
