"""The image models: the published parameter counts, the same function as torchvision's nets, bad shapes refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from dl_lab import configs as config
from dl_lab.jobs import inspect
from dl_lab.models.cnn import CNN
from dl_lab.models.initialisation import he, xavier
from dl_lab.models.resnet import BasicBlock, ResNet, resnet18
from dl_lab.models.resnet9 import ResNet9
from dl_lab.models.resnext import ResNeXtBlock, resnext
from dl_lab.models.vgg import VGG

IMAGE = (3, 64, 64)
DEPTHS = [2, 2, 2, 2]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (partial(VGG, batch_norm=False), 35_182_403),
        (partial(VGG, batch_norm=True), 35_190_851),
        (partial(VGG, batch_norm=False, pooled=7), 129_554_243),
        (partial(VGG, batch_norm=False, configuration="D"), 39_900_995),
        (partial(resnet18, stem="3x3"), 11_170_371),
        (partial(resnet18, stem="7x7"), 11_178_051),
        (partial(resnext, depths=DEPTHS), 6_393_411),
        (partial(resnext, depths=DEPTHS, cardinality=8), 2_138_691),
    ],
)
def test_published_parameter_count(build, published):
    with torch.device("meta"):
        model = build(IMAGE, 3)
        assert count(model) == published
        assert model(torch.zeros(2, *IMAGE)).shape == (2, 3)


@pytest.mark.parametrize(
    ("filters", "kernels", "pools", "published"),
    [
        ([32], [3], [2], 82_826),
        ([32, 16], [3, 2], [2, 2], 13_210),
        ([64, 32, 16], [3, 3, 2], [2, 2, 2], 24_890),
        ([16, 32, 64, 128], [3] * 4, [2] * 4, 102_570),
        ([32, 64, 32], [3] * 3, [2] * 3, 42_986),
        ([32, 16], [3, 2], [5, 3], 3_610),
        ([32, 64, 32], [3, 2, 3], [1, 2, 2], 48_106),
        ([64, 64, 32], [3] * 3, [2] * 3, 62_314),
        ([32, 64, 128, 256], [3] * 4, [2] * 4, 398_666),
    ],
)
def test_coursework_cnns_have_the_published_counts(filters, kernels, pools, published):
    model = CNN((3, 32, 32), 10, filters, kernels, pools)
    assert count(model) == published
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (partial(VGG, configuration="D", pooled=7, batch_norm=True, hidden=4096), torchvision.models.vgg16_bn),
        (partial(resnet18, stem="7x7"), torchvision.models.resnet18),
        (
            partial(resnext, depths=[1, 1, 1, 1], cardinality=32, base_width=4, expansion=4),
            partial(
                torchvision.models.ResNet,
                torchvision.models.resnet.Bottleneck,
                [1, 1, 1, 1],
                groups=32,
                width_per_group=4,
            ),
        ),
    ],
    ids=["vgg", "resnet18", "resnext"],
)
def test_the_same_function_as_torchvisions(ours, theirs):
    """Our net with torchvision's weights, in their order, gives the same logits."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    peer = theirs(num_classes=5).eval()
    model = ours((3, 64, 64), 5).eval()
    weights = [w for name, w in peer.state_dict().items() if "downsample" not in name]
    projections = [w for name, w in peer.state_dict().items() if "downsample" in name]
    own = model.state_dict()
    main = [name for name in own if "shortcut" not in name]
    model.load_state_dict(
        {
            **dict(zip(main, weights, strict=True)),
            **dict(zip([name for name in own if "shortcut" in name], projections, strict=True)),
        }
    )
    with torch.no_grad():
        torch.testing.assert_close(model(images), peer(images))


def test_vgg_c_has_three_1x1_convolutions_and_deep_has_17():
    convolutions = [m for m in VGG(IMAGE, 3, "C", hidden=8).features if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions if m.kernel_size == (1, 1)] == [256, 512, 512]
    assert len(convolutions) == 13
    features = VGG(IMAGE, 3, "deep", batch_norm=False, hidden=8).features
    places = [i for i, m in enumerate(features) if isinstance(m, nn.Conv2d)]
    assert len(places) == 17
    assert [places[i - 1] for i in (2, 7, 12, 17)] == [2, 14, 26, 37]


