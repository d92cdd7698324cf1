"""Sweeps on the real services: a SLURM and a Ray cluster of this machine, each started by its script."""

from __future__ import annotations

import fcntl
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
STARTED: list[subprocess.Popen] = []
FOUR = ["optimizer.lr=0.01,1e30,0.02,0.03"]  # the second one's loss becomes infinite
STATES = ["done", "failed", "done", "done"]


@dataclass(frozen=True)
class Service:
    """A cluster that runs.

    Attributes:
        word: What a user adds to the command.
        environment: Environment variables that name the cluster.
        queued: Lists its jobs, by their names.
    """

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
    """Find n neighbouring ports where nothing listens, and return the first."""
    for port in range(20000 + os.getpid() % 10000, 60000, n):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + n - 1))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.fixture
def slurm(tmp_path_factory) -> Iterator[Service]:
    """A cluster for each test: one whose controller was killed may give a job's number twice, and refuse the second."""
    folder = tmp_path_factory.mktemp("slurm")
    script("slurm_up.sh", str(folder), SLURM_PORT=str(free_ports(2)))
    with open(folder / "slurm.conf", "a", encoding="utf-8") as conf:
        conf.write("MessageTimeout=5\n")  # for the commands: how long they try to reach a controller that is away
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def queued() -> list[str]:
        words = ["--noheader", "--array", "--states=PENDING,RUNNING,SUSPENDED", "--format=%i"]
        return ask("squeue", *words, environment=environment).split()

    yield Service("launcher=slurm", environment, queued)
    script("slurm_down.sh", str(folder))


def ask(*command: str, environment: dict[str, str]) -> str:
    """Return the output of one of SLURM's commands."""
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout


def try_to(*command: str, environment: dict[str, str]) -> bool:
    try:
        ask(*command, environment=environment)
    except subprocess.CalledProcessError:
        return False
    return True


class Controller:
    """Kill slurmctld as a power cut would, and start it again."""

    def __init__(self, service: Service) -> None:
        self.service, self.folder = service, Path(service.environment["SLURM_CONF"]).parent

    def __enter__(self) -> Controller:
        os.kill(int((self.folder / "slurmctld.pid").read_text()), signal.SIGKILL)
        self.dead = True
        return self

    def __exit__(self, *exception: object) -> None:
        self.come_back()  # a test that failed leaves the service to the next one

    def come_back(self, *options: str) -> None:
        if self.dead:
            ask("slurmctld", *options, environment=self.service.environment)
            wait_for(lambda: try_to("sinfo", environment=self.service.environment))
            self.dead = False


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
        pytest.param("slurm", marks=pytest.mark.slurm),
        pytest.param("ray", marks=pytest.mark.ray),
    ]
)
def service(request) -> Service:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """End the sweeps that a failed test left behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def start(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "dl_lab", "-m", *FAST, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


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
    """Return what must be the same for every finished job, wherever it ran and whatever interrupted it."""
    return [
        (job.name, (job / "metrics.jsonl").read_bytes(), (job / "checkpoints" / "last.safetensors").read_bytes())
        for job in jobs(folder)
        if state(job) == "done"
    ]


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def slurm_ids(folder: Path) -> list[str]:
    """SLURM's ids of a sweep's jobs, in the order of the jobs."""
    (noted,) = folder.glob("outputs/sweeps/*/*/slurm/jobs.txt")
    return noted.read_text().split()


def starts(job: Path) -> int:
    """Count how often a job was started: each start leaves a file of TensorBoard."""
    return len(list(job.glob("events.out.tfevents.*")))


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


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The same four jobs on this machine, undisturbed."""
    folder = tmp_path_factory.mktemp("local")
    code, text = finish(start(folder, *FOUR))
    assert code == 1, text
    return folder


def test_one_word_moves_a_sweep_to_the_cluster(service, local, tmp_path):
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


def test_kill_9_of_the_sweep_leaves_no_job_and_the_next_start_continues(service, local, tmp_path):
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


def test_a_killed_job_fails_alone_and_the_next_start_continues_it(service, local, tmp_path):
    """One job is killed itself; for another its supervisor on the node is killed (Ray's worker, submitit's process)."""
    process = start(tmp_path, *FOUR, service.word, environment=service.environment)
    killed: list[Path] = []

    def kill_one() -> bool:
        for job in jobs(tmp_path):
            if job not in killed and state(job) == "running" and (job / "checkpoints" / "last.pt").exists():
                pid = json.loads((job / "status.json").read_text())["pid"]
                os.kill(parent(pid) if killed else pid, signal.SIGKILL)
                killed.append(job)
                return True
        return False

    wait_for(lambda: checkpoints(tmp_path) >= 1)
    wait_for(kill_one)
    wait_for(kill_one)
    code, text = finish(process)
    assert code == 1, text
    assert "killed on its node" in text
    assert "1 of 4 jobs done" in text
    assert not service.queued()
    assert not processes_of(tmp_path)
    code, text = sweep(tmp_path, service, *FOUR)
    assert [state(job) for job in jobs(tmp_path)] == STATES, text
    assert results(tmp_path) == results(local)


