"""One job on several processes (gloo, on the processor): forked ones, and those that torchrun starts for a user."""

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
from ranks import Ranks, run_ranks
from safetensors.torch import load_file

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.text.tokens import Layout, Ragged, TokenSplit
from dl_lab.runs.files import read_records
from dl_lab.show.doctor.evidence import VITALS_FILE
from dl_lab.training.distributed import World
from dl_lab.types import LabelledBatch, Ratio

# 513 = 32 * 16 + 1: the last batch has one item, so all processes but one have none.
DATA = ["dataset.source=generated", "dataset.n_generated=513", "trainer.batch_size=16", "threads=1"]
EXACT = ["model.dropout=0", "learner.accumulation=2", "learner.clip_norm=1.0", "trainer.max_epochs=2"]
QUIET = ["callbacks.curves=null", "callbacks.confusion_matrix=null"]
SAVING = ["trainer.checkpoint_seconds=1e9", "trainer.checkpoint_steps=10"]
LONG = [*DATA, *QUIET, *SAVING, "trainer.max_epochs=4"]  # with dropout: the random numbers must go on too


def the_run(folder: Path) -> Path:
    (status,) = folder.glob("outputs/*/*/status.json")
    return status.parent


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def losses(run: Path) -> list[float]:
    data = (run / "losses.f64").read_bytes()
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def result(run: Path) -> tuple[bytes, bytes]:
    return (run / "metrics.jsonl").read_bytes(), (run / "checkpoints" / "last.safetensors").read_bytes()


def wait_until(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def has_checkpoint(folder: Path) -> bool:
    return bool(list(folder.glob("outputs/*/*/checkpoints/last.pt")))


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
    pid = status(the_run(folder))["pid"]
    found = [p for p in processes_of(folder) if b"LOCAL_RANK=" in Path(f"/proc/{p}/environ").read_bytes()]
    return sorted(found, key=lambda p: p == pid)


def test_two_processes_do_what_one_does(tmp_path, execute):
    one, _ = execute(*DATA, *QUIET, *EXACT)
    text = run_ranks(tmp_path, 2, *DATA, *QUIET, *EXACT)
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("two")
    run_ranks(folder, 2, *LONG)
    return the_run(folder)


def test_the_doctors_examination_sees_the_items_of_all_processes(whole):
    (found,) = [record for record in read_records(whole / VITALS_FILE) if record["kind"] == "examination"]
    assert sum(found["labels"]["train"]) == 513, "all of them; one process has 257"


def test_when_one_process_is_killed_the_other_ends_and_the_run_can_continue(whole, tmp_path):
    ranks = Ranks(tmp_path, 2, *LONG)
    wait_until(lambda: has_checkpoint(tmp_path))
    ranks.processes[1].kill()
    statuses, text = ranks.finish()
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] not in (0, -signal.SIGKILL), text
    run = the_run(tmp_path)
    assert status(run)["state"] == "interrupted", text
    run_ranks(tmp_path, 2, "resume", str(run))
    assert result(run) == result(whole)


def test_torchrun_restarts_killed_processes_and_an_interrupted_run_can_continue(whole, tmp_path):
    """Kill one process of torchrun's, interrupt its successors, and resume: the run is as if nothing had happened."""
    (tmp_path / "tmp").mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    # Without the setting, torch 2.11's restarted processes look for the old ones.
    more = {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp"), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = subprocess.Popen(
        [sys.executable, *torchrun, "-m", "dl_lab", *LONG],
        cwd=tmp_path,
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: has_checkpoint(tmp_path))
    run = the_run(tmp_path)
    first = status(run)["pid"]
    os.kill(ranks_of(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: status(run)["pid"] != first or process.poll() is not None)
    checkpoint = run / "checkpoints" / "last.pt"
    written = checkpoint.stat().st_mtime_ns
    wait_until(lambda: checkpoint.stat().st_mtime_ns != written or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=200)
    assert process.returncode != 0, text
    assert the_run(tmp_path) == run, "the restarted processes continue in the same folder"
    assert status(run)["state"] == "interrupted", text
    assert "torchrun --standalone --nproc-per-node 2 -m dl_lab resume" in text
    assert not processes_of(tmp_path)
    run_ranks(tmp_path, 2, "resume", str(run))
    assert status(run)["state"] == "done"
    assert result(run) == result(whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "seed=0,1"], "torchrun is for one job"),
        (["experiment=logic_two_layer"], "does not train: start it without torchrun"),
        (["optimizer.lr=x"], "optimizer.lr"),
    ],
)
def test_a_fit_that_cannot_be_divided_is_refused_once(arguments, says, lab):
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