def test_a_grouped_convolution_is_a_sum_over_paths():
    """Figure 3 of the paper: the grouped block equals one whose paths are written out."""
    torch.manual_seed(0)
    block = ResNeXtBlock(64, 64, 1, cardinality=4, base_width=4, expansion=1).eval()
    x = torch.randn(2, 64, 8, 8)
    grouped = block.conv2(x[:, :16])
    each = [
        nn.functional.conv2d(part, weight, padding=1)
        for part, weight in zip(x[:, :16].chunk(4, dim=1), block.conv2.weight.chunk(4), strict=True)
    ]
    torch.testing.assert_close(grouped, torch.cat(each, dim=1))
    up = block.conv3.weight
    paths = [nn.functional.conv2d(part, up[:, 4 * i : 4 * i + 4]) for i, part in enumerate(grouped.chunk(4, dim=1))]
    torch.testing.assert_close(block.conv3(grouped), sum(paths), rtol=1e-4, atol=1e-5)


def test_resnet9_has_nine_layers_and_scales_its_logits():
    torch.manual_seed(0)
    model = ResNet9((3, 32, 32), 10).eval()
    assert count(model) == 6_573_120
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 9
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), 0.125 * nn.Sequential(*list(model)[:-1])(x))


def test_a_basic_block_whose_branch_is_zero_is_the_identity():
    block = BasicBlock(8, 8, 1).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 8, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_kernel_of_two_sees_below_and_to_the_right_like_padding_same():
    model = CNN((1, 5, 5), 2, [3], [2], [1])
    x = torch.rand(2, 1, 5, 5)
    convolution = model[0][1]
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    expected = nn.functional.conv2d(padded, convolution.weight, convolution.bias)
    torch.testing.assert_close(model[0](x), expected)


@pytest.mark.parametrize("activation", ["relu", "elu", "leaky_relu", "tanh"])
def test_pooling_before_the_activation_is_pooling_after_it(activation):
    torch.manual_seed(0)
    model = CNN((3, 8, 8), 4, [6], [3], [2], activation)
    x = torch.randn(2, 3, 8, 8)
    convolution, pool, act = model[0], model[1], model[2]
    torch.testing.assert_close(act(pool(convolution(x))), pool(act(convolution(x))), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VGG((3, 28, 28), 3, "C"), "each side must be at least 32"),
        (lambda: CNN((3, 32, 32), 10, [8, 8], [3], [2, 2]), "not of one length"),
        (lambda: CNN((3, 8, 8), 10, [8, 8], [3, 3], [4, 4]), "too small for the poolings"),
        (lambda: ResNet((3, 32, 32), 10, BasicBlock, [2, 2]), "depths .* must have 4 entries"),
    ],
)
def test_what_cannot_work_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("initialise", "variance"), [(he, 2 / 576), (xavier, 2 / (576 + 1152))])
def test_initial_weights_have_the_papers_variance(initialise, variance):
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    layer.apply(initialise)
    assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.03)
    assert not layer.bias.any()


def test_he_keeps_the_signal_through_relus_and_pytorchs_own_does_not():
    torch.manual_seed(0)
    x = torch.rand(8, 3, 64, 64) - 0.5
    shrunk = {}
    for name, initialise in (("he", he), ("own", None)):
        features = VGG(IMAGE, 3, "D", batch_norm=False, hidden=8, initialise=initialise).features
        with torch.no_grad():
            first, last = features[:2](x), features(x)
        shrunk[name] = float(last.std(dim=0).mean() / first.std(dim=0).mean())  # between images: biases do not count
    assert shrunk["he"] > 0.1 > 100 * shrunk["own"]


@pytest.mark.parametrize("name", ["vgg16c", "resnet18", "resnext", "cnn"])
@pytest.mark.parametrize("initialise", ["he", "xavier", "pytorch"])
def test_each_yaml_builds_with_each_initialisation(name, initialise):
    words = ["dataset=cifar10", f"model={name}", f"model/initialise={initialise}"]
    composed = config.Composer().compose(words).config
    config.check(composed)
    assert inspect.count_parameters(composed) is not None
