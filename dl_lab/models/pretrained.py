"""Nets of torchvision with a new last layer: a backbone that others trained, and a head for our classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

Architecture = Literal["resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_large"]


class Pretrained(nn.Module):
    """(batch, 3, height, width) -> (batch, n_classes) logits: `head(features(x))`.

    The last linear layer of the torchvision net (ResNet: fc; others: the last of `classifier`, with the dropout before
    it) is replaced by a new one, `head`; the rest is `net`, under torchvision's own names, with random weights:
    `load_backbone` (which the procedure `transfer` calls) puts trained ones in.

    trainable: "head" freezes net's weights, "all" trains everything. batch_norm: "eval" normalises by the stored
    statistics in training, too, and a frozen net then is wholly in evaluation mode (no dropout or stochastic depth),
    so that the same image always has the same features; "train" by those of the batch, while the stored ones move, as
    happens to a net whose weights alone are frozen. resize: the shorter side of the images, enlarged or reduced to that
    (bilinear, antialiased); crop: then the middle; None: neither. The preset of torchvision's weights is 256 and 224.
    With 10 classes ResNet-18 has 11,181,642 parameters, 5,130 of them in the head; with 11, ResNet-50 has 23,530,571,
    EfficientNet-B0 4,021,639 and MobileNetV3-Large 4,216,123.
    Raises ValueError for a crop that is larger than the resized image.
    """

    def __init__(
        self,
        architecture: Architecture,
        n_classes: int,
        trainable: Literal["head", "all"] = "all",
        batch_norm: Literal["eval", "train"] = "eval",
        resize: int | None = None,
        crop: int | None = None,
    ) -> None:
        from torchvision import models

        super().__init__()
        if resize is not None and crop is not None and crop > resize:
            raise ValueError(f"crop {crop} is larger than the resized image, {resize}")
        self.architecture, self.batch_norm, self.resize, self.crop = architecture, batch_norm, resize, crop
        net, last = _without_head(models.get_model(architecture, weights=None))
        self.net = net
        dropout = [part for part in last[:-1] if isinstance(part, nn.Dropout)]
        self.head = nn.Sequential(*dropout, nn.Linear(last[-1].in_features, n_classes))
        self.frozen = trainable == "head"
        if self.frozen:
            self.net.requires_grad_(False)
        self.train()  # a module is in training mode from the start, and nobody calls train() then

    @property
    def has_fixed_features(self) -> bool:
        """Whether an image has the same features in every epoch."""
        return self.frozen and self.batch_norm == "eval"

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, n_features), what the head takes."""
        return self.net(self._sized(x))

    def train(self, mode: bool = True) -> Pretrained:
        super().train(mode)
        if self.has_fixed_features:
            self.net.eval()
        elif self.batch_norm == "eval":
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def load_backbone(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a net of this architecture: torchvision's own state dict (its last layer is left out), or
        that of a Pretrained. Raises ValueError naming what is missing, left over or of another shape.
        """
        if any(name.startswith("net.") for name in weights):
            weights = {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
        own = self.net.state_dict()
        counters = [name for name in own if name.endswith("num_batches_tracked")]  # files of 2018 have none
        last = _last_layer(weights)
        given = {name: value for name, value in weights.items() if name.rpartition(".")[0] != last or name in own}
        missing = [name for name in own if name not in given and name not in counters]
        extra = [name for name in given if name not in own]
        wrong = [n for n, v in given.items() if n in own and v.shape != own[n].shape]
        for problem, names in (("lack", missing), ("have besides", extra), ("have another shape of", wrong)):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise ValueError(f"these are no weights of {self.architecture}: they {problem} {names[0]}{more}")
        self.net.load_state_dict(given, strict=False)

    def _sized(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.resize is not None and min(height, width) != self.resize:
            size = [self.resize * side // min(height, width) for side in (height, width)]
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        if self.crop is not None:
            top, left = (round((side - self.crop) / 2) for side in x.shape[-2:])
            x = x[..., top : top + self.crop, left : left + self.crop]
        return x


def _without_head(net: Any) -> tuple[nn.Module, Sequence[Any]]:
    """The net whose last linear layer (and dropout before it) is gone, and what was taken off, that layer last."""
    if hasattr(net, "fc"):
        last, net.fc = [net.fc], nn.Identity()
        return net, last
    parts = list(net.classifier)
    first = len(parts) - 2 if isinstance(parts[-2], nn.Dropout) else len(parts) - 1
    net.classifier = nn.Sequential(*parts[:first])  # the names of what stays stay
    return net, parts[first:]


def _last_layer(weights: Mapping[str, Tensor]) -> str:
    """The name of the last linear layer in a state dict: the last that has a two-dimensional weight."""
    linear = [name.rpartition(".")[0] for name, value in weights.items() if value.dim() == 2]
    return linear[-1] if linear else ""
