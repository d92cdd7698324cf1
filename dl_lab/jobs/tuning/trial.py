"""One setting at work, in a process of its own: it trains and judges when it is told to, and answers through a pipe.

The process is forked from one that has imported torch and loaded the data. It looks at train and val only: the test
split is taken away before anything else happens.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from dl_lab.configs.explain import say
from dl_lab.jobs.tuning.candidates import Facts

if TYPE_CHECKING:
    from dl_lab.types import Batch, Learner, Tally

PROVED_UPDATES = 8  # at most; the weights after them are compared
PROVED_ITEMS = 1024  # of val, at most
OPEN: list[Connection] = []  # the pipes of the trials of this process: a new child closes its copies


Losses: TypeAlias = tuple[float, ...]
Answer = TypeVar("Answer")


class TrialFailed(Exception):
    """A setting cannot work here; the message says why."""


@dataclass(frozen=True)
class Proof:
    """What the first updates of a trial have made. Equal proofs: the setting changes no value.

    Attributes:
        weights: The fingerprint of every weight.
        losses: The loss of each update.
        metrics: Those of some items of val.
    """

    weights: Mapping[str, str]
    losses: Losses
    metrics: Mapping[str, float]

    def difference(self, other: Proof) -> float:
        """The greatest relative difference of a loss or a metric; 0 where all bits are equal."""
        if self == other:
            return 0.0
        pairs = [*zip(self.losses, other.losses, strict=False)]
        pairs += [(value, other.metrics[name]) for name, value in self.metrics.items() if name in other.metrics]
        relative = [abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in pairs if a != b]
        return max(relative, default=1e-9)  # the weights differ though no loss does


@dataclass(frozen=True)
class Updated:
    """What a trial answers to `update`: samples, seconds, and the loss of each update."""

    n_samples: int
    seconds: float
    losses: Losses


@dataclass(frozen=True)
class Judged:
    """What a trial answers to `judge`: samples, seconds, and the metrics of the items."""

    n_samples: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass
class Trial:
    """A process that trains with one config.

    Attributes:
        config: The resolved config of the job.
        threads: Threads of torch; None leaves what the machine gives.
        facts: What the process said when it was built. It is there after `wait`.
    """

    config: Mapping[str, Any]
    threads: int | None
    facts: Facts = field(init=False)
    _process: ForkProcess | None = None
    _pipe: Connection | None = None

    def start(self) -> None:
        """Fork the process; it begins to build its parts."""
        context = multiprocessing.get_context("fork")
        pipe = context.Pipe()
        ours: Connection = pipe[0]  # pyright: ignore[reportAssignmentType]  # Windows' class; it has no fork
        theirs: Connection = pipe[1]  # pyright: ignore[reportAssignmentType]  # as above
        self._pipe = ours
        OPEN.append(ours)
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = context.Process(target=_serve, args=(theirs, self.config, self.threads))
        self._process.start()
        theirs.close()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the process has built its parts. Raise a TrialFailed as `answer` does."""
        self.facts = self.answer(Facts, seconds)

    def ask(self, request: str, *arguments: object) -> None:
        """Send a request; `answer` waits for what it gives."""
        if self._pipe is None:
            raise TrialFailed("it has ended")
        with contextlib.suppress(OSError):  # a dead process: its answer never comes, and `answer` says so
            self._pipe.send((request, *arguments))

    def answer(self, kind: type[Answer], seconds: float | None = None) -> Answer:
        """Wait for the answer to the oldest request.

        Args:
            kind: The class of the answer.
            seconds: At most; None waits as long as it takes.

        Raises:
            TrialFailed: The process failed, died, or needs longer.
        """
        if self._pipe is None:
            raise TrialFailed("it has ended")
        try:
            if seconds is not None and not self._pipe.poll(max(seconds, 0)):
                raise TrialFailed(f"it was not ready after {seconds:.0f} s" if seconds > 0 else "no time was left")
            answer: object = self._pipe.recv()
        except (EOFError, OSError):
            raise TrialFailed("its process ended, perhaps for lack of memory") from None
        if isinstance(answer, TrialFailed):
            raise answer
        if not isinstance(answer, kind):
            raise TypeError(f"a trial answered {answer!r}, not a {kind.__name__}")
        return answer

    def work(self, n_updates: int) -> tuple[float, float]:
        """See `rounds.Contestant`."""
        self.ask("update", n_updates)
        updated = self.answer(Updated)
        return updated.n_samples, updated.seconds

    def memory(self) -> int:
        """The most memory so far, in bytes: of the GPU, or of the process with the data."""
        self.ask("memory")
        return self.answer(int)

    def close(self) -> None:
        """End the process and whatever it has started."""
        if self._pipe is not None:
            OPEN.remove(self._pipe)
            self._pipe.close()
            self._pipe = None
        if self._process is not None and self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; or not yet a group of its own
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()


