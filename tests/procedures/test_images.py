"""`dl-lab predict` prepares an image file as the training images were prepared, for every image data set."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dl_lab.commands import predict
from dl_lab.jobs.loading import load
from dl_lab.types import UserError

QUICK = ("dataset.source=generated", "dataset.n_generated=64", "trainer.max_epochs=1", "logger=none")


def answers(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def shares_of(row):
    return [float(value) for name, value in row.items() if name.startswith("p(")]


def write_stored(path, stored, white):
    """Write stored pixels (channels, height, width) as a PNG or a float TIFF that holds the same image."""
    pixels = stored.numpy().astype(np.float32).reshape(-1, *stored.shape[-2:])
    if white == 255:
        image = Image.fromarray(
            pixels.astype(np.uint8)[0] if len(pixels) == 1 else pixels.astype(np.uint8).transpose(1, 2, 0)
        )
    else:
        image = Image.fromarray(pixels[0] / white)
    image.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("dataset", "white", "suffix"),
    [
        ("mnist", 255, "png"),
        ("octmnist", 255, "png"),
        ("cifar10", 255, "png"),
        ("cifar10_gray", 765, "tiff"),
        ("digits", 16, "tiff"),
        ("digits_unsplit", 16, "tiff"),
    ],
)
def test_a_file_gets_the_shares_that_the_model_gives_the_same_image_of_the_test_split(
    execute, tmp_path, capsys, dataset, white, suffix
):
    folder, _ = execute(f"dataset={dataset}", "model=linear", *QUICK)
    loaded = load(folder)
    capsys.readouterr()
    images = next(iter(loaded.dataset.test.batches(5)))
    stored = loaded.dataset.test.columns.x[:5]
    with torch.no_grad():
        expected = loaded.model(images.x).softmax(dim=1)
    for i in range(5):
        path = write_stored(tmp_path / f"{i}.{suffix}", stored[i], white)
        assert predict.main([str(folder), path]) == 0
        (row,) = answers(capsys)
        np.testing.assert_allclose(shares_of(row), expected[i].numpy(), atol=1e-4)
        assert row["label"] == loaded.dataset.class_names[int(expected[i].argmax())]


def test_colours_of_a_grey_cifar_are_averaged_as_in_training(execute, tmp_path, capsys):
    folder, _ = execute("dataset=cifar10_gray", "model=linear", *QUICK)
    loaded = load(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    capsys.readouterr()
    assert predict.main([str(folder), str(tmp_path / "colour.png")]) == 0
    with torch.no_grad():
        x = torch.from_numpy(pixels.astype(np.float32).mean(axis=2) / 255)[None, None]
        expected = loaded.model(x).softmax(dim=1)[0]
    np.testing.assert_allclose(shares_of(answers(capsys)[0]), expected.numpy(), atol=1e-4)


def test_a_folder_of_ones_own_images_is_resized_and_normalised_as_in_training(execute, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, low in (("cat", 0), ("dog", 120)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(low, low + 100, (20 + i, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    folder, _ = execute(
        "dataset=image_folder",
        f"dataset.folder={tmp_path}/pets",
        "dataset.n_classes=2",
        "dataset.input_shape=[3,16,16]",
        f"paths.cache_dir={tmp_path}/cache",
        "model=linear",
        "trainer.max_epochs=3",
        "logger=none",
    )
    loaded = load(folder)
    capsys.readouterr()
    assert predict.main([str(folder), str(tmp_path / "pets")]) == 0
    rows = answers(capsys)
    assert [row["label"] for row in rows] == ["cat"] * 10 + ["dog"] * 10
    of_files = sorted(tuple(shares_of(row)) for row in rows)
    splits = [loaded.dataset.train, loaded.dataset.val, loaded.dataset.test]
    with torch.no_grad():
        outputs = [loaded.model(batch.x).softmax(dim=1) for split in splits for batch in split.batches(64)]
    np.testing.assert_allclose(of_files, sorted(map(tuple, torch.cat(outputs).tolist())), atol=1e-4)

    Image.new("L", (16, 16)).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"grey.png has 1 channel \(L\), not 3 \(RGB\): convert=true would convert it"):
        predict.main([str(folder), str(tmp_path / "grey.png")])
    assert predict.main([str(folder), str(tmp_path / "grey.png"), "convert=true"]) == 0
    assert "1 image converted from L to RGB" in capsys.readouterr().err
    (tmp_path / "broken.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"broken\.png is not a readable image file"):
        predict.main([str(folder), str(tmp_path / "broken.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no images"):
        predict.main([str(folder), str(tmp_path / "empty")])


def test_numpy_models_predict_too(execute, tmp_path, capsys):
    path = tmp_path / "white.png"
    Image.new("L", (28, 28), 200).save(path)
    for model, n_shares in (("numpy_logistic_regression", 4), ("numpy_perceptron", 0)):
        folder, _ = execute(
            "dataset=octmnist",
            f"model={model}",
            "learner=scratch",
            "trainer.device=cpu",
            "trainer.monitor=val/accuracy",
            "trainer.mode=max",
            *QUICK,
        )
        capsys.readouterr()
        assert predict.main([str(folder), str(path)]) == 0
        (row,) = answers(capsys)
        assert len(shares_of(row)) == n_shares
        assert row["label"] in load_names(folder)


def load_names(folder):
    from dl_lab.runs.files import read_json

    return (read_json(folder / "preprocessing.json") or {})["class_names"]


def test_a_run_without_classes_says_so(execute, tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (32, 32)).save(path)
    folder, _ = execute("experiment=cifar_ae_linear", "profile=smoke", "logger=none")
    with pytest.raises(UserError, match=r"gives .* for an image, not one score for each of 10 classes"):
        predict.main([str(folder), str(path)])
    folder, _ = execute("experiment=cifar_svd", "profile=smoke", "logger=none")
    with pytest.raises(UserError, match="has trained no single model whose weights were kept"):
        predict.main([str(folder), str(path)])


def test_transfer_learning_predicts_from_whole_images(execute, tmp_path, capsys):
    folder, _ = execute("experiment=cifar_resnet18_frozen", "profile=smoke", "logger=none")
    Image.new("RGB", (32, 32), "#8a2be2").save(tmp_path / "image.png")
    capsys.readouterr()
    assert predict.main([str(folder), str(tmp_path / "image.png")]) == 0
    assert sum(shares_of(answers(capsys)[0])) == pytest.approx(1, abs=1e-3)


def test_a_run_that_was_made_before_configs_named_a_predictor(execute, tmp_path, capsys):
    folder, _ = execute("dataset=mnist", "model=linear", *QUICK)
    path = tmp_path / "new.png"
    Image.fromarray(np.full((28, 28), 200, dtype=np.uint8)).save(path)
    assert predict.main([str(folder), str(path)]) == 0
    expected = capsys.readouterr().out
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["predictor"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert predict.main([str(folder), str(path)]) == 0
    assert capsys.readouterr().out == expected
    (folder / "preprocessing.json").unlink()
    with pytest.raises(UserError, match=r"has not recorded how its images were prepared.* Train it again"):
        predict.main([str(folder), str(path)])
