"""Run jobs through SLURM: submitit submits them, squeue watches them, scancel ends them when the sweep ends or dies."""

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
from typing import TYPE_CHECKING

from dl_lab.runs.files import read_json, to_json, write_atomic
from dl_lab.runs.find import is_alive
from dl_lab.sweeps.backends.node import OVER, Task, supervise
from dl_lab.sweeps.backends.remote import ClusterAway
from dl_lab.types import UserError, count

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL_SECONDS = 1.0  # between two looks at the queue for a few jobs; `_pause` waits longer for many
COMMAND_SECONDS = 60.0  # until a command of SLURM counts as unanswered
CANCEL_SECONDS = 120  # until the jobs of an earlier start must be gone


class Slurm:
    """A SLURM cluster (`remote.Engine`). Each job is a job of its queue; jobs that are submitted together are an array.

    It needs no accounting (sacct): the run folder of a job says how the job ended.

    Args:
        partition: sbatch's partition.
        account: sbatch's account.
        qos: sbatch's quality of service.
        timeout_min: Minutes that a job may take. Then it saves and is queued again.
        max_requeues: How often a job is queued again.
        warning_s: Seconds before the timeout at which a job begins to save.
        cpus: CPU cores of each job.
        gpus: GPUs of each job.
        mem_gb: Memory of each job, in GiB.
        exclude: sbatch's nodes to avoid.
        options: Further options of sbatch, by name.

    Raises:
        ValueError: A number is too small, or `warning_s` is not shorter than the timeout.
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
        options: Mapping[str, object] | None = None,
    ) -> None:
        if timeout_min < 1 or cpus < 1 or gpus < 0 or mem_gb <= 0:
            raise ValueError("timeout_min and cpus must be at least 1, gpus at least 0, mem_gb above 0")
        if not 0 <= warning_s < 60 * timeout_min:
            raise ValueError("warning_s must be shorter than timeout_min: a job would have to save as it starts")
        self.cpus = cpus
        self.max_requeues = max_requeues
        self.parameters: dict[str, object] = {
            "time": timeout_min,
            "cpus_per_task": cpus,
            "mem": f"{round(mem_gb * 1024)}MB",
            "ntasks_per_node": 1,
            "nodes": 1,
            "signal_delay_s": warning_s,
            "stderr_to_stdout": True,
        }
        if gpus:
            self.parameters["gpus_per_node"] = gpus
        named = {"partition": partition, "account": account, "qos": qos, "exclude": exclude}
        self.parameters |= {name: value for name, value in named.items() if value is not None}
        self.options = dict(options or {})
        self._ids: dict[int, str] = {}  # job -> SLURM's id ("12" or "12_3"), for jobs that have not ended
        self._looked = 0.0  # when the queue was last looked at
        self._missed_stop: bool | None = None  # `kill` of a `stop` that the controller did not hear
        self._guard_pipe: int | None = None
        self._guard_pid = 0
        self.trouble = ""

    def open(self, folder: Path, name: str) -> str:
        """Check that SLURM is here, and cancel the jobs that an earlier start of this sweep left in its queue."""
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError("launcher=slurm needs submitit: pip install 'dl-lab[slurm]'.") from None
        for command in ("sbatch", "squeue", "scancel", "srun"):
            if shutil.which(command) is None:
                raise UserError(f"launcher=slurm: there is no {command} here; start it where SLURM's commands are.")
        self.folder = folder.resolve() / "slurm"
        self.name = f"dl-lab_{name}"
        recorded = self._read_ids()
        left = [id for id in self._list_queue() if id in recorded]
        if not left:
            return ""
        self._cancel_older(left)
        cancelled = count(len(left), "job")
        return f"Cancelled {cancelled} of an earlier start in the queue. Work continues from the last checkpoints."

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue jobs as one array, and let the guard watch over them."""
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
        with open(self.folder / "jobs.txt", "a", encoding="utf-8") as file:  # the next start of a killed sweep reads it
            file.writelines(f"{id}\n" for id in new.values())
        self._guard(sorted({id.partition("_")[0] for id in new.values()}))

    def find_ended(self) -> dict[int, str]:
        """Find the jobs that left the queue, and where SLURM's log of each lies."""
        time.sleep(max(0.0, self._pause() - (time.monotonic() - self._looked)))
        self._looked = time.monotonic()
        try:
            queued = self._list_queue()
        except UserError as error:  # the controller is away or busy; the jobs keep running
            if self._missed_stop:
                raise UserError(
                    "SLURM does not answer. A process of this sweep waits to cancel its jobs as soon as SLURM answers; "
                    "then type the same command again to run what is left."
                ) from None
            self.trouble = str(error)
            time.sleep(POLL_SECONDS)
            return {}
        self.trouble = ""
        if self._missed_stop is not None:
            self.stop(self._missed_stop)
        ended = {}
        for job, id in list(self._ids.items()):
            if id not in queued:
                del self._ids[job]
                ended[job] = f"SLURM job {id}, {self.folder.name}/{id.partition('_')[0]}"
        return ended

    def stop(self, kill: bool) -> None:
        """Cancel the queued jobs. Ask the running ones to save and end, or kill them."""
        ids = list(self._ids.values())
        if not ids:
            return
        if kill:
            is_heard = _tell("scancel", *ids)
        else:
            is_heard = _tell("scancel", "--state=PENDING", *ids)
            is_heard = is_heard and _tell("scancel", "--signal=TERM", "--state=RUNNING", *ids)
        self._missed_stop = None if is_heard else kill

    def close(self) -> None:
        """Cancel all jobs. Where the controller is away, the guard outlives this process and cancels them later."""
        if self._ids and (self._missed_stop or not _tell("scancel", *self._ids.values())):
            return
        if self._guard_pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._guard_pipe, b"done\n")
                os.close(self._guard_pipe)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._guard_pid, 0)
            self._guard_pipe = None

    # -- the queue --------------------------------------------------------------------------------------------

    def _list_queue(self) -> list[str]:
        """List the ids of this sweep's jobs that are queued or running, each job of an array by itself.

        Jobs are found by the sweep's name: a controller that lost its state gives old ids to other jobs.
        """
        try:
            done = _run("squeue", "--noheader", "--array", "--me", f"--name={self.name}", "--format=%i %T")
        except subprocess.TimeoutExpired:
            raise UserError("SLURM does not answer: squeue took too long.") from None
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"SLURM does not answer: {reason}")
        ids = []
        for line in done.stdout.splitlines():
            if line.strip():
                id, state = line.split()
                if state not in ENDED:
                    ids.append(id)
        return ids

    def _pause(self) -> float:
        """Return the seconds between two looks: more for many jobs, which cost the controller more."""
        return min(POLL_SECONDS + len(self._ids) / 100, 15.0)

    def _read_ids(self) -> set[str]:
        """Read the ids of all jobs that this sweep ever submitted."""
        try:
            return set((self.folder / "jobs.txt").read_text(encoding="utf-8").split())
        except OSError:
            return set()

    def _cancel_older(self, ids: Sequence[str]) -> None:
        """Cancel the jobs of an earlier start, and wait until they are gone."""
        _tell("scancel", *ids)
        for _ in range(CANCEL_SECONDS):
            if not set(ids) & set(self._list_queue()):
                return
            time.sleep(1)
        raise UserError(f"SLURM does not end the jobs {', '.join(ids[:5])} of an earlier start: try again later.")

    # -- when the sweep's own process is killed ---------------------------------------------------------------

    def _guard(self, ids: Sequence[str]) -> None:
        """Let the guard watch over jobs: a small process that cancels them when this one is killed."""
        if self._guard_pipe is None:
            read, self._guard_pipe = os.pipe()
            self._guard_pid = os.fork()
            if not self._guard_pid:
                _stand_guard(read, self._guard_pipe)
            os.close(read)
        os.write(self._guard_pipe, (" ".join(ids) + "\n").encode())