# -- the process ------------------------------------------------------------------------------------------------------


def _serve(pipe: Connection, config: Mapping[str, Any], threads: int | None) -> None:
    os.setsid()
    for other in OPEN:  # the parent's ends: while a child held them, no pipe would ever end
        other.close()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of processes that would outlive this one
    try:
        work = _Work(config, threads)
        pipe.send(work.facts())
        while True:
            request, *arguments = pipe.recv()
            pipe.send(getattr(work, request)(*arguments))
    except (EOFError, OSError):  # the parent is gone, or needs no more
        pass
    except BaseException as error:
        with contextlib.suppress(OSError):
            pipe.send(TrialFailed(say(error)[:200]))
    os._exit(0)


class _Work:
    """A learner and its data, trained on request."""

    def __init__(self, config: Mapping[str, Any], threads: int | None) -> None:
        import torch

        from dl_lab.jobs.procedure import build_procedure
        from dl_lab.training.devices import choose_device
        from dl_lab.training.seeding import seed_everything
        from dl_lab.types import ConfigError

        if threads is not None:
            torch.set_num_threads(threads)
        seed_everything(config["seed"], config["deterministic"])
        parts = build_procedure(config).training()
        if parts is None:
            raise ConfigError("this procedure trains no single learner")
        self.learner: Learner = parts.learner
        self.trainer = parts.trainer
        self.device = choose_device(self.trainer.device)
        self.learner.to(self.device)
        self.dataset = replace(parts.dataset, test=parts.dataset.val).to(self.device)
        self.learner.start(self.dataset)
        n_batches = max(self.dataset.train.n_batches(self.trainer.batch_size), 1)
        self.learner.plan(self.trainer.max_epochs, self.trainer.max_epochs * n_batches)
        self.learner.initialise()
        self.batches = self._endless()

    def facts(self) -> Facts:
        import torch

        from dl_lab.types import columns_of

        batch = next(iter(self.dataset.val.batches(1)))
        dimensions = [column.dim() for column in columns_of(batch) if hasattr(column, "dim")]
        return Facts(
            device=self.device.type,
            threads=torch.get_num_threads(),
            dimensions=dimensions,
            batch_size=self.trainer.batch_size,
            eval_batch_size=self.trainer.eval_batch_size,
            n_val=len(self.dataset.val),
        )

    def update(self, n_updates: int) -> Updated:
        from dl_lab.types import n_items

        tallies = []
        n_samples = 0
        began = time.perf_counter()
        for _ in range(n_updates):
            batch = next(self.batches)
            tallies.append(self.learner.update(batch)["loss"])
            n_samples += n_items(batch)
        self._wait()
        seconds = time.perf_counter() - began
        return Updated(n_samples, seconds, tuple(float(tally.values("")[""]) for tally in tallies))

    def warm(self) -> int:
        """Do an update with as few items as an epoch's last batch has; return how many they are.

        torch.compile compiles anew for another size. Without this update, a round would hold that time.
        """
        from dl_lab.datasets.loaders import LoaderSplit
        from dl_lab.types import n_items

        split = self.dataset.train
        if self.trainer.drop_last or isinstance(split, LoaderSplit):  # no such batch, or the user's loader makes them
            return 0
        rest = len(split) % self.trainer.batch_size
        if not rest:
            return 0
        batch = next(iter(split.batches(rest)))
        self.learner.update(batch)
        self._wait()
        return n_items(batch)

    def judge(self, batch_size: int, n_items: int, n_passes: int) -> Judged:
        """Judge whole batches from the start of val, until they have n_items items."""
        import torch

        from dl_lab.types import add_tallies, read_tally
        from dl_lab.types import n_items as count

        n_samples = 0
        tally: Tally = {}
        began = time.perf_counter()
        with torch.no_grad():  # as the trainer does
            for _ in range(n_passes):
                tally = {}
                done = 0
                for batch in self.dataset.val.batches(batch_size):
                    tally = add_tallies(tally, self.learner.evaluate(batch))
                    done += count(batch)
                    if done >= n_items:
                        break
                n_samples += done
        self._wait()
        return Judged(n_samples, time.perf_counter() - began, read_tally(tally, "val/"))

    def prove(self, losses: Losses, n_items: int) -> Proof:
        """The weights now, and the metrics of some items of val."""
        from dl_lab.runs.weights import fingerprints

        judged = self.judge(min(self.trainer.eval_batch_size, n_items), n_items, 1)
        return Proof(fingerprints(self.learner.weights()), losses, judged.metrics)

    def memory(self) -> int:
        import torch

        from dl_lab.runs.machine import peak_memory

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_memory()

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            batches = self.dataset.train.epoch(self.trainer.batch_size, self.trainer.seed, epoch)
            yield from itertools.islice(batches, self.trainer.count_batches(self.dataset))
            epoch += 1
