"""Run jobs in parallel on one machine. Each lane is a slot of a server process, which forks children for the jobs.

A server imports torch and loads the data once, before any job. It starts no threads and no CUDA context, so that a fork
is a clean start. There is one server for each GPU (its CUDA_VISIBLE_DEVICES is set before torch loads), or one for all
lanes of the CPU. Each server has a session of its own, so that Ctrl-C reaches only the sweep's process, which asks the
jobs to stop. When a process of the sweep is killed, the kernel kills everything below it.
"""

from __future__ import annotations

import select
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from dl_lab.stopping import GRACE_SECONDS, count_stop_signals
from dl_lab.sweeps.backends.layout import MOST_LANES_PER_GPU, Layout
from dl_lab.sweeps.backends.protocol import (
    NOT_FAILED,
    OUT_OF_MEMORY,
    Answer,
    CheckJobs,
    Event,
    Exited,
    JobEvent,
    Lost,
    Memory,
    NextJob,
    Observe,
    OutOfMemory,
    Prepare,
    PrepareServer,
    Progress,
    RunJob,
    Signal,
    Started,
    Stopping,
    Work,
    no_more,
)
from dl_lab.sweeps.backends.server import Server
from dl_lab.types import UserError

MEMORY_SHARE = 0.9  # of a GPU's memory that its jobs may take together
MOST_TRIES = 2  # starts of a job whose server is killed
POLL_SECONDS = 0.2  # after which a stop signal is noticed although no event comes


@dataclass
class _Jobs:
    """Where the jobs of one `Schedule.run` are.

    Attributes:
        waiting: The jobs that no server has, in their order.
        given: The jobs that servers have.
        lanes: The lane of each job that runs.
        statuses: The exit status of each job that ended.
        losses: How often the server of a job was killed.
        beside: Jobs that share their GPU with others.
        alone: Jobs that ran out of memory beside others and now need an empty GPU.
    """

    waiting: deque[RunJob]
    given: dict[int, RunJob] = field(default_factory=dict)
    lanes: dict[int, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)
    beside: set[int] = field(default_factory=set)
    alone: set[int] = field(default_factory=set)

    def wait_again(self, job: int) -> None:
        """Put a job that a server had in front of those that wait."""
        self.waiting.appendleft(self.given.pop(job))

    def take_lane(self, job: int) -> int:
        """Give the first free lane to a job that begins."""
        free = set(range(len(self.lanes) + 1)) - set(self.lanes.values())
        self.lanes[job] = min(free)
        return self.lanes[job]


