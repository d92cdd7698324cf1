"""Nets of torchvision with a new head: published sizes, the same features, what is frozen, foreign weights."""

from __future__ import annotations

import pytest
import torch
from torchvision import models
from torchvision.transforms import v2

from dl_lab.models.pretrained import Pretrained

SIZES = [
    ("resnet18", 10, 11_181_642, 5_130),
    ("resnet50", 11, 23_530_571, 22_539),
    ("efficientnet_b0", 11, 4_021_639, 14_091),
    ("mobilenet_v3_large", 11, 4_216_123, 14_091),
]


@pytest.mark.parametrize(("architecture", "n_classes", "total", "trained"), SIZES)
def test_published_sizes(architecture, n_classes, total, trained):
    with torch.device("meta"):
        frozen, free = (Pretrained(architecture, n_classes, trainable=t) for t in ("head", "all"))
    assert sum(p.numel() for p in frozen.parameters()) == total
    assert sum(p.numel() for p in frozen.parameters() if p.requires_grad) == trained
    assert all(p.requires_grad for p in free.parameters())


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_large"])
def test_with_torchvisions_weights_and_head_it_is_torchvisions_net(architecture):
    torch.manual_seed(0)
    official = models.get_model(architecture, weights=None).eval()
    mine = Pretrained(architecture, 1000).eval()
    mine.load_backbone(official.state_dict())
    last = official.fc if hasattr(official, "fc") else official.classifier[-1]
    mine.head[-1].load_state_dict(last.state_dict())
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(mine(x), official(x))
        torch.testing.assert_close(mine(x), mine.head(mine.features(x)))
    again = Pretrained(architecture, 5).eval()
    again.load_backbone(mine.state_dict())  # of a run of our own, whatever its classes were
    with torch.no_grad():
        torch.testing.assert_close(again.features(x), mine.features(x))


def test_resize_and_crop_are_the_preset():
    x = torch.rand(2, 3, 40, 32)
    model = Pretrained("resnet18", 3, resize=48, crop=40)
    wanted = v2.functional.center_crop(v2.functional.resize(x, [48], antialias=True), [40, 40])
    torch.testing.assert_close(model._resize_and_crop(x), wanted)
    assert torch.equal(Pretrained("resnet18", 3)._resize_and_crop(x), x)
    with pytest.raises(ValueError, match="crop 50 is larger than the resized image, 48"):
        Pretrained("resnet18", 3, resize=48, crop=50)


def moved_by_an_update(model: Pretrained) -> set[str]:
    """Return what one update of a new model changes, by the first part of the names."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.rand(4, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    return {
        "statistics" if "running" in name else name.partition(".")[0]
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not torch.equal(value, before[name])
    }


@pytest.mark.parametrize(
    ("trainable", "batch_norm", "moved"),
    [
        ("head", "eval", {"head"}),
        ("head", "train", {"head", "statistics"}),
        ("all", "train", {"head", "net", "statistics"}),
        ("all", "eval", {"head", "net"}),
    ],
)
def test_what_an_update_moves(trainable, batch_norm, moved):
    torch.manual_seed(0)
    model = Pretrained("resnet18", 3, trainable=trainable, batch_norm=batch_norm)
    assert moved_by_an_update(model) == moved
    assert model.has_fixed_features == ((trainable, batch_norm) == ("head", "eval"))


def test_fixed_features_are_the_same_in_training_mode():
    model = Pretrained("efficientnet_b0", 3, trainable="head", batch_norm="eval")  # has dropout and stochastic depth
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.train().features(x), model.eval().features(x))


def test_weights_of_another_net_are_refused():
    state = models.resnet18(weights=None).state_dict()
    model = Pretrained("resnet18", 3)
    with pytest.raises(ValueError, match=r"not weights of resnet18: they lack conv1.weight and \d+ more"):
        model.load_backbone(models.mobilenet_v3_large(weights=None).state_dict())
    with pytest.raises(ValueError, match=r"they also have layer9.weight"):
        model.load_backbone({"layer9.weight": torch.zeros(3), **state})
    with pytest.raises(ValueError, match=r"they have another shape of conv1.weight"):
        model.load_backbone({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)})
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    model.load_backbone(old)  # as files before torch 0.4.1