def test_ctrl_c_saves_running_jobs_and_cancels_queued_ones(service, local, tmp_path):
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


def test_a_search_runs_on_the_cluster_and_its_jobs_report_from_the_nodes(service, tmp_path):
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
def test_a_sweep_ends_when_rays_head_dies_and_continues_on_this_machine(own_ray, local, tmp_path):
    process = start(tmp_path, *FOUR, own_ray.word, environment=own_ray.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    script("ray_down.sh", own_ray.environment["FOLDER"])
    code, text = finish(process)
    assert code == 1, text
    wait_for(lambda: not processes_of(tmp_path), seconds=30)
    code, text = finish(start(tmp_path, *FOUR))
    assert [state(job) for job in jobs(tmp_path)] == STATES, text
    assert results(tmp_path) == results(local)


def is_asked_to_end(pid: int) -> bool:
    """Whether a SIGTERM waits for a stopped process."""
    pending = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd"))
    return bool(int(pending.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slurm
def test_a_job_whose_time_is_over_is_requeued_until_its_requeues_are_used_up(slurm, local, tmp_path):
    words = ["optimizer.lr=0.01,0.02", "launcher.timeout_min=9", "launcher.max_requeues=1"]
    process = start(tmp_path, *words, slurm.word, environment=slurm.environment)
    held: dict[Path, int] = {}  # job -> the pid of its process, which is stopped

    def hold(wanted: list[Path], n_starts: int) -> bool:
        """Stop each job once it has a checkpoint and records its start, so that it does not end before the warning."""
        for job in wanted:
            records = (job / "checkpoints" / "last.pt").exists() and starts(job) == n_starts
            if job not in held and state(job) == "running" and records:
                held[job] = json.loads((job / "status.json").read_text())["pid"]
                os.kill(held[job], signal.SIGSTOP)
        return all(job in held for job in wanted)

    def warn(number: int) -> None:
        """Send SLURM's signal of the near end. Below ten minutes submitit takes any signal as that of the end."""
        job, id = jobs(tmp_path)[number], slurm_ids(tmp_path)[number]
        wait_for(lambda: try_to("scancel", "--signal=USR2", id, environment=slurm.environment))
        pid = held.pop(job)
        wait_for(lambda: is_asked_to_end(pid))  # SLURM delivers it in its own time: the job would be over before
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: state(job) == "interrupted")

    def start_again(number: int) -> None:
        """Release a requeued job, for which SLURM would wait two minutes; at once, its node would still refuse it."""
        job, id = jobs(tmp_path)[number], slurm_ids(tmp_path)[number]
        shown = ["squeue", "--noheader", "--array", f"--jobs={id}", "--format=%T"]
        wait_for(lambda: ask(*shown, environment=slurm.environment).strip() == "PENDING")
        tried = 0.0

        def runs() -> bool:
            nonlocal tried
            if time.monotonic() - tried > 6:  # again: as it leaves its node, SLURM may set the two minutes once more
                tried = time.monotonic()
                try_to("scontrol", "update", f"JobId={id}", "StartTime=now+3", environment=slurm.environment)
            return state(job) != "interrupted"

        wait_for(runs)

    wait_for(lambda: checkpoints(tmp_path) >= 1, seconds=180)
    first, second = jobs(tmp_path)
    wait_for(lambda: hold([first, second], 1), seconds=180)
    for number in (0, 1):
        warn(number)
        start_again(number)
    wait_for(lambda: hold([second], 2))
    warn(1)
    code, text = finish(process)
    assert code == 130, text
    assert "lr=0.02  interrupted: its time was over, launcher.max_requeues is used up" in text
    assert "Interrupted. Type the same command again to run what is left." in text
    assert [state(job) for job in (first, second)] == ["done", "interrupted"]
    assert [starts(job) for job in (first, second)] == [2, 2]
    assert not slurm.queued()
    assert not processes_of(tmp_path)
    code, text = sweep(tmp_path, slurm, *words)
    assert code == 0, text
    assert "resume: " in text
    assert [found[1:] for found in results(tmp_path)] == [found[1:] for found in results(local)[:2]]


@pytest.mark.skipif("DL_LAB_SLOW" not in os.environ, reason="takes over a minute: DL_LAB_SLOW=1 runs it")
@pytest.mark.slurm
def test_slurm_warns_before_the_end_of_a_jobs_time(slurm, tmp_path):
    """The shortest limit is a minute. SLURM checks it every half minute, so it warns 20 to 50 s after the start."""
    words = ["launcher.timeout_min=1", "launcher.warning_s=10", "launcher.max_requeues=0", "trainer.max_epochs=100000"]
    code, text = sweep(tmp_path, slurm, "optimizer.lr=0.01,0.02", *words)
    assert code == 130, text
    assert text.count("interrupted: its time was over, launcher.max_requeues is used up") == 2, text
    assert "Interrupted. Type the same command again to run what is left." in text
    assert [state(job) for job in jobs(tmp_path)] == ["interrupted"] * 2
    assert checkpoints(tmp_path) == 2
    assert not slurm.queued()
    assert not processes_of(tmp_path)


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_the_sweep_waits_for_slurms_controller(slurm, tmp_path):
    # No job may end while the controller is killed: what it has not written down, SLURM 22.05 calls running for minutes
    words = ["optimizer.lr=0.01,0.02,0.03", "trainer.max_epochs=240"]
    process = start(tmp_path, *words, slurm.word, environment=slurm.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    before = time.time()  # the controller may write down the change at once
    ask("scontrol", "update", f"JobId={slurm_ids(tmp_path)[2]}", "Comment=x", environment=slurm.environment)
    kept = Controller(slurm).folder / "state" / "job_state"
    wait_for(lambda: kept.exists() and kept.stat().st_mtime > before)  # every five seconds, if anything has changed
    with Controller(slurm) as controller:
        said = ""
        while "SLURM does not answer" not in said:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, said
            said += line
        controller.come_back()
        code, text = finish(process, timeout=480)
    assert code == 0, said + text
    assert "The cluster is reachable again." in text
    assert "3 of 3 jobs done" in text
    assert [starts(job) for job in jobs(tmp_path)] == [1, 1, 1]
    assert not slurm.queued()
    assert not processes_of(tmp_path)


@pytest.mark.skipif(
    "DL_LAB_SLOW" not in os.environ,
    reason="takes minutes: a controller without its state gives old numbers to new jobs, which its node refuses for a "
    "while (DL_LAB_SLOW=1 runs it)",
)
@pytest.mark.slurm
def test_a_sweep_says_which_jobs_slurms_controller_forgot_and_the_next_start_continues_them(slurm, local, tmp_path):
    process = start(tmp_path, *FOUR, slurm.word, environment=slurm.environment)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    with Controller(slurm) as controller:
        controller.come_back("-c")  # without what it had written down
    code, text = finish(process)
    assert code == 1, text
    assert "did not start (SLURM job" in text
    assert not slurm.queued()
    assert not processes_of(tmp_path)
    code, text = sweep(tmp_path, slurm, *FOUR)
    assert [state(job) for job in jobs(tmp_path)] == STATES, text
    assert results(tmp_path) == results(local)


@pytest.mark.slurm
@pytest.mark.parametrize("how", ["Ctrl-C twice", "kill -9"])
def test_jobs_of_a_sweep_that_ended_are_cancelled_when_the_controller_is_back(slurm, tmp_path, how):
    process = start(tmp_path, "optimizer.lr=0.01,0.02,0.03", "trainer.max_epochs=100000", slurm.word,
                    environment=slurm.environment)  # fmt: skip
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    with Controller(slurm) as controller:
        if how == "kill -9":
            process.kill()
            process.communicate()
        else:
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)  # two that come at once are one
            process.send_signal(signal.SIGINT)
            code, text = finish(process)
            assert code == 1, text
            assert "A process of this sweep waits to cancel its jobs" in text
        controller.come_back()
    wait_for(lambda: not slurm.queued() and not processes_of(tmp_path))


@pytest.mark.slurm
def test_a_job_waits_until_slurms_controller_takes_it(slurm, tmp_path):
    """The controller goes away between a look at the queue and the next submission."""
    commands, asked = tmp_path / "commands", tmp_path / "asked"
    commands.mkdir()
    (commands / "sbatch").write_text(
        f"""#!/bin/sh
        [ -e {asked} ] && PATH=${{PATH#*:}} exec sbatch "$@"
        touch {asked}
        echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)' >&2
        exit 1"""
    )
    (commands / "sbatch").chmod(0o755)
    path = {"PATH": f"{commands}:{os.environ['PATH']}"}
    process = start(tmp_path, "optimizer.lr=0.01,0.02", slurm.word, environment={**slurm.environment, **path})
    code, text = finish(process)
    assert code == 0, text
    assert asked.exists()
    assert [starts(job) for job in jobs(tmp_path)] == [1, 1]


@pytest.mark.slurm
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


def test_a_job_that_the_cluster_starts_twice_waits_for_its_first_process(tmp_path):
    """The first process holds the lock of the job's log. Once it is done, the second has nothing to do."""
    status = {"state": "running", "host": socket.gethostname(), "pid": os.getpid()}
    (tmp_path / "status.json").write_text(json.dumps(status))
    code = "import sys; from dl_lab.sweeps.backends.node import *; print('ready', flush=True); "
    code += "sys.exit(10 + supervise(Task(0, sys.argv[1], '.', {})))"
    with open(tmp_path / "job.log", "ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        second = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        STARTED.append(second)
        assert second.stdout is not None and second.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=3)
        (tmp_path / "status.json").write_text(json.dumps({**status, "state": "done"}))
    second.communicate(timeout=60)
    assert second.returncode == 10
    assert not (tmp_path / "job.log").read_bytes()
