"""Transfer learning: weights that a test trains and saves are loaded; frozen features are computed once."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest
import torch
from safetensors.torch import load_file

from dl_lab import configs
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.models.pretrained import Pretrained
from dl_lab.procedures import transfer
from dl_lab.runs.files import read_json, read_records
from dl_lab.training.backbones import read_backbone
from dl_lab.types import UserError

COMMON = [
    "dataset=cifar10",
    "dataset.source=generated",
    "dataset.n_generated=32",
    "model=pretrained_resnet18",
    "procedure=transfer",
    "trainer.batch_size=16",
    "trainer.device=cpu",
    "trainer.max_epochs=1",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "logger=none",
]
FROZEN = ["model.trainable=head", "model.batch_norm=eval"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, execute_in):
    """Return (folder, file) of weights after some updates of all layers, as torchvision names and packs them."""
    folder = tmp_path_factory.mktemp("trained")
    execute_in(folder / "run", *COMMON, "procedure.weights=random", "trainer.max_epochs=2")
    weights = load_file(folder / "run" / "checkpoints" / "last.safetensors")
    state = {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, folder / "mine.pth")
    return folder, folder / "mine.pth"


@pytest.fixture
def run(tmp_path, execute_in, trained):
    def start(name: str, *overrides: str, weights=trained[1]):
        paths = [f"paths.cache_dir={tmp_path}/cache", f"procedure.weights={weights}"]
        return tmp_path / name, execute_in(tmp_path / name, *COMMON, *paths, *overrides)

    return start


# -- weights ------------------------------------------------------------------------------------------------------


def test_training_starts_from_the_file(run, trained):
    folder, _ = run("frozen", *FROZEN)
    state, found = torch.load(trained[1]), load_file(folder / "checkpoints" / "last.safetensors")
    for name in ("conv1.weight", "layer4.1.bn2.running_mean", "layer4.1.conv2.weight"):
        assert torch.equal(found[f"net.{name}"], state[name])
    backbone = read_json(folder / "summary.json")["backbone"]
    assert backbone["architecture"] == "resnet18" and backbone["weights"].startswith("mine.pth (sha256 ")


def test_weights_of_our_own_runs_are_taken(run, trained):
    first, _ = run("a", *FROZEN)
    second, _ = run("b", *FROZEN, weights=trained[0] / "run" / "checkpoints" / "last.safetensors")
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()


def test_random_weights_only_when_asked(run, tmp_path):
    with pytest.raises(
        UserError, match=r"weights /nowhere/x.pth do not exist. procedure.weights=random trains without them"
    ):
        run("missing", weights="/nowhere/x.pth")
    folder, _ = run("random", *FROZEN, weights="random")
    assert read_json(folder / "summary.json")["backbone"]["weights"] == "random"


def test_a_checksum_of_ones_own(run, trained):
    import hashlib

    right = hashlib.sha256(trained[1].read_bytes()).hexdigest()
    run("right", *FROZEN, f"procedure.checksum=sha256:{right}")
    with pytest.raises(UserError, match=r"mine.pth is not the expected file: its checksum is not sha256:0000"):
        run("wrong", *FROZEN, f"procedure.checksum=sha256:{'0' * 64}")


def test_another_nets_weights_name_the_file(run, tmp_path):
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth: these are not weights of resnet18: they lack conv1.weight"):
        run("other", weights=tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"no weights"), "cannot be read"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no state dict"),
        (lambda path: torch.save(functools.partial(print), path), "cannot be read"),  # would be executed
    ],
)
def test_files_that_are_no_weights(tmp_path, write, message):
    write(tmp_path / "bad.pth")
    with pytest.raises(UserError, match=message):
        read_backbone("resnet18", "bad.pth", tmp_path)


class Official:
    """A weights entry of torchvision's kind, served from this machine."""

    name = "IMAGENET1K_V1"

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def served(tmp_path, trained, monkeypatch):
    """Serve the trained file under a name with its checksum, as torchvision's server does."""
    import hashlib

    import torchvision

    name = f"resnet18-{hashlib.sha256(trained[1].read_bytes()).hexdigest()[:8]}.pth"
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / name).write_bytes(trained[1].read_bytes())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "www"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    entry = Official(f"http://127.0.0.1:{server.server_port}/{name}")
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda architecture: [entry])
    yield tmp_path / "www" / name
    server.shutdown()
    thread.join()
    server.server_close()


def test_official_weights_are_fetched_once_and_checked(served, tmp_path, trained):
    folder = tmp_path / "weights"
    state, about = read_backbone("resnet18", "imagenet", folder)
    assert torch.equal(state["conv1.weight"], torch.load(trained[1])["conv1.weight"])
    assert about.startswith(served.name)
    served.unlink()
    read_backbone("resnet18", "IMAGENET1K_V1", folder)  # no second download
    (folder / served.name).write_bytes(b"damaged")
    with pytest.raises(UserError, match="is damaged: its sha256 does not start with"):
        read_backbone("resnet18", "imagenet", folder)


def test_a_wrong_download_and_no_server(served, tmp_path):
    folder = tmp_path / "weights"
    served.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"could not be downloaded: invalid hash value.*put the file at"):
        read_backbone("resnet18", "imagenet", folder)
    assert not list(folder.glob("*.pth"))
    served.unlink()
    with pytest.raises(UserError, match=r"could not be downloaded.*procedure.weights=random trains without them"):
        read_backbone("resnet18", "imagenet", folder)


def test_names_that_torchvision_does_not_have(tmp_path):
    with pytest.raises(UserError, match=r"resnet18 has the weights imagenet, IMAGENET1K_V1, random, or a file"):
        read_backbone("resnet18", "coco", tmp_path)


