"""Jobs in parallel on one machine: lanes, each a slot of a server process that forks children for the jobs.

A server imports torch and the data once, before any job, and stays free of threads and CUDA contexts, so that a
fork is a clean start. On the CPU a child whose job was short takes the next one (`_Children`). There is one server
per GPU (its CUDA_VISIBLE_DEVICES is set before torch loads), or one for all lanes of the CPU. Servers lie in
sessions of their own: Ctrl-C reaches the sweep alone, which asks its jobs to stop. When a process of the sweep is
killed, the kernel takes everything below it along.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dl_lab.types import Interrupted, Pruned, UserError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GRACE_SECONDS = 60.0
FORK_SECONDS = 0.05  # to fork a child and for its first job to find everything cold
MOST_LANES_PER_GPU = 8
REUSE_SECONDS = 10.0  # of work, after which a child's 20 ms of fork and exit no longer count
MEMORY_SHARE = 0.9  # of a GPU's memory that its jobs together may take

Event = dict[str, Any]  # {"job": 3, "event": "progress", ...} as a job sends them
Prepare = Callable[[Mapping[str, Any]], None]  # runs in the server, once with {} and once for each `Server.prepare`
Work = Callable[[int, Mapping[str, Any], Callable[[Event], None]], int]  # (job, orders, send) -> exit status


NextJob = Callable[[], tuple[int, Mapping[str, Any]] | None]  # (job, orders); None: there is none (now)
ASKED = -1  # and below: numbers of what is not a job
NOT_FAILED = (0, Interrupted.exit_code, Pruned.exit_code)


def no_more() -> None:
    """All jobs were known from the start."""


@dataclass(frozen=True)
class Layout:
    """How many lanes, on what: one server per device, `slots` jobs each at a time, `threads` CPU threads a job."""

    devices: tuple[str, ...]  # "" for the CPU, else what CUDA_VISIBLE_DEVICES becomes
    slots: int
    threads: int
    may_grow: bool = False  # more jobs per GPU once the first one's memory is known


def plan_layout(lanes: str | int, device: str, threads: int | None) -> Layout:
    """lanes=auto: one per GPU, growing with the measured memory; without a GPU one per core."""
    gpus = [] if device == "cpu" else visible_gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if lanes != "auto" and (not str(lanes).isdigit() or int(lanes) < 1):
        raise UserError(f"lanes={lanes} is neither auto nor a number of at least 1.")
    if gpus:
        n = len(gpus) if lanes == "auto" else int(lanes)
        devices, slots = tuple(gpus[:n]), max(1, -(-n // len(gpus)))
    else:
        n = cores if lanes == "auto" else int(lanes)
        devices, slots = ("",), n
    return Layout(devices, slots, threads or max(1, cores // n), may_grow=bool(gpus) and lanes == "auto")


def visible_gpus() -> list[str]:
    """The GPUs of this machine without importing torch: CUDA_VISIBLE_DEVICES, else what nvidia-smi lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
        return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]
    return []


def set_threads(n: int) -> None:
    """What torch and its libraries read when they load; torch.set_num_threads afterwards."""
    os.environ.update({name: str(n) for name in THREAD_VARIABLES})


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# -- the server: forks children for the jobs ------------------------------------------------------------------------