def _stand_guard(read: int, write: int) -> None:
    """Wait for the end of the sweep's process, then cancel its jobs unless it said that it is done.

    The kernel closes the pipe when the process ends, however it ends.
    """
    try:
        os.setsid()
        os.close(write)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # else a program that reads the sweep's output would wait for this process
            os.dup2(nowhere, stream)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with open(read, encoding="utf-8") as lines:
            words = lines.read().split()
        if words and words[-1] != "done":
            os.execvp("sh", ["sh", "-c", CANCEL, "sh", *words])
    finally:
        os._exit(0)  # this process must never run the code above the fork


CANCEL = """
for _ in $(seq 3000); do  # some hours, while the controller is away
    squeue --noheader --me >/dev/null 2>&1 && exec scancel "$@"
    sleep 5
done
"""
ENDED = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


class SlurmJob:
    """A job as submitit runs it on a node. submitit calls `checkpoint` before the job's time is over.

    Args:
        task: The job.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self) -> int:
        """Run the job; return its exit status."""
        from submitit.core.utils import UncompletedJobError

        try:
            return supervise(self.task)
        except UncompletedJobError:  # submitit's handler of the warning raises it here
            self._record_reason("its time was over, launcher.max_requeues is used up")
            raise
        except subprocess.SubprocessError:  # scontrol, which submitit calls to queue the job again
            self._record_reason("its time was over, SLURM did not requeue it")
            raise

    def checkpoint(self, *arguments: object) -> DelayedSubmission | None:
        """Let the job finish its step and save. Then submitit queues it again, and it continues in the same folder."""
        import submitit

        pid = _find_child()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            for _ in range(600):
                if not is_alive({"host": socket.gethostname(), "pid": pid}):
                    break
                time.sleep(0.1)
        status = read_json(self._status_file) or {}
        if status.get("state") in OVER:  # the job had ended by itself when the warning came
            return None
        return submitit.helpers.DelayedSubmission(SlurmJob(self.task))

    @property
    def _status_file(self) -> Path:
        return Path(self.task.folder) / "status.json"

    def _record_reason(self, reason: str) -> None:
        """Record why the job was interrupted, for the sweep to show."""
        status = read_json(self._status_file) or {}
        if status.get("state") == "interrupted":
            write_atomic(self._status_file, to_json({**status, "reason": reason}, indent=1))


def _find_child() -> int | None:
    """Find the process that this one started."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)


def _tell(*words: str) -> bool:
    """Run a command of SLURM; return whether the controller heard it. Other errors (a job just ended) do not matter."""
    try:
        return not _is_away(_run(*words).stderr)
    except subprocess.TimeoutExpired:
        return False


def _is_away(errors: str) -> bool:
    """Whether a command's error says that the controller does not answer."""
    return "Unable to contact slurm controller" in errors or "Socket timed out" in errors


def _last_line(error: Exception) -> str:
    """Return the last line of a command's error that speaks of an error, else its last line."""
    text = str(getattr(error, "stderr", "") or error).strip()
    lines = [line for line in text.splitlines() if "error" in line.lower()] or text.splitlines()
    return lines[-1] if lines else "no reason given"
