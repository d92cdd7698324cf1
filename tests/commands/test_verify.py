"""dl-lab verify executes a run again, and finds runs that somebody has changed."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch

from dl_lab.runs.files import read_losses
from dl_lab.runs.weights import fingerprints, load_weights, save_weights
from dl_lab.show import verification

SMALL = ["dataset.source=generated", "dataset.n_generated=128", "trainer.batch_size=16", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run of 2 epochs, 16 updates."""
    from dl_lab import configs as config
    from dl_lab.jobs.one import execute

    folder = tmp_path_factory.mktemp("verify") / "2026-01-02_00000001"
    composed = config.Composer().compose([*SMALL, f"hydra.run.dir={folder}", "threads=1", "logger=none"])
    execute(composed, ["dl-lab"], quiet=True)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / finished.name)


def replace(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_a_run_records(finished):
    n_updates = json.loads((finished / "summary.json").read_text())["steps"]
    losses = read_losses(finished)
    assert len(losses) == n_updates == 16
    lines = [json.loads(line) for line in (finished / "weights.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 4, 8, 16]
    last = load_weights(finished / "checkpoints" / "last.safetensors")
    assert lines[-1]["crc32c"] == fingerprints(last)
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[:8]) / 8 == pytest.approx(records[0]["train/loss"])


def test_the_same_bits(command, finished):
    before = sorted(path.name for path in finished.rglob("*"))
    status, out, _ = command("verify", str(finished))
    assert status == 0
    assert "Bit-equal: the data, 16 losses, all weights after 6 of the updates, 3 records" in out
    assert sorted(path.name for path in finished.rglob("*")) == before, "verify wrote into the run"
    status, out, _ = command("verify", str(finished), "--steps", "5")
    assert status == 0
    assert "Bit-equal: the data, 5 losses, all weights after 4 of the updates." in out


def test_another_learning_rate_is_found_at_its_first_step(command, copy):
    replace(copy / "config.yaml", "lr: 0.001", "lr: 0.0010001")
    status, out, _ = command("verify", str(copy))
    assert status == 1
    assert "Different." in out
    assert "update 2: its loss was" in out
    assert "after 1 update, still the same after 0" in " ".join(out.split())
    assert "the record itself was changed" in " ".join(out.split())
    assert "then," not in out


def test_another_seed_differs_before_the_first_update(command, copy):
    replace(copy / "config.yaml", "seed: 0", "seed: 1")
    status, out, _ = command("verify", str(copy), "--steps", "3")
    assert status == 1
    assert "before the first update" in out


def test_a_changed_loss_names_its_step(command, copy):
    losses = read_losses(copy)
    losses[6] += 1e-3
    (copy / "losses.f64").write_bytes(struct.pack("<16d", *losses))
    assert command("verify", str(copy), "--steps", "6")[0] == 0
    status, out, _ = command("verify", str(copy))
    assert status == 1
    assert "update 7: its loss was" in out
    assert "first tensor" not in out


def test_other_data_are_different_data_even_where_the_numbers_agree(command, copy):
    status = json.loads((copy / "status.json").read_text())
    now = status["dataset"]["fingerprint"]
    status["dataset"]["fingerprint"] = "another"
    (copy / "status.json").write_text(json.dumps(status))
    status, out, _ = command("verify", str(copy), "--steps", "2")
    words = " ".join(out.split())
    assert status == 1
    assert f"the fingerprint of the data set was another, now {now}" in words
    assert "Likely cause: other data" in words


def test_a_difference_within_the_tolerance_counts_as_equal(command, copy):
    path = copy / "checkpoints" / "best.safetensors"
    weights = load_weights(path)
    name = next(iter(weights))
    weights[name].view(-1)[3] *= 1 + 1e-6
    save_weights(path, weights, {})
    status, out, _ = command("verify", str(copy))
    assert status == 0
    assert "Equal within the tolerance" in out
    assert f"most in {name}" in out
    assert command("verify", str(copy), "--tolerance", "1e-12")[0] == 1


def test_other_code_and_torch_are_named(command, copy):
    environment = json.loads((copy / "env.json").read_text())
    environment |= {"code": "0123456789ab", "devices": {**environment["devices"], "torch": "1.0"}}
    (copy / "env.json").write_text(json.dumps(environment))
    replace(copy / "config.yaml", "lr: 0.001", "lr: 0.002")
    out = " ".join(command("verify", str(copy))[1].split())
    assert "another torch: 1.0 then," in out
    assert "other dl-lab's code: 0123456789ab" in out
    assert "record itself" not in out


def test_other_use_of_tf32_is_named(command, copy, monkeypatch):
    assert json.loads((copy / "env.json").read_text())["devices"]["tf32"] == "convolutions", "torch's own default"
    losses = read_losses(copy)
    losses[2] *= 1 + 1e-4  # about what 10 bits of mantissa do
    (copy / "losses.f64").write_bytes(struct.pack("<16d", *losses))
    assert "TF32" not in command("verify", str(copy), "--steps", "3")[1]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        out = " ".join(command("verify", str(copy), "--steps", "3")[1].split())
    finally:
        torch.set_float32_matmul_precision(before)
    assert "in TF32 (float32 rounded to 10 bits of mantissa): convolutions then, matrix products, convolutions" in out
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    out = " ".join(command("verify", str(copy), "--steps", "3")[1].split())
    assert "convolutions then, off (NVIDIA_TF32_OVERRIDE=0) now" in out


def test_a_run_that_cannot_be_verified_says_why(command, copy):
    (copy / "losses.f64").rename(copy / "kept")
    assert "verify it whole" in command("verify", str(copy), "--steps", "2")[2]
    (copy / "kept").rename(copy / "losses.f64")
    replace(copy / "status.json", '"done"', '"interrupted"')
    status, _, error = command("verify", str(copy))
    assert status == 1
    assert "is interrupted, not done" in error
    assert "--steps 16" in error
    assert command("verify", str(copy), "--steps", "2")[0] == 0
    assert "not at least 1" in command("verify", str(copy), "--steps", "0")[2]
    replace(copy / "config.yaml", "batch_size: 16", "batch_sizes: 16")
    replace(copy / "env.json", '"dl_lab": "', '"dl_lab": "0.0.')
    status, _, error = command("verify", str(copy), "--steps", "2")
    assert status == 2
    assert "(dl-lab 0.0." in error
    assert "batch_sizes" in error


def test_an_operation_that_does_not_repeat_itself_is_named():
    different = verification.Difference(places={"first step": "update 1"}, first_step=1)
    (cause,) = verification.causes(different, {}, ("a", "a"), repeatable=False)
    assert "does not repeat itself" in cause
    first, *_ = verification.causes(different, {"GPU": "A then, B now"}, ("a", "b"), repeatable=True)
    assert first.startswith("other data")


def test_fingerprints_are_of_the_bits():
    tensors = {"a": torch.zeros(3), "b": torch.tensor(1.0, dtype=torch.bfloat16), "c": torch.arange(6).view(2, 3).T}
    before = fingerprints(tensors)
    assert all(len(bits) == 8 for bits in before.values())
    tensors["a"][1] = -0.0
    after = fingerprints(tensors)
    assert [name for name in tensors if before[name] != after[name]] == ["a"]
    assert after["c"] == fingerprints({"c": tensors["c"].contiguous()})["c"]


@pytest.mark.parametrize("earlier", ["weights", "crc32"])
def test_fingerprints_of_an_earlier_version_are_not_compared(tmp_path, earlier):
    for name, record in (
        ("then", {"step": 1, earlier: {"a": "f" * 16}}),
        ("now", {"step": 1, "crc32c": {"a": "0" * 8}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.jsonl").write_text(json.dumps(record) + "\n")
    found = verification.compare(tmp_path / "then", tmp_path / "now", steps=1)
    assert not found.compared
    assert not found.places
