"""One job on several processes, started by torchrun as a user does (gloo, on the processor)."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.tokens import Layout, Ragged, TokenSplit
from dl_lab.training.distributed import World
from dl_lab.types import LabelledBatch, Ratio

# 513 = 32 * 16 + 1: the last batch has one item, so all processes but one have none.
DATA = ["dataset.source=generated", "dataset.n_generated=513", "trainer.batch_size=16", "threads=1"]
EXACT = ["model.dropout=0", "learner.accumulation=2", "learner.clip_norm=1.0", "trainer.max_epochs=2"]
QUIET = ["callbacks.curves=null", "callbacks.confusion_matrix=null", "trainer.checkpoint_seconds=0"]


def start(folder: Path, n: int, *arguments: str, options: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *options, "-m", "dl_lab"]
    return subprocess.Popen(
        [sys.executable, *torchrun, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    text, _ = process.communicate(timeout=200)
    return process.returncode, text


def torchrun(folder: Path, n: int, *arguments: str) -> str:
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    code, text = finish(start(folder, n, *arguments))
    assert code == 0, text
    return text


def the_run(folder: Path) -> Path:
    (status,) = folder.glob("outputs/*/*/status.json")
    return status.parent


def state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]


def losses(run: Path) -> list[float]:
    data = (run / "losses.f64").read_bytes()
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def result(run: Path) -> tuple[bytes, bytes]:
    return (run / "metrics.jsonl").read_bytes(), (run / "checkpoints" / "last.safetensors").read_bytes()


def wait_for_checkpoint(folder: Path) -> None:
    end = time.monotonic() + 120
    while not list(folder.glob("outputs/*/*/checkpoints/last.pt")):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def processes_of(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                gone = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
                if not gone and (entry / "cwd").readlink() == folder.resolve():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def ranks_of(folder: Path) -> list[int]:
    """The processes that train, rank 0 last."""
    pid = json.loads((the_run(folder) / "status.json").read_text())["pid"]
    found = [p for p in processes_of(folder) if b"LOCAL_RANK=" in Path(f"/proc/{p}/environ").read_bytes()]
    return sorted(found, key=lambda p: p == pid)


def test_two_processes_do_what_one_does(tmp_path, execute):
    one, _ = execute(*DATA, *QUIET, *EXACT)
    text = torchrun(tmp_path, 2, *DATA, *QUIET, *EXACT)
    two = the_run(tmp_path)  # and there is one run folder only
    assert text.count("Run folder") == 2, "more than one process has spoken"
    assert len(losses(two)) == len(losses(one)) == 66
    torch.testing.assert_close(torch.tensor(losses(two)), torch.tensor(losses(one)), rtol=1e-4, atol=1e-6)
    other = load_file(one / "checkpoints" / "last.safetensors")
    for name, weight in load_file(two / "checkpoints" / "last.safetensors").items():
        torch.testing.assert_close(weight, other[name], rtol=1e-3, atol=1e-5)
    first, second = (json.loads((run / "summary.json").read_text()) for run in (one, two))
    assert second["processes"] == 2
    assert first["metrics"]["test/loss"] == pytest.approx(second["metrics"]["test/loss"], rel=1e-4)
    assert first["metrics"]["train/loss"] == pytest.approx(second["metrics"]["train/loss"], rel=1e-4)
    assert not list((tmp_path / "tmp").glob("dl-lab-rank-*"))


LONG = [*DATA, *QUIET, "trainer.max_epochs=12"]  # with dropout: the random numbers must go on too


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(folder, 2, *LONG)
    return the_run(folder)


def test_interrupted_and_resumed_it_is_the_run_that_was_not(whole, tmp_path):
    (tmp_path / "tmp").mkdir()
    process = start(tmp_path, 2, *LONG)
    wait_for_checkpoint(tmp_path)
    process.send_signal(signal.SIGINT)
    code, text = finish(process)
    assert code != 0
    run = the_run(tmp_path)
    assert state(run) == "interrupted", text
    assert "torchrun --standalone --nproc-per-node 2 -m dl_lab resume" in text
    assert not processes_of(tmp_path)
    torchrun(tmp_path, 2, "resume", str(run))
    assert state(run) == "done"
    assert result(run) == result(whole)


def test_when_one_process_is_killed_the_others_end_and_it_can_go_on(whole, tmp_path):
    (tmp_path / "tmp").mkdir()
    process = start(tmp_path, 2, *LONG)
    wait_for_checkpoint(tmp_path)
    os.kill(ranks_of(tmp_path)[0], signal.SIGKILL)
    code, text = finish(process)
    assert code != 0
    run = the_run(tmp_path)
    assert state(run) in ("interrupted", "running"), text
    assert not processes_of(tmp_path)
    torchrun(tmp_path, 2, "resume", str(run))
    assert result(run) == result(whole)


def test_torchruns_own_restart_goes_on_in_the_same_folder(whole, tmp_path):
    (tmp_path / "tmp").mkdir()
    process = start(
        tmp_path, 2, *LONG, options=("--max-restarts", "1"), TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"
    )  # without it, torch 2.11's restarted processes look for the old ones
    wait_for_checkpoint(tmp_path)
    os.kill(ranks_of(tmp_path)[0], signal.SIGKILL)
    code, text = finish(process)
    assert code == 0, text
    assert result(the_run(tmp_path)) == result(whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "seed=0,1"], "torchrun is for one job"),
        (["experiment=logic_two_layer"], "does not train: start it without torchrun"),
        (["optimizer.lr=x"], "optimizer.lr"),
    ],
)
def test_what_cannot_be_divided_is_refused_once(arguments, says, lab):
    """Rank 0 says it; the others find the same and are silent."""
    environment = {"RANK": "0", "WORLD_SIZE": "2"}
    done = lab(*arguments, env=environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert not lab(*arguments, env={**environment, "RANK": "1"}).stderr


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("residence", ["device", "stream"])
def test_the_parts_of_a_batch_are_the_batch(n_ranks, residence):
    columns = LabelledBatch(torch.arange(11.0), torch.arange(11))
    split = TensorSplit(columns, lambda batch: batch, residence=residence, workers=0)
    parts = [split.divided(rank, n_ranks) for rank in range(n_ranks)]
    whole = [batch.y for batch in split.epoch(4, seed=1, epoch=2, start=1)]
    assert parts[-1].sizes(4, seed=1, epoch=2, start=1) == [len(batch) for batch in whole]
    by_rank = [[batch.y for batch in part.epoch(4, seed=1, epoch=2, start=1)] for part in parts]
    for i, batch in enumerate(whole):
        counts = [World(rank, n_ranks).part_of(len(batch)) for rank in range(n_ranks)]
        assert sum(counts) == len(batch)
        assert torch.equal(torch.cat([own[i][:n] for own, n in zip(by_rank, counts, strict=True)]), batch)
        assert all(len(own[i]) >= 1 for own in by_rank), "a process without a batch would not take the step"
    judged = torch.cat([batch.y for part in parts for batch in part.batches(4)])
    assert sorted(judged.tolist()) == list(range(11))


def test_texts_sorted_by_length_are_divided_too():
    """Their smaller batch may be anywhere in an epoch."""
    texts = Ragged.of([[2] * (1 + i % 5) for i in range(11)], 10)
    split = TokenSplit(texts, torch.arange(11), Layout(4))
    parts = [split.divided(rank, 3) for rank in range(3)]
    whole = [batch.y for batch in split.epoch(4, seed=1, epoch=2)]
    assert parts[0].sizes(4, seed=1, epoch=2) == [len(batch) for batch in whole]
    by_rank = [[batch.y for batch in part.epoch(4, seed=1, epoch=2)] for part in parts]
    for i, batch in enumerate(whole):
        counts = [World(rank, 3).part_of(len(batch)) for rank in range(3)]
        assert torch.equal(torch.cat([own[i][:n] for own, n in zip(by_rank, counts, strict=True)]), batch)
    assert sorted(torch.cat([batch.y for part in parts for batch in part.batches(4)]).tolist()) == list(range(11))


def test_one_process_is_a_world():
    tally = {"loss": Ratio(torch.tensor(1.0), 2)}
    assert World().sum_each([tally]) == [tally]
    assert World().gather(3) == [3]
    assert World().share("x") == "x"