class Server:
    """A process that forks children on command; `prepare` runs in it once, `work` in each child."""

    def __init__(self, device: str, prepare: Prepare, work: Work) -> None:
        self.device, self.running, self.slots = device, set[int](), 1
        command_read, self._commands = os.pipe()
        self.events, event_write = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            os.close(command_read)
            os.close(event_write)
            os.set_inheritable(self._commands, False)
            self._buffer = b""
            return
        try:
            os.close(self._commands)
            os.close(self.events)
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            os.setsid()
            _serve(device, prepare, work, command_read, event_write)
        finally:
            os._exit(1)

    def start(self, job: int, orders: Mapping[str, Any]) -> None:
        """Give it a job to begin, or (`slots` in the orders) to hold until fewer run."""
        self.running.add(job)
        self._send({"start": job, **orders})

    def jobs(self) -> list[int]:
        """What it was given and has not ended, without what it was asked."""
        return sorted(job for job in self.running if job > ASKED)

    def prepare(self, orders: Mapping[str, Any]) -> None:
        self._send({"prepare": orders})

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to all running jobs."""
        self._send({"signal": number})

    def _send(self, command: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            _write_all(self._commands, (json.dumps(command) + "\n").encode())

    def read(self) -> list[Event] | None:
        """The events that have come; None once the server is gone."""
        chunk = os.read(self.events, 1 << 16)
        if not chunk:
            return None
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def kill(self) -> None:
        """Let it end; `close` waits until it has: freeing its memory takes 20 ms."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the server at once, and whatever still runs in it."""
        self.kill()
        for descriptor in (self._commands, self.events):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(device: str, prepare: Prepare, work: Work, commands: int, events: int) -> None:
    set_threads(1)  # a server must be free of threads; its children have their own number
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(*told: Event) -> None:  # one write below PIPE_BUF: lines of several children do not mix
        with contextlib.suppress(BrokenPipeError):  # the sweep was killed: so is this process, any moment now
            os.write(events, "".join(json.dumps(event) + "\n" for event in told).encode())

    prepare({})
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children = _Children(prepare, work, send, 0.0 if device else REUSE_SECONDS, (commands, woken, waker))
    buffer, open_ended = b"", True
    while open_ended or children.busy:
        ready, _, _ = select.select([woken, children.idle, *([commands] if open_ended else [])], [], [], 1.0)
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        children.take_reports()
        if commands in ready:
            chunk = os.read(commands, 1 << 16)
            open_ended = bool(chunk)
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                command = json.loads(line)
                if "prepare" in command:
                    children.prepare_more(command["prepare"], line)
                elif "signal" in command:
                    children.signal(command["signal"])
                else:
                    children.start(command, line)
    os._exit(0)


