"""The doctor's instruments: a few looks at the layers while a model learns, and one examination at the end.

`dl-lab doctor` (dl_lab.show.doctor) reads their records (vitals.jsonl).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.runs.machine import peak_memory
from dl_lab.show.doctor.evidence import LOOKED_AT, VITALS_FILE
from dl_lab.training.data_examination import Facts, examine_data
from dl_lab.training.examination import examine_model
from dl_lab.training.layer_watch import LayerWatch, loss_scale, watchable_model
from dl_lab.training.session import Callback, Session
from dl_lab.types import Metrics, Tally

LEAST_UPDATES = 100  # of a training whose data are examined
LOOKED_AT_TWICE = 300  # updates
RECORD_SECONDS = 1.0  # between two records of looks: a short training records all its looks at its end


class Vitals(Callback):
    """Looks at a few updates, spread over the training, and examines the trained model and its data once.

    The first look is at the first update of a training of LOOKED_AT updates or more. One of LOOKED_AT_TWICE updates has
    one more look; one of 2,000 or more updates has six in all. Looks take a noticeable part of a shorter training: only
    its data are examined, and those of a training of LEAST_UPDATES or more. Looks only read, so that a training with
    them ends with the same bits.

    Each look is a record of vitals.jsonl (see `LayerWatch.read`). A learner without a torch model
    (`learner.main_module()`) has no looks, and neither has a compiled model.
    """

    def __init__(self) -> None:
        self._watch: LayerWatch | None = None  # of the current update
        self._read: list[dict[str, object]] = []  # looks that are not yet recorded
        self._recorded_at = 0.0
        self._is_plain: bool | None = None  # whether the model takes numbers and returns one tensor; None: no look yet
        self._steps: frozenset[int] = frozenset()
        self._is_over = False

    def choose_updates(self, session: Session) -> Collection[int]:
        """Choose the updates to look at."""
        self._recorded_at = time.perf_counter()
        self._steps = choose_steps(session.n_updates)
        return self._steps

    def update_start(self, session: Session) -> None:
        """Set hooks."""
        model = watchable_model(session.learner)
        if model is not None:
            self._watch = LayerWatch(model, loss_scale(session.learner), is_first=session.step == 0)

    def update_end(self, session: Session) -> None:
        """Read what was seen in the update. A fault in it must not cost the training: it is recorded."""
        if self._watch is None:
            return
        self._watch.remove()
        step = session.step - 1
        try:
            self._read.append({"kind": "look", "step": step, **self._watch.read()})
            self._is_plain = self._watch.is_plain
        except Exception as error:
            self._read.append({"kind": "failed look", "step": step, "error": f"{type(error).__name__}: {error}"})
        self._watch = None

    def progress(self, session: Session) -> None:
        """Record the looks, once a second at most."""
        if self._read and time.perf_counter() - self._recorded_at > RECORD_SECONDS:
            self._record(session)

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Record the share of waiting, the memory, and the examination."""
        self._is_over = True
        share = session.clock.share(session.step)
        if share is not None:
            session.run.summary["waiting_share"] = round(share, 3)
        session.run.summary["peak_memory_bytes"] = read_peak_memory(session)
        if session.n_updates >= LEAST_UPDATES:
            self._read.append({"kind": "examination", "step": session.step, **self._examine(session)})
        self._record(session)

    def _examine(self, session: Session) -> Facts:
        """Return the facts of the examination. A fault in it must not cost a finished training: it is recorded."""
        try:
            dataset = session.whole_dataset
            n_seen = session.step * session.batch_size
            return examine_data(dataset) | examine_model(session.learner, dataset, n_seen, self._is_plain)
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
        """Return the looks that are not yet recorded, and what the recorded ones have told about the model."""
        return {"read": self._read, "is_plain": self._is_plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._read = list(state.get("read", []))
        self._is_plain = state.get("is_plain")

    def _record(self, session: Session) -> None:
        if self._read:
            session.run.append(VITALS_FILE, *self._read)
            self._read = []
            self._recorded_at = time.perf_counter()


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
    """Choose the updates to look at: the first one, and one in 400 of the others, at most five.

    Args:
        n_updates: Updates of the whole training.

    Returns:
        For each look, the number of updates before it.
    """
    if n_updates < LOOKED_AT:
        return frozenset()
    candidates = [3 * n_updates // 4, n_updates // 4, n_updates // 16, n_updates // 64, 1]
    n_more = max(n_updates // 400, int(n_updates >= LOOKED_AT_TWICE))
    return frozenset([0, *candidates[:n_more]])
