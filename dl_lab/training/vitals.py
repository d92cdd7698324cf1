"""The doctor's instruments: a few looks at the layers while a model learns, and one examination at the end.

`dl-lab doctor` (dl_lab.show.doctor) reads their records (vitals.jsonl).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.runs.machine import peak_memory
from dl_lab.show.doctor.evidence import VITALS_FILE
from dl_lab.training.examination import Facts, examine
from dl_lab.training.layer_watch import LayerWatch, loss_scale, watchable_model
from dl_lab.training.session import Callback, Evaluated, Session
from dl_lab.types import Metrics, Tally

LEAST_UPDATES = 100
LEAST_SECONDS = (
    2.0  # of a training whose waits are judged: in a shorter one, a pause of a busy computer is a large share
)
LONGEST_WAIT = 8  # updates: a slow loader of 8 workers delivers 8 batches, and the next one comes this much later
CLOCKED = 11  # one update in 11 is timed: a prime, because the workers of a DataLoader take turns of 2, 4 or 8


class Vitals(Callback):
    """Looks at a few updates, spread over the training, and examines the trained model and its data once.

    The first look is at the first update. A training of 200 updates has one more look; a training of 2,000 or more
    updates has six in all. A training of fewer than LEAST_UPDATES has none: its curves say little, and looks would take
    a noticeable part of its time. Looks only read, so that a training with them ends with the same bits.

    Each look appends a record to vitals.jsonl. For every layer with weights, the record has the spread of its output;
    for every activation function, it has the dead or saturated units; for every weight, it has the root mean squares of
    the gradient, the weight and its change. A learner without a torch model (`learner.main_module()`) has no looks, and
    neither has a compiled model.
    """

    def __init__(self) -> None:
        self._watch: LayerWatch | None = None  # of the current update
        self._read: list[dict[str, object]] = []  # looks that are not yet recorded
        self._steps: frozenset[int] = frozenset()
        self._is_long_enough = False
        self._began_at = 0.0
        self._ended_at = 0.0  # when the update before a timed one ended; 0 if the time since is no waiting for a batch
        self._waits: list[float] = []  # seconds before timed updates
        self._works: list[float] = []  # seconds of timed updates
        self._is_over = False

    def fit_start(self, session: Session) -> None:
        """Choose the updates to look at."""
        self._steps = choose_steps(session.n_updates)
        self._is_long_enough = session.n_updates >= LEAST_UPDATES

    def update_start(self, session: Session) -> None:
        """Count the wait for the batch of a timed update, and set hooks if this update is looked at."""
        step = session.step
        if step % CLOCKED == 0:
            self._began_at = time.perf_counter()
            if self._ended_at:
                self._waits.append(self._began_at - self._ended_at)
        if step in self._steps:
            model = watchable_model(session.learner)
            if model is not None:
                self._watch = LayerWatch(model, loss_scale(session.learner))

    def update_end(self, session: Session) -> None:
        """Count the time of a timed update, and read what was seen in an update that was looked at."""
        # session.step counts the update that has just ended, so it is the number of the next one
        if session.step % CLOCKED == 1:
            self._works.append(time.perf_counter() - self._began_at)
        if self._watch is not None:
            self._watch.remove()
            self._read.append({"kind": "look", "step": session.step - 1, **self._watch.read()})
            self._watch = None
        if session.step % CLOCKED == 0:
            self._ended_at = time.perf_counter()

    def progress(self, session: Session) -> None:
        """Record the looks."""
        self._record(session)

    def evaluation_start(self, session: Session, split: Evaluated) -> None:
        """Stop counting the wait: the training waits for no batch now."""
        self._ended_at = 0.0

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Record the looks of the epoch."""
        self._record(session)

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Record the share of waiting, the memory, and the examination."""
        self._is_over = True
        if self._waits and self._works:
            share = waiting_share(self._waits, self._works)
            if session.step * median(self._works) >= LEAST_SECONDS * (1 - share):
                session.run.summary["waiting_share"] = round(share, 3)
        session.run.summary["peak_memory_bytes"] = read_peak_memory(session)
        if self._is_long_enough:
            facts = self._examine(session)
            session.run.append(VITALS_FILE, {"kind": "examination", "step": session.step, **facts})

    def _examine(self, session: Session) -> Facts:
        """Return the facts of the examination. A fault in it must not cost a finished training: it is recorded."""
        try:
            return examine(session.learner, session.whole_dataset, session.step * session.batch_size)
        except Exception as error:  # a model of somebody's own may raise anything
            return {"failed": f"{type(error).__name__}: {error}"}

    def close(self, session: Session) -> None:
        """Record the last looks, and for a training that failed, where its weights are broken."""
        if self._watch is not None:
            self._watch.remove()
        self._record(session)
        if not self._is_over:
            broken = find_broken(session)
            if broken:
                session.run.append(VITALS_FILE, {"kind": "broken", "step": session.step, **broken})

    def state_dict(self) -> dict[str, object]:
        """Return the looks that are not yet recorded."""
        return {"read": self._read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._read = list(state.get("read", []))

    def _record(self, session: Session) -> None:
        for look in self._read:
            session.run.append(VITALS_FILE, look)
        self._read = []


def waiting_share(waits: Sequence[float], works: Sequence[float]) -> float:
    """Return the share of the time that a training waits for its next batch.

    A wait counts as at most LONGEST_WAIT typical updates: a longer one is a computer that was busy with something else.

    Args:
        waits: Seconds between the end of an update and the start of the next one, for some updates.
        works: Seconds of some updates.
    """
    longest = LONGEST_WAIT * median(works)
    waited = sum(min(wait, longest) for wait in waits) / len(waits)
    worked = sum(min(work, longest) for work in works) / len(works)
    return waited / (waited + worked) if waited + worked > 0 else 0.0


def read_peak_memory(session: Session) -> int:
    """Return the most memory so far, in bytes: of the learner's GPU if it has one, else of this process."""
    device = getattr(session.learner, "device", None)
    if isinstance(device, torch.device) and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()


def find_broken(session: Session) -> Facts:
    """Find the weights that are not finite, and the first layer whose output is not finite on a training batch.

    This is only for a fit that ended early: it evaluates a batch, which a fit that continues must not do here.

    Returns:
        "weights" (the names of the first ones) and "layer"; {} where all weights are finite.
    """
    model = watchable_model(session.learner)
    if model is None:
        return {}
    with torch.no_grad():
        weights = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
        if not weights:
            return {}
        layers: list[str] = []
        handles = [module.register_forward_hook(_note_broken(name, layers)) for name, module in model.named_modules()]
        try:
            session.learner.evaluate(next(iter(session.whole_dataset.train.batches(2))))
        finally:
            for handle in handles:
                handle.remove()
    return {"weights": weights[:8], "layer": layers[0] if layers else ""}


def _note_broken(name: str, layers: list[str]) -> Callable[[nn.Module, object, object], None]:
    def hook(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and not torch.isfinite(output).all():
            layers.append(f"{name} ({type(module).__name__})")

    return hook


def choose_steps(n_updates: int) -> frozenset[int]:
    """Choose the updates to look at: the first one, and one in 400 of the others.

    Args:
        n_updates: Updates of the whole training.

    Returns:
        For each look, the number of updates before it.
    """
    if n_updates < LEAST_UPDATES:
        return frozenset()
    candidates = [3 * n_updates // 4, n_updates // 4, n_updates // 16, n_updates // 64, 1]
    n_more = max(n_updates // 400, int(n_updates >= 200))
    return frozenset([0, *candidates[:n_more]])
