"""Nets of torchvision with a new last layer: a backbone trained elsewhere, and a head for our classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Architecture = Literal["resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_large"]


class Pretrained(nn.Module):
    """A net of torchvision with a new head: (batch, 3, height, width) -> (batch, n_classes) logits.

    `head` replaces the last linear layer of the net (ResNet: `fc`; the others: the last of `classifier`, with the
    dropout before it). `net` is the rest, under torchvision's own names. Its weights are random at first; the procedure
    `transfer` calls `load_backbone` to load trained weights.

    With 10 classes ResNet-18 has 11,181,642 parameters, 5,130 of them in the head. With 11 classes ResNet-50 has
    23,530,571, EfficientNet-B0 4,021,639 and MobileNetV3-Large 4,216,123.

    Args:
        architecture: Name of the net in torchvision.
        n_classes: Number of logits.
        trainable: "head" freezes the weights of `net`, "all" trains everything.
        batch_norm: "eval" normalises by the stored statistics in training too. A frozen net is then wholly in
            evaluation mode (no dropout, no stochastic depth), so that an image always has the same features. "train"
            normalises by the statistics of the batch and updates the stored ones, as happens if only the weights are
            frozen.
        resize: Length to which the shorter side of an image is resized, in pixels (bilinear, antialiased); None leaves
            the size as it is. The preset of torchvision's weights is 256.
        crop: Side of the square cut from the middle after the resizing, in pixels; None cuts nothing. The preset of
            torchvision's weights is 224.

    Raises:
        ValueError: `crop` is larger than `resize`.
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
        self.architecture = architecture
        self.batch_norm = batch_norm
        self.resize = resize
        self.crop = crop
        self.net = models.get_model(architecture, weights=None)
        *dropout, last = _take_off_head(self.net)
        assert isinstance(last, nn.Linear)
        self.head = nn.Sequential(*dropout, nn.Linear(last.in_features, n_classes))
        self.frozen = trainable == "head"
        if self.frozen:
            self.net.requires_grad_(False)
        self.train()  # a new module is in training mode although nobody called train()

    @property
    def has_fixed_features(self) -> bool:
        """Whether an image has the same features in every epoch."""
        return self.frozen and self.batch_norm == "eval"

    def forward(self, x: Tensor) -> Tensor:
        """Map images x (batch, 3, height, width) to logits (batch, n_classes)."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Map images x (batch, 3, height, width) to the input of the head, (batch, n_features)."""
        return self.net(self._resize_and_crop(x))

    def train(self, mode: bool = True) -> Pretrained:
        """Switch to training or evaluation mode, except for what `batch_norm` keeps in evaluation mode."""
        super().train(mode)
        if self.has_fixed_features:
            self.net.eval()
        elif self.batch_norm == "eval":
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def load_backbone(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a net of this architecture.

        Args:
            weights: torchvision's own state dict, whose last layer is left out, or the state dict of a `Pretrained`.

        Raises:
            ValueError: An entry is missing, left over or of another shape.
        """
        if any(name.startswith("net.") for name in weights):
            weights = {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
        own = self.net.state_dict()
        counters = [name for name in own if name.endswith("num_batches_tracked")]  # files of 2018 have none
        last = _find_last_layer(weights)
        given = {name: value for name, value in weights.items() if name.rpartition(".")[0] != last or name in own}
        missing = [name for name in own if name not in given and name not in counters]
        extra = [name for name in given if name not in own]
        wrong = [name for name, value in given.items() if name in own and value.shape != own[name].shape]
        for problem, names in (("lack", missing), ("also have", extra), ("have another shape of", wrong)):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise ValueError(f"these are not weights of {self.architecture}: they {problem} {names[0]}{more}")
        self.net.load_state_dict(given, strict=False)

    def _resize_and_crop(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.resize is not None and min(height, width) != self.resize:
            size = [self.resize * side // min(height, width) for side in (height, width)]
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        if self.crop is not None:
            top, left = (round((side - self.crop) / 2) for side in x.shape[-2:])
            x = x[..., top : top + self.crop, left : left + self.crop]
        return x


def _take_off_head(net: nn.Module) -> Sequence[nn.Module]:
    """Take the last linear layer off a net, and the dropout before it.

    Returns:
        The layers taken off; the last one is the linear layer.
    """
    if hasattr(net, "fc"):
        last = net.get_submodule("fc")
        net.fc = nn.Identity()
        return [last]
    parts = list(net.get_submodule("classifier").children())
    first = len(parts) - 2 if isinstance(parts[-2], nn.Dropout) else len(parts) - 1
    net.classifier = nn.Sequential(*parts[:first])  # the other layers keep their names
    return parts[first:]


def _find_last_layer(weights: Mapping[str, Tensor]) -> str:
    """Return the name of the last linear layer in a state dict: the last that has a two-dimensional weight."""
    linear = [name.rpartition(".")[0] for name, value in weights.items() if value.dim() == 2]
    return linear[-1] if linear else ""
