"""Jobs through SLURM: submitted by submitit, watched by squeue, cancelled when the sweep ends or is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab.run import is_alive, read_json, to_json_lines, write_atomic
from dl_lab.sweeps.remote import OVER, ClusterAway, Task, supervise
from dl_lab.types import UserError

POLL_SECONDS = 1.0  # between two looks at the queue, for a few jobs; `_pause` waits longer for many
COMMAND_SECONDS = 60.0


class Slurm:
    """A SLURM cluster: each job of the sweep is a job of its queue, those submitted together an array.

    partition, account, qos, exclude: as sbatch's. timeout_min: minutes a job may take; `warning_s` seconds before, it
    is told to save and is requeued, at most max_requeues times. cpus, gpus, mem_gb: of each job. options: further
    options of sbatch by name. No accounting (sacct) is needed: what became of a job is in its run folder.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        timeout_min: int = 720,
        max_requeues: int = 3,
        warning_s: int = 90,
        cpus: int = 1,
        gpus: int = 0,
        mem_gb: float = 4.0,
        exclude: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if timeout_min < 1 or cpus < 1 or gpus < 0 or mem_gb <= 0:
            raise ValueError("timeout_min and cpus must be at least 1, gpus at least 0, mem_gb above 0")
        if not 0 <= warning_s < 60 * timeout_min:
            raise ValueError("warning_s must be shorter than timeout_min: a job would be told to save as it starts")
        self.cpus, self.max_requeues = cpus, max_requeues
        self.parameters: dict[str, Any] = {
            "time": timeout_min,
            "cpus_per_task": cpus,
            "mem": f"{round(mem_gb * 1024)}MB",
            "ntasks_per_node": 1,
            "nodes": 1,
            "signal_delay_s": warning_s,
            "stderr_to_stdout": True,
            **({"gpus_per_node": gpus} if gpus else {}),
        }
        named = {"partition": partition, "account": account, "qos": qos, "exclude": exclude}
        self.parameters |= {name: value for name, value in named.items() if value is not None}
        self.options = dict(options or {})
        self._ids: dict[int, str] = {}  # job -> SLURM's id, "12" or "12_3", of those not seen to have ended
        self._looked = 0.0
        self._unheard: bool | None = None  # a `stop` (its kill) that the controller was not there to hear
        self.trouble = ""

    def open(self, folder: Path, name: str) -> str:
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError("launcher=slurm needs submitit: pip install 'dl-lab[slurm]'.") from None
        for command in ("sbatch", "squeue", "scancel", "srun"):
            if shutil.which(command) is None:
                raise UserError(f"launcher=slurm: there is no {command} here; start it where SLURM's commands are.")
        self.folder, self.name = folder.resolve() / "slurm", f"dl-lab_{name}"
        left = [id for id in self._listed() if id in self._noted()]
        if left:
            self._end_older(left)
            return f"{len(left)} jobs of an earlier start were still in the queue: cancelled, they go on from there."
        return ""

    def submit(self, tasks: Sequence[Task]) -> None:
        import submitit
        from submitit.core.utils import FailedJobError

        self.folder.mkdir(exist_ok=True)
        executor = submitit.SlurmExecutor(self.folder / "%j", max_num_timeout=self.max_requeues)
        try:
            executor.update_parameters(
                job_name=self.name, additional_parameters=self.options, array_parallelism=len(tasks), **self.parameters
            )
            with executor.batch():
                jobs = [executor.submit(SlurmJob(task)) for task in tasks]
        except (FailedJobError, subprocess.CalledProcessError) as error:
            if _is_away(str(getattr(error, "stderr", "") or error)):
                raise ClusterAway("SLURM does not answer.") from None
            raise UserError(f"SLURM refused the jobs: {_last_line(error)}") from None
        new = {task.job: job.job_id for task, job in zip(tasks, jobs, strict=True)}
        self._ids |= new
        with open(self.folder / "jobs.txt", "a", encoding="utf-8") as file:  # for whoever comes after a kill
            file.write("".join(f"{id}\n" for id in new.values()))
        self._guard(sorted({id.partition("_")[0] for id in new.values()}))

    def ended(self) -> dict[int, str]:
        time.sleep(max(0.0, self._pause() - (time.monotonic() - self._looked)))
        self._looked = time.monotonic()
        try:
            there = self._listed()
        except UserError as error:  # the controller is away or busy; the jobs go on without it
            if self._unheard:
                raise UserError(
                    "SLURM does not answer: a process of this sweep waits to cancel its jobs as soon as it does; "
                    "the same command then goes on with what is left."
                ) from None
            self.trouble = str(error)
            time.sleep(POLL_SECONDS)
            return {}
        self.trouble = ""
        if self._unheard is not None:
            self.stop(self._unheard)
        gone = [job for job, id in self._ids.items() if id not in there]
        return {job: f"SLURM job {self._where(self._ids.pop(job))}" for job in gone}

    def stop(self, kill: bool) -> None:
        ids = list(self._ids.values())
        if not ids:
            return
        if kill:
            heard = _heard("scancel", *ids)
        else:
            heard = _heard("scancel", "--state=PENDING", *ids)
            heard = heard and _heard("scancel", "--signal=TERM", "--state=RUNNING", *ids)
        self._unheard = None if heard else kill

    def close(self) -> None:
        if self._ids and (self._unheard or not _heard("scancel", *self._ids.values())):
            return  # the guard outlives this process, and cancels them once the controller is back
        if hasattr(self, "_guarded"):
            with contextlib.suppress(OSError):
                os.write(self._guarded, b"done\n")
                os.close(self._guarded)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._guard_pid, 0)
            del self._guarded

    # -- the queue --------------------------------------------------------------------------------------------

    def _listed(self) -> dict[str, str]:
        """Id -> state of this sweep's jobs that are queued or running, an array's one by one.

        By name: a controller that came back without its state gives the old ids to other jobs.
        """
        try:
            done = _command("squeue", "--noheader", "--array", "--me", f"--name={self.name}", "--format=%i %T")
        except subprocess.TimeoutExpired:
            raise UserError("SLURM does not answer: squeue took too long.") from None
        if done.returncode:
            raise UserError(f"SLURM does not answer: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        pairs = [line.split() for line in done.stdout.splitlines() if line.strip()]
        return {id: state for id, state in pairs if state not in ENDED}

    def _pause(self) -> float:
        """A busy controller is not asked more often for more jobs."""
        return min(POLL_SECONDS + len(self._ids) / 100, 15.0)

    def _noted(self) -> set[str]:
        try:
            return set((self.folder / "jobs.txt").read_text(encoding="utf-8").split())
        except OSError:
            return set()

    def _end_older(self, ids: Sequence[str]) -> None:
        _heard("scancel", *ids)
        for _ in range(120):
            if not set(ids) & set(self._listed()):
                return
            time.sleep(1)
        raise UserError(f"SLURM does not end the jobs {', '.join(ids[:5])} of an earlier start: try again later.")

    def _where(self, id: str) -> str:
        return f"{id}, {self.folder.name}/{id.partition('_')[0]}"

    # -- when the sweep's own process is killed ---------------------------------------------------------------

    def _guard(self, ids: Sequence[str]) -> None:
        """A small process that cancels the jobs when this one is gone without having said so."""
        if not hasattr(self, "_guarded"):
            read, self._guarded = os.pipe()
            self._guard_pid = os.fork()
            if not self._guard_pid:
                _stand_guard(read, self._guarded)
            os.close(read)
        os.write(self._guarded, (" ".join(ids) + "\n").encode())


def _stand_guard(read: int, write: int) -> None:
    try:
        os.setsid()
        os.close(write)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # who reads the sweep's output does not wait for this process
            os.dup2(nowhere, stream)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with open(read, encoding="utf-8") as lines:
            words = lines.read().split()
        if words and words[-1] != "done":
            os.execvp("sh", ["sh", "-c", CANCEL, "sh", *words])
    finally:
        os._exit(0)


CANCEL = """
for _ in $(seq 3000); do  # some hours, while the controller is away
    squeue --noheader --me >/dev/null 2>&1 && exec scancel "$@"
    sleep 5
done
"""
ENDED = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


class SlurmJob:
    """What submitit calls on the node, and asks to save before the time is over."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self) -> int:
        from submitit.core.utils import UncompletedJobError

        try:
            return supervise(self.task)
        except UncompletedJobError:  # submitit's handler of the warning raises it here
            self._say("its time was over, launcher.max_requeues is used up")
            raise
        except subprocess.SubprocessError:
            self._say("its time was over, SLURM did not requeue it")
            raise

    def checkpoint(self, *arguments: Any) -> Any:
        """Let the job finish its step and save; submitit requeues it, and it goes on in the same folder."""
        import submitit

        pid = next(iter(_children()), None)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            for _ in range(600):
                if not is_alive({"host": socket.gethostname(), "pid": pid}):
                    break
                time.sleep(0.1)
        if self._status().get("state") in OVER:  # it had ended by itself when the warning came
            return None
        return submitit.helpers.DelayedSubmission(SlurmJob(self.task))

    def _status(self) -> dict[str, Any]:
        return read_json(Path(self.task.folder) / "status.json") or {}

    def _say(self, reason: str) -> None:
        """Leave word for the sweep of why the job was interrupted."""
        if (status := self._status()).get("state") == "interrupted":
            write_atomic(Path(self.task.folder) / "status.json", to_json_lines({**status, "reason": reason}))


def _children() -> list[int]:
    """The processes that this one has started."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)


def _heard(*words: str) -> bool:
    """Whether the controller heard it; a job that has just ended is no reason to complain."""
    try:
        return not _is_away(_command(*words).stderr)
    except subprocess.TimeoutExpired:
        return False


def _is_away(said: str) -> bool:
    return "Unable to contact slurm controller" in said or "Socket timed out" in said


def _last_line(error: Exception) -> str:
    text = str(getattr(error, "stderr", "") or error).strip()
    lines = [line for line in text.splitlines() if "error" in line.lower()] or text.splitlines()
    return lines[-1] if lines else "no reason given"
