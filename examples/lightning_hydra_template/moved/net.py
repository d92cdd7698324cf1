"""The net: the file of the old project, with named settings in place of a tree of them."""

from torch import Tensor, nn


class SimpleDenseNet(nn.Module):
    """Images (batch, 1, height, width) -> (batch, output_size) logits."""

    def __init__(self, input_size: int, widths: list[int], output_size: int):
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip([input_size, *widths], widths, strict=False):
            layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Linear(widths[-1], output_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.flatten(1))
