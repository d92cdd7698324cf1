"""Sweeps on the real services: a SLURM and a Ray cluster of this machine, each started by its script."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FAST = [
    "dataset.source=generated",
    "dataset.n_generated=512",
    "trainer.batch_size=8",
    "trainer.checkpoint_seconds=0",
    "trainer.max_epochs=40",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "optimizer=sgd",
    "threads=1",
]
FOUR = ["optimizer.lr=0.01,1e30,0.02,0.03"]  # the second one's loss becomes infinite
STATES = ["done", "failed", "done", "done"]


@dataclass(frozen=True)
class Service:
    """word: what a user adds to the command. environment: where the service is. queued: its jobs, by their names."""

    word: str
    environment: dict[str, str]
    queued: Callable[[], list[str]]


def script(name: str, *arguments: str, **environment: str) -> None:
    """Run a start script; the test is skipped where the service is not installed."""
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / name), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def free_ports(n: int) -> int:
    """The first of n neighbouring ports that nothing listens on."""
    for port in range(20000 + os.getpid() % 10000, 60000, n):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + n - 1))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("slurm")
    script("slurm_up.sh", str(folder), SLURM_PORT=str(free_ports(2)))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def queued() -> list[str]:
        command = ["squeue", "--noheader", "--array", "--states=PENDING,RUNNING,SUSPENDED", "--format=%i"]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        ).stdout.split()

    yield Service("launcher=slurm", environment, queued)
    script("slurm_down.sh", str(folder))


@pytest.fixture(scope="module")
def ray(tmp_path_factory) -> Iterator[Service]:
    yield from ray_cluster()


@pytest.fixture
def own_ray() -> Iterator[Service]:
    """A Ray cluster for one test, which may break it."""
    yield from ray_cluster()


def ray_cluster() -> Iterator[Service]:
    folder = f"/tmp/dl-lab-ray-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    port = free_ports(2)
    script("ray_up.sh", folder, "2", RAY_PORT=str(port))
    yield Service("launcher=ray", {"RAY_ADDRESS": f"127.0.0.1:{port}", "FOLDER": folder}, list)
    script("ray_down.sh", folder)


@pytest.fixture(
    params=[
        pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.xdist_group("slurm")]),
        pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.xdist_group("ray")]),
    ]
)
def service(request) -> Service:
    return request.getfixturevalue(request.param)


def start(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "dl_lab", "-m", *FAST, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 240) -> tuple[int, str]:
    text, _ = process.communicate(timeout=timeout)
    assert "Traceback" not in text, text
    return process.returncode, text


def sweep(folder: Path, service: Service, *arguments: str) -> tuple[int, str]:
    return finish(start(folder, *arguments, service.word, environment=service.environment))


def jobs(folder: Path) -> list[Path]:
    (plan,) = folder.glob("outputs/sweeps/*/*/sweep.yaml")
    return [plan.parent / f"{job['number']}_{job['id']}" for job in yaml.safe_load(plan.read_text())["jobs"]]


def state(job: Path) -> str:
    return json.loads((job / "status.json").read_text())["state"] if (job / "status.json").exists() else "nothing"


def results(folder: Path) -> list[tuple[str, bytes, bytes]]:
    """What must be the same of every finished job, wherever it ran and whatever happened on the way."""
    return [
        (job.name, (job / "metrics.jsonl").read_bytes(), (job / "checkpoints" / "last.safetensors").read_bytes())
        for job in jobs(folder)
        if state(job) == "done"
    ]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def checkpoints(folder: Path) -> int:
    return len(list(folder.glob("outputs/sweeps/*/*/*/checkpoints/last.pt")))


def processes_of(folder: Path) -> list[int]:
    """Every live process whose working folder is this one: the sweep's, and its jobs' on the nodes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if status != "Z" and (entry / "cwd").readlink() == folder.resolve():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The same four jobs on this machine, undisturbed."""
    folder = tmp_path_factory.mktemp("local")
    code, text = finish(start(folder, *FOUR))
    assert code == 1, text
    return folder


def test_one_word_moves_a_sweep_there(service, local, tmp_path):
    code, text = sweep(tmp_path, service, *FOUR)
    assert code == 1, text
    assert "1 failed" in text
    assert "The training loss became" in text
    assert [state(job) for job in jobs(tmp_path)] == STATES
    assert results(tmp_path) == results(local)
    code, text = sweep(tmp_path, service, *FOUR)
    assert code == 1
    assert text.count("skip: done on") == 3, text
    code, text = finish(start(tmp_path, *FOUR))  # and back: it is the same sweep here
    assert text.count("skip: done on") == 3, text
    assert not service.queued()


def test_kill_9_of_the_sweep_leaves_no_job_and_it_goes_on(service, local, tmp_path):
    process = start(tmp_path, *FOUR, service.word, environment=service.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    process.kill()
    process.communicate()
    wait_for(lambda: not service.queued() and not processes_of(tmp_path), seconds=30)
    assert {state(job) for job in jobs(tmp_path)} != {"done", "failed"}
    code, text = sweep(tmp_path, service, *FOUR)
    assert code == 1, text
    assert "resume: " in text
    assert [state(job) for job in jobs(tmp_path)] == STATES
    assert results(tmp_path) == results(local)


def test_a_killed_job_fails_alone_and_goes_on_next_time(service, local, tmp_path):
    process = start(tmp_path, *FOUR, service.word, environment=service.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    running = next(job for job in jobs(tmp_path) if state(job) == "running")
    os.kill(json.loads((running / "status.json").read_text())["pid"], signal.SIGKILL)
    code, text = finish(process)
    assert code == 1, text
    assert "killed" in text
    assert "2 of 4 jobs done" in text
    code, text = sweep(tmp_path, service, *FOUR)
    assert [state(job) for job in jobs(tmp_path)] == STATES, text
    assert results(tmp_path) == results(local)


def test_ctrl_c_saves_the_running_and_cancels_the_waiting(service, local, tmp_path):
    process = start(tmp_path, *FOUR, service.word, environment=service.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    process.send_signal(signal.SIGINT)
    code, text = finish(process)
    assert code != 0, text
    assert "Stopping: every job finishes its step and saves" in text
    assert not service.queued()
    assert not processes_of(tmp_path)
    assert {"interrupted", "queued"} & {state(job) for job in jobs(tmp_path)}
    code, text = sweep(tmp_path, service, *FOUR)
    assert [state(job) for job in jobs(tmp_path)] == STATES, text
    assert results(tmp_path) == results(local)


def test_a_search_runs_there_and_its_jobs_report_from_there(service, tmp_path):
    words = ["search=random", "pruner=median", "pruner.n_startup_trials=1", "pruner.n_warmup_steps=1", "n_trials=4"]
    words += ["optimizer.lr=tag(log,interval(1e-5,1))", "trainer.max_epochs=3", "lanes=2"]
    code, text = sweep(tmp_path, service, *words)
    assert code == 0, text
    states = [state(job) for job in jobs(tmp_path)]
    assert len(states) == 4
    assert set(states) <= {"done", "pruned"}
    assert states.count("pruned") == text.count("pruned after epoch"), text
    reported = (jobs(tmp_path)[0].parent / "study.journal").read_text()
    assert '"step":3' in reported, "no job has told its last epoch"
    assert not service.queued()


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_when_rays_head_dies_the_sweep_says_so_and_goes_on_elsewhere(own_ray, local, tmp_path):
    process = start(tmp_path, *FOUR, own_ray.word, environment=own_ray.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    script("ray_down.sh", own_ray.environment["FOLDER"])
    code, text = finish(process)
    assert code == 1, text
    wait_for(lambda: not processes_of(tmp_path), seconds=30)
    code, text = finish(start(tmp_path, *FOUR))
    assert [state(job) for job in jobs(tmp_path)] == STATES, text
    assert results(tmp_path) == results(local)


@pytest.mark.slurm
@pytest.mark.xdist_group("slurm")
def test_slurms_refusal_is_one_sentence_and_leaves_nothing(slurm, tmp_path):
    code, text = sweep(tmp_path, slurm, *FOUR, "launcher.partition=nowhere")
    assert code == 1
    assert "SLURM refused the jobs" in text
    assert not list(tmp_path.glob("outputs/sweeps/*/*/*/status.json"))


def test_without_a_cluster_the_message_says_what_to_do(tmp_path):
    pytest.importorskip("submitit")
    process = start(tmp_path, *FOUR, "launcher=slurm", environment={"PATH": "/nowhere"})
    code, text = finish(process)
    assert code == 1
    assert "there is no sbatch here" in text


@pytest.mark.ray
def test_without_a_ray_cluster_the_message_comes_at_once(tmp_path):
    pytest.importorskip("ray")
    address = f"127.0.0.1:{free_ports(2)}"
    code, text = finish(start(tmp_path, *FOUR, "launcher=ray", environment={"RAY_ADDRESS": address}), timeout=60)
    assert code == 1
    assert f"There is no Ray cluster here ({address}: Connection refused)" in text


def test_a_launcher_without_a_sweep_is_refused(lab):
    done = lab("launcher=slurm", "trainer.max_epochs=1")
    assert done.returncode == 2
    assert "add -m" in done.stderr


def test_wrong_settings_of_a_launcher_are_named(lab):
    done = lab("-m", "launcher=slurm", "launcher.cpus=0", "seed=0,1")
    assert done.returncode == 2
    assert "cpus must be at least 1" in done.stdout + done.stderr
