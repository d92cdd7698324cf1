"""Augmentation: each step against torchvision or by its definition; a function of (seed, epoch, index) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from torchvision.transforms import v2

from dl_lab.datasets.batches import Loading, uniform
from dl_lab.datasets.images.augmentation import (
    Augmentation,
    ColorJitter,
    Cutout,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    Torchvision,
)
from dl_lab.datasets.images.labelled import labelled_images

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
STEPS = {
    "crop": RandomCrop(2),
    "flip": RandomHorizontalFlip(),
    "rotation": RandomRotation(15),
    "colour": ColorJitter(0.2, 0.2, 0.2, 0.1),
    "resized": RandomResizedCrop((0.5, 1)),
    "cutout": Cutout(4),
    "torchvision": Torchvision(v2.Compose([v2.RandomHorizontalFlip(), v2.GaussianBlur(3)])),
}


def dataset(augment, n=30, **options):
    rng = np.random.default_rng(1)
    pair = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), np.arange(n) % 3
    arrays = dict.fromkeys(("train", "val", "test"), pair)
    shape = {"input_shape": [3, 8, 8], "n_classes": 3, "divisor": 255}
    return labelled_images("x", arrays, "generated", **shape, augment=augment, **options)


def by_item(split, batch_size, seed=1, epoch=2, start=0):
    """Each image of an epoch, found by its place in the data set (the order is another function's business)."""
    order = split.order(len(split), seed, epoch).tolist()[start * batch_size :]
    batches = [batch.x for batch in split.epoch(batch_size, seed, epoch, start)]
    return dict(zip(order, torch.cat(batches), strict=True))


# -- when and with what --------------------------------------------------------------------------------------------


def test_augmentation_does_not_depend_on_batch_size_residence_or_start():
    whole = by_item(dataset(STEPS).train, 30)
    others = [
        by_item(dataset(STEPS).train, 7),
        by_item(dataset(STEPS, loading=Loading("stream", 0)).train, 7),
        by_item(dataset(STEPS, loading=Loading("stream", 2)).train, 7),
        by_item(dataset(STEPS).train, 7, start=2),
    ]
    for other in others:
        for item, image in other.items():
            torch.testing.assert_close(image, whole[item], rtol=1e-5, atol=1e-6)
    assert len(others[-1]) == 16


def test_resident_and_streamed_are_equal_to_the_bit():
    for one, two in zip(
        dataset(STEPS).train.epoch(8, 3, 4),
        dataset(STEPS, loading=Loading("stream", 2)).train.epoch(8, 3, 4),
        strict=True,
    ):
        assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y)


def test_another_epoch_or_seed_is_another_augmentation():
    split = dataset(STEPS).train
    first = by_item(split, 30)
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        other = by_item(split, 30, seed, epoch)
        assert all(not torch.equal(first[item], other[item]) for item in first)


def test_only_training_epochs_are_augmented():
    plain, augmented = dataset({}), dataset(STEPS)
    for split in ("train", "val", "test"):
        one, two = (next(getattr(data, split).batches(30)).x for data in (plain, augmented))
        assert torch.equal(one, two)
    val = [next(data.val.epoch(30, 1, 2)).x for data in (plain, augmented)]
    assert torch.equal(*val)


def test_the_runs_own_random_stream_is_not_touched():
    state = torch.get_rng_state()
    by_item(dataset(STEPS).train, 8)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_not_those_of_the_order():
    """One stream for both would tie an image's place in the epoch to what happens to it."""
    assert not torch.equal(uniform(50, 1, 1, 2)[:, 0].argsort(), torch.randperm(50))
    places = by_item(dataset({}).train, 30)
    correlation = np.corrcoef(list(places), uniform(30, 1, 1, 2)[list(places), 0])[0, 1]
    assert abs(correlation) < 0.5


