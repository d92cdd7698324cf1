"""A training that begins with the weights of a run or of a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab.runs.files import read_json
from dl_lab.runs.weights import load_weights, save_weights
from dl_lab.training.warm_start import warm_start
from dl_lab.types import ConfigError, UserError

SMALL = ["dataset.source=generated", "dataset.n_generated=100", "model.hidden=[8]", "logger=none",
         "callbacks.curves=null", "callbacks.confusion_matrix=null", "trainer.max_epochs=1"]  # fmt: skip


def net(n_classes: int = 3) -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(4, 5), "head": nn.Linear(5, n_classes)})


def test_all_weights_are_taken_or_named(tmp_path):
    path = tmp_path / "a.safetensors"
    one = net()
    save_weights(path, one.state_dict(), {})
    other = net()
    assert warm_start(other, str(path)) == 4
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    with pytest.raises(UserError, match=r"2 of the model's 4 weights .* learner.start_except=\[head\]"):
        warm_start(net(7), str(path))
    larger = net(7)
    before = larger.head.weight.clone()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert warm_start(larger, str(path), ["head"]) == 2
    assert torch.equal(larger.head.weight, before)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    assert torch.equal(larger.body.weight, one.body.weight)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    with pytest.raises(UserError, match="cannot be read"):
        warm_start(net(), str(tmp_path / "none.safetensors"))


def test_a_run_begins_where_another_ended(execute):
    first, _ = execute(*SMALL)
    second, _ = execute(*SMALL, f"learner.start_from={first}", "optimizer.lr=0")
    one, other = (load_weights(folder / "checkpoints" / "best.safetensors") for folder in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_json(second / "summary.json")["start_from"] == str(first)


def test_a_missing_run_is_found_before_anything_is_written(execute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no runs; the project's own folder may have some
    with pytest.raises((UserError, ConfigError), match="There are no runs under outputs yet"):
        execute(*SMALL, "learner.start_from=nowhere")
    assert not list(tmp_path.glob("run*"))


def test_a_run_without_a_checkpoint_begins_with_the_weights_again(execute, tmp_path):
    from dl_lab.commands import resume
    from dl_lab.runs.recorder import Run

    first, _ = execute(*SMALL)
    words = [*SMALL, f"learner.start_from={first}", "optimizer.lr=0"]
    second, _ = execute(*words)
    (second / "summary.json").unlink()
    Run.reopen(second, {}, Run(second, {}).board).set_status("interrupted")
    for path in (second / "checkpoints").iterdir():
        path.unlink()
    assert resume.main([str(second), "--mixed-code"]) == 0
    one, other = (load_weights(folder / "checkpoints" / "best.safetensors") for folder in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)


def identity_of(*words):
    from dl_lab import configs
    from dl_lab.configs.identity import Identifier

    return Identifier().identify(configs.Composer().compose([*SMALL, *words]).config).id


def test_the_content_of_the_weights_is_part_of_what_a_job_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, copy = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(one, net().state_dict(), {})
    copy.write_bytes(one.read_bytes())
    first = identity_of(f"learner.start_from={one}")
    assert first != identity_of()
    assert first == identity_of(f"learner.start_from={copy}") == identity_of("learner.start_from=a.safetensors")
    torch.manual_seed(5)
    save_weights(one, net().state_dict(), {})
    assert first != identity_of(f"learner.start_from={one}")


def test_last_is_the_run_before_this_one(tmp_path, monkeypatch):
    import dl_lab

    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "optimizer.lr=0"]
    first = dl_lab.train(SMALL).folder
    second = dl_lab.train([*words, "learner.start_from=last"]).folder
    assert read_json(second / "summary.json")["start_from"] == str(first)
    one, other = (load_weights(folder / "checkpoints" / "best.safetensors") for folder in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_verify_needs_the_weights_and_a_checkpoint_has_them(tmp_path, monkeypatch):
    import dl_lab
    from dl_lab.commands import resume, verify

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.safetensors"
    first = dl_lab.train(SMALL).folder
    path.write_bytes((first / "checkpoints" / "best.safetensors").read_bytes())
    second = dl_lab.train([*SMALL, f"learner.start_from={path}", "trainer.checkpoint_seconds=0"]).folder
    third = dl_lab.train([*SMALL, f"learner.start_from={path}"]).folder  # too short for a checkpoint
    assert verify.main([str(second)]) == 0
    path.unlink()
    with pytest.raises(
        UserError, match=r"the weights that it began with \(learner.start_from\) changed since, or are gone"
    ):
        verify.main([str(second)])
    assert resume.main([str(second), "trainer.max_epochs=2"]) == 0
    with pytest.raises(UserError, match="cannot be resumed: the weights that it began with"):
        resume.main([str(third), "trainer.max_epochs=2"])


def test_the_content_of_a_backbones_file_counts_too(tmp_path, monkeypatch):
    from dl_lab import configs
    from dl_lab.configs.identity import Identifier

    monkeypatch.chdir(tmp_path)
    words = ["experiment=cifar_resnet18_frozen", "profile=smoke", "procedure.weights=own.safetensors"]
    config = configs.Composer().compose(words).config
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_weights(tmp_path / "own.safetensors", net().state_dict(), {})
        found.append(Identifier().identify(config))
    assert found[0].id != found[1].id
    assert set(found[0].facts["data_files"]) >= {"procedure.weights"}