@dataclass
class _Children:
    """The children of a server: those at work, and those that wait for another job after a short one.

    A fork and the exit of a process as large as torch's cost 20 ms, and every page that the child then touches is
    copied once more: a child whose job was short and ended well takes the next one. One that failed, was
    interrupted or has worked for `reuse_seconds` is not used again. Nor is one that lacks what the server has prepared
    since, unless that is sooner done again than a process forked and warmed up.
    """

    prepare: Prepare
    work: Work
    send: Callable[..., None]
    reuse_seconds: float
    mine: Sequence[int]  # descriptors of the server that a child must not hold
    busy: dict[int, int] = field(default_factory=dict)  # pid -> job
    waiting: dict[int, int] = field(default_factory=dict)  # pid -> the descriptor its next orders are written to
    held: deque[tuple[dict[str, Any], bytes]] = field(default_factory=deque)  # orders that wait for a slot

    def __post_init__(self) -> None:
        self.idle, self._report = os.pipe()  # a child writes its pid when it wants another job
        os.set_blocking(self.idle, False)
        self._orders: dict[int, int] = {}
        self._outdated: set[int] = set()
        self._behind: dict[int, bytes] = {}  # lines that a busy child has to read before its next job

    def start(self, command: dict[str, Any], line: bytes) -> None:
        """Begin a job, or hold it while `slots` are busy."""
        self.held.append((command, line))
        self._begin_held()

    def _begin_held(self, *before: Event) -> None:
        """Begin what is held while there are slots, then tell of it; before: what happened before it.

        In this order: the process that is told would else take the core that the job needs.
        """
        begun: list[Event] = []
        while self.held and len(self.busy) < self.held[0][0].get("slots", math.inf):
            command, line = self.held.popleft()
            self._begin(command, line)
            begun.append({"event": "start", "job": command["start"]})
        if told := [*before, *begun]:
            self.send(*told)

    def _dropped(self) -> list[int]:
        """The jobs that were held, which are not any more."""
        jobs = [command["start"] for command, _ in self.held]
        self.held.clear()
        return jobs

    def _begin(self, command: Mapping[str, Any], line: bytes) -> None:
        """Give a job to a child that waits, else to a new one."""
        while self.waiting:
            pid, orders = self.waiting.popitem()
            with contextlib.suppress(BrokenPipeError):
                _write_all(orders, line + b"\n")
                self.busy[pid] = command["start"]
                return
        self._fork(command)

    def prepare_more(self, orders: Mapping[str, Any], line: bytes) -> None:
        """Prepare in the server what the next jobs need."""
        began = time.monotonic()
        self.prepare(orders)
        if time.monotonic() - began > FORK_SECONDS:
            self.dismiss()
            self._outdated.update(self.busy)
        for pid in self.busy:
            self._behind[pid] = self._behind.get(pid, b"") + line + b"\n"
        for pid in self.waiting:
            self._catch_up(pid, line + b"\n")

    def _catch_up(self, pid: int, lines: bytes) -> None:
        """Let a child that waits prepare what the server has prepared meanwhile."""
        with contextlib.suppress(BrokenPipeError):
            _write_all(self.waiting[pid], lines)

    def signal(self, number: int) -> None:
        self.send({"event": "stopping", "dropped": self._dropped()})
        self.dismiss()
        for pid in self.busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def dismiss(self) -> None:
        """Let the waiting children end."""
        for pid in list(self.waiting):
            self._end(pid)

    def _end(self, pid: int) -> None:
        os.close(self.waiting.pop(pid))
        del self._orders[pid]

    def take_reports(self) -> None:
        """Pass on which jobs have ended, and begin what was held for their slots.

        After one that did not end well, what was held goes back: perhaps nothing more is to begin.
        """
        with contextlib.suppress(BlockingIOError):
            for pid in map(int, os.read(self.idle, 1 << 16).split()):
                if pid in self.busy:
                    job = self.busy.pop(pid)
                    self.waiting[pid] = self._orders[pid]
                    if pid in self._outdated:
                        self._end(pid)
                    elif pid in self._behind:
                        self._catch_up(pid, self._behind.pop(pid))
                    self._begin_held({"event": "exit", "job": job, "status": 0})
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                job = self.busy.pop(pid, None)
                self.waiting.pop(pid, None)
                self._outdated.discard(pid)
                self._behind.pop(pid, None)
                if pid in self._orders:
                    os.close(self._orders.pop(pid))
                if job is not None:
                    code = os.waitstatus_to_exitcode(status)
                    dropped = self._dropped() if code else []
                    self._begin_held({"event": "exit", "job": job, "status": code, "dropped": dropped})

    def _fork(self, first: Mapping[str, Any]) -> None:
        server = os.getpid()
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(read)
            self._orders[pid], self.busy[pid] = write, first["start"]
            return
        status = 1
        try:
            die_with_parent()
            if os.getppid() == server:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (*self.mine, self.idle, write, *self._orders.values()):
                    os.close(descriptor)
                began = time.monotonic()
                with open(read, encoding="utf-8") as orders:
                    for command in itertools.chain([first], map(json.loads, orders)):
                        if "prepare" in command:
                            self.prepare(command["prepare"])
                            continue
                        status = self.work(command["start"], command, self.send)
                        signal.signal(signal.SIGTERM, signal.SIG_DFL)
                        if status != 0 or time.monotonic() - began > self.reuse_seconds:
                            break
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os.write(self._report, f"{os.getpid()}\n".encode())
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


# -- the schedule -------------------------------------------------------------------------------------------------


@dataclass
class _Jobs:
    """Where the jobs of one `Schedule.run` are."""

    waiting: list[int]
    orders: dict[int, Mapping[str, Any]]
    lanes: dict[int, int] = field(default_factory=dict)  # of those that have begun
    statuses: dict[int, int] = field(default_factory=dict)  # of those that ended
    lost: dict[int, int] = field(default_factory=dict)  # how often its server was killed
    beside: set[int] = field(default_factory=set)  # others may run on its GPU
    alone: set[int] = field(default_factory=set)  # ran out of memory beside others: now by itself


