"""A net with a body, which is kept, and a head, which fine-tuning begins anew."""

from torch import Tensor, nn


class Net(nn.Module):
    """Images (batch, 3, height, width) -> (batch, n_classes) logits."""

    def __init__(self, n_classes: int, width: int = 16):
        super().__init__()
        first = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        self.body = nn.Sequential(*first, *second)
        self.head = nn.Linear(16 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
