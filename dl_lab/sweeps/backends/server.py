"""A server: a process that imports torch and loads the data once, and forks children that do the work.

Forking and ending a process as large as torch's takes 20 ms, and the child copies every page of memory that it writes
to. So a child whose job was short takes the next one. A child that failed, was interrupted, or lacks newly loaded data
is replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dl_lab.sweeps.backends.layout import set_threads
from dl_lab.sweeps.backends.protocol import (
    JOB_EVENTS,
    ORDERS,
    TASKS,
    Exited,
    JobEvent,
    Order,
    Prepare,
    PrepareServer,
    RunJob,
    Signal,
    Started,
    Task,
    Work,
    from_line,
    to_line,
)

REUSE_SECONDS = 10.0  # a child that has worked longer is not used again: the cost of a fork no longer counts
READ_BYTES = 1 << 16


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL)


class Server:
    """The sweep's side of a server process. The constructor forks the server.

    Args:
        device: What CUDA_VISIBLE_DEVICES is for its jobs; "" for the CPU.
        prepare: Runs in the server, at its start and for every order to prepare.
        work: Runs in the children, for every job.

    Attributes:
        running: The jobs that it was given and that have not ended.
        slots: How many jobs it may have at a time.
        events: The descriptor from which its events are read.
        pid: Its process.
    """

    def __init__(self, device: str, prepare: PrepareServer, work: Work) -> None:
        self.device = device
        self.running: set[int] = set()
        self.slots = 1
        self._buffer = b""
        commands, self._commands = os.pipe()
        self.events, events = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            os.close(commands)
            os.close(events)
            os.set_inheritable(self._commands, False)
            return
        try:
            os.close(self._commands)
            os.close(self.events)
            die_with_parent()
            # A parent that died before the line above would never be noticed.
            if os.getppid() == parent:
                os.setsid()  # Ctrl-C must reach the sweep's process only
                _serve(device, prepare, work, commands, events)
        finally:
            os._exit(1)  # this process must never run the code above the fork

    def start(self, task: Task) -> None:
        """Give a task to one of the server's children."""
        if isinstance(task, RunJob):
            self.running.add(task.job)
        self.send(task)

    def send(self, order: Order) -> None:
        """Send an order. An order to a killed server is lost; `read` tells that the server is gone."""
        with contextlib.suppress(BrokenPipeError):
            _write_all(self._commands, to_line(order))

    def read(self) -> list[JobEvent] | None:
        """Return the events that have come; None once the server is gone."""
        chunk = os.read(self.events, READ_BYTES)
        if not chunk:
            return None
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")  # the last line may be incomplete
        return [from_line(line, JOB_EVENTS) for line in lines]

    def kill(self) -> None:
        """Kill the server without waiting until it is gone: the kernel needs 20 ms to free its memory."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the server and what still runs in it, and wait until it is gone."""
        self.kill()
        for descriptor in (self._commands, self.events):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(device: str, prepare: PrepareServer, work: Work, commands: int, events: int) -> None:
    """Take orders in the server's process until the sweep closes their pipe and no child works."""
    set_threads(1)  # a fork copies no other threads, so a server has none; its children have their own number
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare(Prepare())
    # A child that ends sends SIGCHLD. Its handler does nothing, but Python writes a byte into this pipe, which wakes
    # the `select` below. Without the pipe, a child that ends just before `select` would go unnoticed for a second.
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # On a GPU no child is used again: its CUDA context would keep memory that other jobs need.
    reuse_seconds = 0.0 if device else REUSE_SECONDS
    children = _Children(work, events, reuse_seconds, (commands, woken, waker))
    buffer = b""
    is_open = True
    while is_open or children.is_working():
        sources = [woken, children.reports]
        if is_open:
            sources.append(commands)
        ready, _, _ = select.select(sources, [], [], 1.0)
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, READ_BYTES)
        children.take_reports()
        children.reap()
        if commands not in ready:
            continue
        chunk = os.read(commands, READ_BYTES)
        is_open = bool(chunk)
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            order = from_line(line, ORDERS)
            if isinstance(order, Prepare):
                prepare(order)
                children.retire()
            elif isinstance(order, Signal):
                children.signal(order.number)
            else:
                children.start(order)
    os._exit(0)


@dataclass
class _Child:
    """A child of the server.

    Attributes:
        orders: The descriptor to which its tasks are written; -1 once it is closed.
        job: The job that it works on; None while it waits for one.
        reusable: It may take another task.
    """

    orders: int
    job: int | None
    reusable: bool = True