@dataclass
class Schedule:
    """Runs jobs over lanes until all are done, one fails with on_failure=stop, or the user interrupts.

    `observe(event)` is told everything: start, progress, exit (with status and, for a lost server, lost=True).
    `next_job()` is asked for a further job when a lane is free and no job waits (a search has them one by one).
    Exit statuses of jobs: 0 done, 130 interrupted, 76 pruned, OUT_OF_MEMORY, anything else failed.
    """

    layout: Layout
    prepare: Prepare
    work: Work
    observe: Callable[[Event], None] = lambda event: None
    stop_on_failure: bool = False
    next_job: NextJob = no_more
    servers: list[Server] = field(default_factory=list)
    _untold: deque[Event] = field(default_factory=deque)

    OUT_OF_MEMORY = 75

    @property
    def threads(self) -> int:
        """CPU threads of each job."""
        return self.layout.threads

    def open(self) -> None:
        """Start the servers of the layout that do not run yet; they import and load while the caller goes on."""
        ready = {server.device: server for server in self.servers}
        self.servers = [ready.pop(device, None) or self._server(device) for device in self.layout.devices]
        for server in ready.values():
            server.close()

    def _server(self, device: str) -> Server:
        return Server(device, self.prepare, self.work)

    def ask(self, questions: Sequence[Mapping[str, Any]], meanwhile: Mapping[str, Any]) -> list[Event]:
        """Give each question (orders) to a child of the first server; the one event that each of them sends.

        meanwhile: what all servers prepare while the children are at it.
        """
        server, answers = self.servers[0], dict[int, Event]()
        for number, question in enumerate(questions):
            server.start(ASKED - number, question)
        for each in self.servers:
            each.prepare(meanwhile)
        while len(answers) < len(questions):
            events = server.read()
            if events is None:
                raise UserError("A process of the sweep was killed while the jobs were checked.")
            for event in events:
                if event["event"] != "start":
                    answers.setdefault(event["job"], event)
                if event["event"] == "exit":
                    server.running.discard(event["job"])
        return list(answers.values())

    def run(self, numbers: Sequence[int], orders: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
        """Job -> exit status, for every job that ended; those never started are left out."""
        jobs = _Jobs(list(numbers), dict(orders))
        for server in self.servers:
            server.slots = self.layout.slots
        interrupts, stopping_since = 0, 0.0
        with stop_signals() as asked:
            while self._goes_on(jobs, bool(stopping_since)):
                if asked.count > interrupts:
                    interrupts = asked.count
                    self._stop(signal.SIGTERM if interrupts == 1 else signal.SIGKILL)
                    stopping_since = stopping_since or time.monotonic()
                    self._tell({"event": "stopping"})
                if stopping_since and time.monotonic() - stopping_since > GRACE_SECONDS:
                    self._stop(signal.SIGKILL)
                if not stopping_since:
                    for server in self.servers:
                        self._fill(server, jobs)
                for server, event in self._events():
                    self._take(server, event, jobs)
        self._tell_all()
        self._end()
        return jobs.statuses

    def _goes_on(self, jobs: _Jobs, stopping: bool) -> bool:
        """Whether a job runs or may start; fetches further jobs for the free lanes."""
        if stopping:
            return bool(jobs.lanes)
        free = sum(max(0, server.slots - len(server.running)) for server in self.servers)
        while len(jobs.waiting) < free:
            self._tell_all()  # what is next may depend on it
            if (new := self.next_job()) is None:
                break
            jobs.waiting.append(new[0])
            jobs.orders[new[0]] = new[1]
        return bool(jobs.waiting) or any(server.running for server in self.servers)

    def _fill(self, server: Server, jobs: _Jobs) -> None:
        """Give a server's free slots to waiting jobs; one that must be alone waits for an empty server.

        A server of the CPU gets as many again, which it begins by itself, so that no lane waits for this process.
        """
        slots = server.slots
        while jobs.waiting and len(server.running) < (slots if server.device else 2 * slots):
            job = jobs.waiting[0]
            if (job in jobs.alone and server.running) or any(j in jobs.alone for j in server.running):
                return
            jobs.waiting.pop(0)
            if server.device and slots > 1:
                (jobs.beside.discard if job in jobs.alone else jobs.beside.add)(job)
            server.start(job, {**jobs.orders.get(job, {}), "solo": job not in jobs.beside, "slots": slots})

    def _take(self, server: Server, event: Event, jobs: _Jobs) -> None:
        """Take in what a server has sent."""
        for job in reversed(event.pop("dropped", [])):
            server.running.discard(job)
            jobs.waiting.insert(0, job)
        if event["event"] == "lost":
            self._replace(server, jobs)
        elif event["event"] == "memory" and self.layout.may_grow:
            server.slots = _slots_for(event)
        elif event["event"] == "start":
            jobs.lanes[event["job"]] = lane = min(set(range(len(jobs.lanes) + 1)) - set(jobs.lanes.values()))
            self._tell({**event, "lane": lane, "device": server.device})
        elif event["event"] == "exit":
            self._take_exit(server, event, jobs)
        elif "job" in event:
            self._tell({**event, "lane": jobs.lanes.get(event["job"], 0)})

    def _take_exit(self, server: Server, event: Event, jobs: _Jobs) -> None:
        job, status = event["job"], event["status"]
        server.running.discard(job)
        lane = jobs.lanes.pop(job)
        if status == self.OUT_OF_MEMORY and job in jobs.beside:
            jobs.alone.add(job)
            jobs.waiting.insert(0, job)
            self._tell({"event": "alone", "job": job, "lane": lane})
            return
        jobs.statuses[job] = status
        if self.stop_on_failure and status not in NOT_FAILED:
            jobs.waiting.clear()
            self.next_job = no_more
        self._tell({**event, "lane": lane})

    def _tell(self, event: Event) -> None:
        self._untold.append(event)

    def _tell_all(self) -> None:
        while self._untold:
            self.observe(self._untold.popleft())

    def _events(self) -> Iterator[tuple[Server, Event]]:
        """What has come from the servers; while nothing comes, `observe` is told of what came before.

        In this order, because results are read and shown in a millisecond or more, in which a lane would wait.
        """
        by_descriptor = {server.events: server for server in self.servers}
        ready, _, _ = select.select(list(by_descriptor), [], [], 0 if self._untold else 0.2)
        if not ready and self._untold:
            self.observe(self._untold.popleft())
        for descriptor in ready:
            server = by_descriptor[descriptor]
            events = server.read()
            if events is None:
                yield server, {"event": "lost"}
                continue
            for event in events:
                if event.get("job", 0) > ASKED:
                    yield server, event
                elif event["event"] == "exit":  # what was asked before the jobs
                    server.running.discard(event["job"])

    def _replace(self, server: Server, jobs: _Jobs) -> None:
        """A server was killed, and its jobs with it: those that had begun get a second try on a new one."""
        server.close()
        new = self._server(server.device)
        new.slots = server.slots
        self.servers[self.servers.index(server)] = new
        for job in reversed(server.jobs()):
            if job not in jobs.lanes:
                jobs.waiting.insert(0, job)
                continue
            lane, again = jobs.lanes.pop(job), jobs.lost.get(job, 0) < 1
            jobs.lost[job] = jobs.lost.get(job, 0) + 1
            if again:
                jobs.waiting.insert(0, job)
            else:
                jobs.statuses[job] = -signal.SIGKILL
            self._tell({"event": "lost", "job": job, "lane": lane, "again": again})

    def _stop(self, number: int) -> None:
        for server in self.servers:
            server.stop(number)

    def _end(self) -> None:
        for server in self.servers:
            server.kill()

    def close(self) -> None:
        """End the servers; jobs that still run end with them."""
        for server in self.servers:
            server.close()
        self.servers = []


def _slots_for(event: Event) -> int:
    """How many jobs with this measured peak fit a GPU."""
    return max(1, min(MOST_LANES_PER_GPU, int(MEMORY_SHARE * event["total_bytes"] // max(event["peak_bytes"], 1))))


@dataclass
class _Asked:
    count: int = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[_Asked]:
    """Counts how often the user (or the system) asked to stop."""
    asked = _Asked()

    def ask(signum: int, frame: Any) -> None:
        asked.count += 1

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