# -- features -----------------------------------------------------------------------------------------------------


def test_kept_features_give_what_computed_ones_give(run):
    kept, with_cache = run("kept", *FROZEN, "trainer.max_epochs=2")
    computed, without = run("computed", *FROZEN, "procedure.cache_features=false", "trainer.max_epochs=2")
    assert with_cache == pytest.approx(without, rel=1e-4)
    weights = [load_file(folder / "checkpoints" / "last.safetensors") for folder in (kept, computed)]
    assert weights[0].keys() == weights[1].keys(), "the whole model is saved either way"
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


def test_features_are_computed_once(run, monkeypatch, tmp_path):
    first, _ = run("first", *FROZEN)
    calls = []
    features = Pretrained.features
    monkeypatch.setattr(Pretrained, "features", lambda self, x: calls.append(len(x)) or features(self, x))
    again, _ = run("again", *FROZEN, "trainer.max_epochs=3")
    assert calls == [2, 2], "those of the rehearsal alone: neither before the training nor in its epochs"
    one, two = (read_records(folder / "metrics.jsonl") for folder in (first, again))
    assert one[0] == two[0]


def test_other_images_weights_or_sizes_have_features_of_their_own(run, tmp_path):
    run("a", *FROZEN)
    run("b", *FROZEN, "++dataset.n_generated=40")
    run("c", *FROZEN, "dataset.normalise.mean=[0.5,0.5,0.5]", "dataset.normalise.std=[0.5,0.5,0.5]")
    run("d", *FROZEN, "model.resize=48")
    run("e", *FROZEN, weights="random")
    assert len(list((tmp_path / "cache").glob("features_*/about.json"))) == 5


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.batch_norm=train", "model.trainable=head"],
        ["model.trainable=all"],
        [*FROZEN, "dataset/augment=crop_flip"],
    ],
)
def test_features_that_change_are_not_kept(run, tmp_path, overrides):
    run("run", *overrides, "trainer.max_epochs=1")
    assert not list((tmp_path / "cache").glob("features_*"))


def test_a_finished_run_is_loaded_whole_without_its_file(run, tmp_path, monkeypatch):
    from dl_lab.jobs.loading import load

    folder, metrics = run("run", *FROZEN)
    monkeypatch.setattr(transfer, "read_backbone", None)
    loaded = load(folder)
    images = loaded.dataset.test.columns
    batch = next(iter(loaded.dataset.test.batches(len(images.y))))
    with torch.no_grad():
        accuracy = (loaded.model(batch.x).argmax(dim=1) == batch.y).double().mean()
    assert float(accuracy) == pytest.approx(metrics["test/accuracy"])


def test_another_model_is_refused(execute_in, tmp_path):
    words = [word for word in COMMON if not word.startswith("model=")]
    with pytest.raises(configs.ConfigError, match="transfer needs a Pretrained model, not Linear"):
        execute_in(tmp_path / "run", *words, "model=linear")


def test_check_needs_no_weights():
    composed = configs.Composer().compose(["experiment=cifar_resnet18_frozen", "model.resize=40", "model.crop=32"])
    rehearse(composed.config)


# -- discriminative learning rates --------------------------------------------------------------------------------


def test_parts_learn_at_their_own_rate(run):
    words = ["optimizer=sgd", "optimizer.lr=0.1", "scheduler=step", "scheduler.step_size=1", "scheduler.gamma=0.5"]
    words += ["trainer.max_epochs=2"]
    folder, _ = run(
        "run", *words, "learner.lr_factors={net: 0.1, net.layer4: 0.5, net.conv1: 0}", "model.batch_norm=eval"
    )
    records = read_records(folder / "metrics.jsonl")
    rates = {key: value for key, value in records[0].items() if key.startswith("lr/")}
    assert rates == pytest.approx({"lr/net": 0.01, "lr/net.layer4": 0.05, "lr/net.conv1": 0.0, "lr/rest": 0.1})
    assert records[1]["lr/net.layer4"] == pytest.approx(0.025)
    assert (folder / "checkpoints" / "last.safetensors").exists()


def test_a_rate_of_nothing_moves_nothing(run, trained):
    folder, _ = run(
        "run", "optimizer=sgd", "optimizer.lr=1e-3", "learner.lr_factors={net.layer1: 0}", "model.batch_norm=eval"
    )
    before, after = torch.load(trained[1]), load_file(folder / "checkpoints" / "last.safetensors")
    assert torch.equal(after["net.layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])
    assert not torch.equal(after["net.layer2.0.conv1.weight"], before["layer2.0.conv1.weight"])


def test_missing_parts_are_refused(run):
    with pytest.raises(
        configs.ConfigError, match=r"lr_factors.layer9: the model trains no such part; it trains net, head"
    ):
        run("run", "learner.lr_factors={layer9: 0.1}")
    with pytest.raises(configs.ConfigError, match=r"lr_factors.net: the model trains no such part; it trains head"):
        run("run", "learner.lr_factors={net: 0.1}", *FROZEN)


def test_a_scheduler_that_sets_the_rates_itself_is_refused():
    from torch import nn

    from dl_lab.tasks.classification import Classification
    from dl_lab.training.learners import GradientLearner

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def one_cycle(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)

    with pytest.raises(UserError, match="lr_factors do not go with OneCycleLR, which sets the rates itself"):
        GradientLearner(model, Classification(), lambda p: torch.optim.SGD(p, lr=0.1), one_cycle, lr_factors={"0": 0.1})