@dataclass
class _Children:
    """The children of a server.

    Args:
        work: Runs in them, for every task.
        events: The descriptor to which events for the sweep are written.
        reuse_seconds: A child that worked longer is not used again.
        of_the_server: Descriptors of the server that a child must close: a pipe ends only when nobody holds it.
        by_pid: The children, by their process.
    """

    work: Work
    events: int
    reuse_seconds: float
    of_the_server: Sequence[int]
    by_pid: dict[int, _Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reports, self._report = os.pipe()  # a child writes its pid here when its task succeeded
        os.set_blocking(self.reports, False)

    def is_working(self) -> bool:
        """Whether a child works."""
        return any(child.job is not None for child in self.by_pid.values())

    def start(self, task: Task) -> None:
        """Give a task to a child that waits, else to a new one."""
        if not self._reuse(task):
            self._fork(task)
        self._send(Started(task.job))

    def _reuse(self, task: Task) -> bool:
        """Give a task to a child that waits; return whether there was one."""
        for child in self.by_pid.values():
            if child.job is None and child.reusable:
                child.job = task.job
                with contextlib.suppress(BrokenPipeError):
                    _write_all(child.orders, to_line(task))
                    return True
                # The child is ending: `reap` will remove it.
                child.job = None
                child.reusable = False
        return False

    def retire(self) -> None:
        """Use no child again, because all of them lack newly loaded data. Those that work finish their task."""
        for child in self.by_pid.values():
            child.reusable = False
            if child.job is None:
                self._dismiss(child)

    def signal(self, number: int) -> None:
        """Send a signal to the children that work. The others end."""
        for pid, child in self.by_pid.items():
            if child.job is None:
                self._dismiss(child)
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def take_reports(self) -> None:
        """Tell the sweep which tasks succeeded. Their children wait for another task."""
        try:
            reports = os.read(self.reports, READ_BYTES)
        except BlockingIOError:
            return
        for pid in map(int, reports.split()):
            child = self.by_pid.get(pid)
            if child is None or child.job is None:
                continue
            job = child.job
            child.job = None
            if not child.reusable:
                self._dismiss(child)
            self._send(Exited(job, 0))

    def reap(self) -> None:
        """Remove the children that ended, and tell the sweep how their tasks ended."""
        with contextlib.suppress(ChildProcessError):  # the server has no children
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                child = self.by_pid.pop(pid)
                self._dismiss(child)
                if child.job is not None:
                    self._send(Exited(child.job, os.waitstatus_to_exitcode(status)))

    def _dismiss(self, child: _Child) -> None:
        """Let a child end: it exits at the end of its orders."""
        child.reusable = False
        if child.orders >= 0:
            os.close(child.orders)
            child.orders = -1

    def _send(self, event: JobEvent) -> None:
        """Send an event to the sweep.

        Each event is one write of less than PIPE_BUF bytes: the lines of several children do not mix.
        """
        with contextlib.suppress(BrokenPipeError):  # the sweep was killed, and the kernel is about to kill this process
            os.write(self.events, to_line(event))

    def _fork(self, task: Task) -> None:
        """Fork a child, which begins with a task."""
        server = os.getpid()
        orders, orders_of_child = os.pipe()
        pid = os.fork()
        if pid:
            os.close(orders)
            self.by_pid[pid] = _Child(orders_of_child, task.job)
            return
        status = 1
        try:
            die_with_parent()
            if os.getppid() == server:  # else the server died before the line above
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # The fork copied all descriptors of the server; a pipe ends only when nobody holds it.
                others = [child.orders for child in self.by_pid.values() if child.orders >= 0]
                for descriptor in (*self.of_the_server, self.reports, orders_of_child, *others):
                    os.close(descriptor)
                status = self._work_on(task, orders)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _work_on(self, first: Task, orders: int) -> int:
        """In a child: do one task after the other; return the exit status of the last one."""
        began = time.monotonic()
        status = 0
        for task in _read_tasks(first, orders):
            status = self.work(task, self._send)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a child that waits for a task may simply end
            if status != 0 or time.monotonic() - began > self.reuse_seconds:
                break
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(self._report, f"{os.getpid()}\n".encode())
        return status


def _read_tasks(first: Task, orders: int) -> Iterator[Task]:
    """Yield the first task, then those that come through the pipe until it ends."""
    yield first
    with open(orders, encoding="utf-8") as lines:
        for line in lines:
            yield from_line(line, TASKS)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes: a single `os.write` may write only some of them."""
    while data:
        n_written = os.write(descriptor, data)
        data = data[n_written:]