def test_null_removes_a_step_and_an_impossible_step_is_refused_at_the_start():
    assert Augmentation({"flip": RandomHorizontalFlip(), "crop": None}).n_draws == 1
    with pytest.raises(ValueError, match="3 channels, not 1"):
        labelled_images(
            "x",
            dict.fromkeys(("train", "val", "test"), (np.zeros((2, 1, 8, 8), np.uint8), np.arange(2))),
            "generated",
            input_shape=[1, 8, 8],
            n_classes=2,
            divisor=255,
            augment={"colour": ColorJitter(hue=0.1)},
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomCrop(-1), "negative"),
        (lambda: RandomHorizontalFlip(2), "between 0 and 1"),
        (lambda: RandomResizedCrop((0, 1)), "share of the area"),
        (lambda: RandomResizedCrop((0.5, 1), (2, 1)), "width / height"),
        (lambda: ColorJitter(hue=0.6), "at most 0.5"),
        (lambda: Cutout(0), "at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# -- each step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "fill"), [("constant", 0.25), ("reflect", 0)])
def test_crop_is_a_window_of_the_padded_image(mode, fill):
    draws = uniform(6, 2, 0, 0)
    cropped = RandomCrop(3, mode, fill)(IMAGES, draws)
    for image, (u, v), out in zip(IMAGES, draws.tolist(), cropped, strict=True):
        padded = tv.pad(image, [3, 3, 3, 3], fill=fill, padding_mode=mode)
        assert torch.equal(out, tv.crop(padded, int(u * 7), int(v * 7), 12, 12))


def test_every_window_comes_equally_often():
    step = RandomCrop(1)
    ramp = torch.arange(9.0).view(1, 1, 3, 3).expand(9000, 1, 3, 3)
    centre = step(ramp, uniform(9000, 2, 0, 0))[:, 0, 1, 1].long()
    counts = torch.bincount(centre, minlength=9)
    assert (counts - 1000).abs().max() < 150


def test_images_flip_with_their_probability():
    draws = torch.tensor([[0.1], [0.9]])
    out = RandomHorizontalFlip(0.5)(IMAGES[:2], draws)
    assert torch.equal(out[0], tv.hflip(IMAGES[0])) and torch.equal(out[1], IMAGES[1])


@pytest.mark.parametrize("shape", [(12, 12), (10, 16)])
def test_rotation_equals_that_of_torchvision(shape):
    images = torch.rand(3, 3, *shape, generator=torch.Generator().manual_seed(1))
    draws = torch.tensor([[0.0], [0.5], [0.9]])
    out = RandomRotation(20)(images, draws)
    for image, turned, angle in zip(images, out, (-20, 0, 16), strict=True):
        expected = tv.rotate(image, -angle, interpolation=tv.InterpolationMode.BILINEAR)
        torch.testing.assert_close(turned, expected, rtol=0, atol=1e-4)


def test_colour_jitter_equals_that_of_torchvision():
    draws = uniform(6, 4, 0, 0)
    out = ColorJitter(0.4, 0.5, 0.6, 0.3)(IMAGES, draws)
    for image, (b, c, s, h), ours in zip(IMAGES, (2 * draws - 1).tolist(), out, strict=True):
        theirs = tv.adjust_saturation(
            tv.adjust_contrast(tv.adjust_brightness(image, 1 + 0.4 * b), 1 + 0.5 * c), 1 + 0.6 * s
        )
        torch.testing.assert_close(ours, tv.adjust_hue(theirs, 0.3 * h), rtol=1e-4, atol=1e-4)


def test_a_resized_crop_is_the_image_or_a_window_of_it():
    torch.testing.assert_close(RandomResizedCrop((1, 1), (1, 1))(IMAGES, uniform(6, 4, 0, 0)), IMAGES)
    ramp = torch.linspace(0, 1, 32).expand(500, 1, 32, 32)
    out = RandomResizedCrop((0.25, 0.25), (1, 1))(ramp, uniform(500, 4, 0, 0))
    spans = out[:, 0, 0, -1] - out[:, 0, 0, 0]
    torch.testing.assert_close(spans, torch.full_like(spans, 15.5 / 31), rtol=0.02, atol=0)
    assert float(out.min()) >= 0 and float(out[:, 0, 0, 0].max() - out[:, 0, 0, 0].min()) > 0.4


def test_cutout_hides_one_square_that_may_leave_the_image():
    draws = torch.tensor([[0.5, 0.5], [0.0, 0.99]])
    hidden = Cutout(4, fill=-1)(IMAGES[:2], draws) == -1
    assert hidden.all(dim=1).sum(dim=(1, 2)).tolist() == [16, 6]
    assert hidden[0, 0, 4:8, 4:8].all()
    assert hidden[1, 0, :2, 9:].all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_augments_as_the_processor_does():
    here, there = (dataset(STEPS).to(torch.device(name)).train.epoch(8, 1, 2) for name in ("cpu", "cuda"))
    for one, two in zip(here, there, strict=True):
        torch.testing.assert_close(one.x, two.x.cpu(), rtol=1e-4, atol=1e-4)


# -- torchvision's transforms --


def test_a_transform_of_torchvision_changes_each_image_under_its_own_seed():
    transform = v2.RandomErasing(p=1.0, value=0.5)
    draws = torch.tensor([[0.1], [0.7], [0.1]])
    images = IMAGES[[0, 1, 0]]
    state = torch.get_rng_state()
    changed = Torchvision(transform)(images, draws)
    assert torch.equal(torch.get_rng_state(), state), "the run's own stream is untouched"
    assert torch.equal(changed[0], changed[2]) and not torch.equal(changed[0], changed[1])
    torch.manual_seed(int(draws[1, 0].item() * 2**32))
    assert torch.equal(changed[1], transform(images[1]))


def test_a_transform_of_bytes_gets_bytes():
    seen = []

    def invert(image):
        seen.append(image.dtype)
        return 255 - image

    changed = Torchvision(invert, as_uint8=True)(IMAGES, torch.rand(len(IMAGES), 1))
    assert set(seen) == {torch.uint8}
    torch.testing.assert_close(changed, 1 - (IMAGES * 255).round() / 255)


def test_a_transform_that_changes_the_shape_is_refused_at_the_start():
    with pytest.raises(ValueError, match=r"RandomCrop makes images of shape \[3, 4, 4\] out of \[3, 8, 8\]"):
        dataset({"crop": Torchvision(v2.RandomCrop(4))})


def test_rand_augment_is_an_option_of_the_config(execute):
    _, metrics = execute(
        "dataset=cifar10", "dataset/augment=rand_augment", "profile=smoke", "logger=none", "model=linear"
    )
    assert 0 <= metrics["test/accuracy"] <= 1