@dataclass
class Schedule:
    """Runs jobs on lanes until all are done, one fails with on_failure=stop, or the user interrupts.

    Args:
        layout: How many lanes there are, and on which devices.
        prepare: Runs in each server.
        work: Runs in a server's children.
        observe: Is told every event of the jobs.
        stop_on_failure: Start no further job after one failed.
        next_job: Is asked for a further job when a lane is free and no job waits.
        servers: The servers that run.
    """

    layout: Layout
    prepare: PrepareServer
    work: Work
    observe: Observe = lambda event: None
    stop_on_failure: bool = False
    next_job: NextJob = no_more
    servers: list[Server] = field(default_factory=list)
    _untold: deque[Event] = field(default_factory=deque)

    @property
    def threads(self) -> int:
        """CPU threads of each job."""
        return self.layout.threads

    def open(self) -> None:
        """Start the servers of the layout, and return at once: they import torch meanwhile. Running ones are kept."""
        running = {server.device: server for server in self.servers}
        self.servers = []
        for device in self.layout.devices:
            server = running.pop(device, None)
            self.servers.append(server or self._start_server(device))
        for server in running.values():  # the layout no longer has their devices
            server.close()

    def _start_server(self, device: str) -> Server:
        return Server(device, self.prepare, self.work)

    def prepare_servers(self, order: Prepare) -> None:
        """Let all servers import and load what the jobs need. Tasks that are given later wait for it.

        Args:
            order: What the jobs need.
        """
        for server in self.servers:
            server.send(order)

    def ask(self, questions: Sequence[CheckJobs], meanwhile: Prepare) -> list[Answer]:
        """Give each question to a child of the first server, and return the first answer to each.

        Args:
            questions: Their numbers are below 0.
            meanwhile: What the servers prepare while their children check.

        Raises:
            UserError: The server was killed.
        """
        server = self.servers[0]
        for question in questions:
            server.start(question)
        self.prepare_servers(meanwhile)
        answers: dict[int, Answer] = {}
        while len(answers) < len(questions):
            events = server.read()
            if events is None:
                raise UserError("A process of the sweep was killed while the jobs were checked.")
            for event in events:
                if isinstance(event, Answer):
                    answers.setdefault(event.job, event)
        return list(answers.values())

    def run(self, jobs: Sequence[RunJob]) -> dict[int, int]:
        """Run jobs.

        Args:
            jobs: The jobs that are known at the start; `next_job` gives the others.

        Returns:
            The exit status of every job that ended, by its number. Jobs that never started are left out.
        """
        state = _Jobs(deque(jobs))
        for server in self.servers:
            server.slots = self.layout.slots
        interrupts = 0
        stopping_since = 0.0
        with count_stop_signals() as asked:
            while self._has_work(state, bool(stopping_since)):
                if asked.count > interrupts:
                    interrupts = asked.count
                    # The first Ctrl-C asks the jobs to save and end, the second kills them.
                    self._send_signal(signal.SIGTERM if interrupts == 1 else signal.SIGKILL)
                    stopping_since = stopping_since or time.monotonic()
                    self._tell(Stopping())
                if stopping_since and time.monotonic() - stopping_since > GRACE_SECONDS:
                    self._send_signal(signal.SIGKILL)
                if not stopping_since:
                    for server in self.servers:
                        self._fill(server, state)
                for server, event in self._events():
                    self._take(server, event, state)
        self._tell_all()
        for server in self.servers:
            server.kill()
        return state.statuses

    def _has_work(self, jobs: _Jobs, is_stopping: bool) -> bool:
        """Fetch further jobs for the free lanes; return whether a job runs or may start."""
        if is_stopping:
            return bool(jobs.lanes)
        free = sum(max(0, server.slots - len(server.running)) for server in self.servers)
        while len(jobs.waiting) < free:
            self._tell_all()  # which job is next may depend on how the others ended
            job = self.next_job()
            if job is None:
                break
            jobs.waiting.append(job)
        return bool(jobs.waiting) or any(server.running for server in self.servers)

    def _fill(self, server: Server, jobs: _Jobs) -> None:
        """Give a server's free slots to waiting jobs. A job that needs an empty GPU waits until its server has none."""
        while jobs.waiting and len(server.running) < server.slots:
            job = jobs.waiting[0]
            if (job.job in jobs.alone and server.running) or server.running & jobs.alone:
                return
            jobs.waiting.popleft()
            if job.job in jobs.alone:
                jobs.beside.discard(job.job)
            elif server.device and server.slots > 1:
                jobs.beside.add(job.job)
            jobs.given[job.job] = job
            server.start(replace(job, solo=job.job not in jobs.beside))

    def _take(self, server: Server, event: JobEvent | None, jobs: _Jobs) -> None:
        """Act on an event of a server; None says that the server was killed."""
        if event is None:
            self._replace(server, jobs)
        elif isinstance(event, Memory):
            if self.layout.may_grow:
                server.slots = _count_slots(event)
        elif isinstance(event, Started):
            self._tell(replace(event, lane=jobs.take_lane(event.job), device=server.device))
        elif isinstance(event, Exited):
            self._take_exit(server, event, jobs)
        elif isinstance(event, Progress):
            self._tell(replace(event, lane=jobs.lanes.get(event.job, 0)))

    def _take_exit(self, server: Server, event: Exited, jobs: _Jobs) -> None:
        """Note how a job ended. A job that ran out of memory beside others waits for an empty GPU."""
        server.running.discard(event.job)
        lane = jobs.lanes.pop(event.job)
        if event.status == OUT_OF_MEMORY and event.job in jobs.beside:
            jobs.alone.add(event.job)
            jobs.wait_again(event.job)
            self._tell(OutOfMemory(event.job, lane))
            return
        del jobs.given[event.job]
        jobs.statuses[event.job] = event.status
        if self.stop_on_failure and event.status not in NOT_FAILED:
            jobs.waiting.clear()
            self.next_job = no_more
        self._tell(replace(event, lane=lane))

    def _replace(self, server: Server, jobs: _Jobs) -> None:
        """Replace a server that was killed. The jobs that ran on it start once more on the new one."""
        server.close()
        new = self._start_server(server.device)
        new.slots = server.slots
        self.servers[self.servers.index(server)] = new
        for job in sorted(server.running, reverse=True):
            if job not in jobs.lanes:  # it had not begun
                jobs.wait_again(job)
                continue
            lane = jobs.lanes.pop(job)
            jobs.losses[job] = jobs.losses.get(job, 0) + 1
            again = jobs.losses[job] < MOST_TRIES
            if again:
                jobs.wait_again(job)
            else:
                jobs.statuses[job] = -signal.SIGKILL
            self._tell(Lost(job, again, lane))

    def _tell(self, event: Event) -> None:
        self._untold.append(event)

    def _tell_all(self) -> None:
        while self._untold:
            self.observe(self._untold.popleft())

    def _events(self) -> Iterator[tuple[Server, JobEvent | None]]:
        """Yield each server's new events; None for a server that was killed.

        `observe` reads and shows results, which takes a millisecond or more. So it is told an event only while no new
        one comes: a free lane does not wait for it.
        """
        by_descriptor = {server.events: server for server in self.servers}
        ready, _, _ = select.select(list(by_descriptor), [], [], 0 if self._untold else POLL_SECONDS)
        if not ready and self._untold:
            self.observe(self._untold.popleft())
        for descriptor in ready:
            server = by_descriptor[descriptor]
            events = server.read()
            if events is None:
                yield server, None
                continue
            for event in events:
                if event.job >= 0:  # events below 0 are about questions, which are all answered by now
                    yield server, event

    def _send_signal(self, number: int) -> None:
        for server in self.servers:
            server.send(Signal(number))

    def close(self) -> None:
        """Kill the servers, and the jobs that still run on them."""
        for server in self.servers:
            server.close()
        self.servers = []


def _count_slots(event: Memory) -> int:
    """Count how many jobs with this measured peak fit a GPU."""
    fitting = int(MEMORY_SHARE * event.total // max(event.peak, 1))
    return max(1, min(MOST_LANES_PER_GPU, fitting))
