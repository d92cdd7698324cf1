"""The size of the gradients of each layer while a model learns: vanishing, exploding, or neither."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dl_lab.runs.files import read_records
from dl_lab.show import gradient_plots, plots
from dl_lab.training.layer_watch import loss_scale, watchable_model
from dl_lab.training.session import Callback, Session
from dl_lab.training.summary import name_in_words
from dl_lab.types import Metrics, Tally, UserError

Of = Literal["weight", "output"]
FILE = "gradient_norms.jsonl"


class LayerGradients:
    """L2 norms of the loss's gradient by layer, caught by hooks during the next backward passes.

    Layers keep the model's order. Nothing is read from the device here.

    Args:
        model: The model. Its layers are the modules with a weight matrix or kernel: a trained parameter of two or more
            dimensions.
        of: "weight" gives the norm of the gradient of that parameter, after all passes have added up. "output" gives
            the norm over the whole batch of the gradient of the layer's output; passes add up, as the micro-batches of
            one batch do.
    """

    def __init__(self, model: nn.Module, of: Sequence[Of] = ("weight",)) -> None:
        parameters = [(n, p) for n, p in model.named_parameters() if p.dim() >= 2 and p.requires_grad]
        self.squares: dict[Of, dict[str, Tensor]] = {kind: {} for kind in of}  # kind -> layer -> squared norm
        self._handles: list[RemovableHandle] = []
        self._order: dict[str, int] = {}  # name of a weight or of a module -> its place in the model
        for i, (name, parameter) in enumerate(parameters):
            module, _, _ = name.rpartition(".")
            if "output" in of and module not in self._order:
                self._handles.append(model.get_submodule(module).register_forward_hook(self._watch_output(module)))
            if "weight" in of:
                hook = self._watch_weight(_shorten(name))
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
            self._order.setdefault(_shorten(name), i)
            self._order.setdefault(module, i)

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def norms(self) -> dict[Of, dict[str, Tensor]]:
        """Return the norms of the passes so far: kind -> layer -> 0-dimensional tensor."""
        norms: dict[Of, dict[str, Tensor]] = {}
        for kind, squares in self.squares.items():
            names = sorted(squares, key=self._order.__getitem__)
            norms[kind] = {name: squares[name].sqrt() for name in names}
        return norms

    def _watch_weight(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.squares["weight"][name] = _square(parameter.grad)  # the passes have added up

        return hook

    def _watch_output(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def add(gradient: Tensor) -> None:
            squares = self.squares["output"]
            square = _square(gradient)
            squares[name] = squares[name] + square if name in squares else square

        def hook(module: nn.Module, arguments: object, output: object) -> None:
            for tensor in _find_tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(add)  # not a module's backward hook: those forbid in-place layers after it

        return hook


def _shorten(parameter: str) -> str:
    return parameter.removesuffix(".weight")


def _square(gradient: Tensor) -> Tensor:
    """Return the squared norm. The square is taken of the norm, because gradients of 1e-25 must not vanish here."""
    with torch.no_grad():
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        return torch.linalg.vector_norm(values, dtype=torch.float32).double().square()


def _find_tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _find_tensors(part)


class Watched(NamedTuple):
    """An update whose gradients are measured: its step, the loss scale, and the hooks."""

    step: int
    scale: float
    gradients: LayerGradients


class Measured(NamedTuple):
    """Norms that were measured and not yet read from the device: of a step, under a loss scale."""

    step: int
    scale: float
    norms: dict[Of, dict[str, Tensor]]


class GradientNorms(Callback):
    """Records norms of the gradients by layer, of the mean loss before clipping.

    During the fit, the board gets scalars `gradient_norm/<kind>/<layer>`, and gradient_norms.jsonl gets records. At the
    end there is a figure for each kind with its rows: heat map over layer and step, lines over steps, profiles over
    layers. Hooks are there only during the updates that are measured, and norms stay on the device until the progress
    is shown.

    Args:
        every: Measure one update in `every`, the first one (initial weights) included.
        of: "weight", "output" or both (see `LayerGradients`).

    Raises:
        ValueError: `every` is less than 1, or `of` names another kind.
        UserError: The learner has no torch model, or outputs of a compiled model are to be measured (both when the fit
            starts); or an update gives no gradient.
    """

    imports = plots.IMPORTS

    def __init__(self, every: int = 50, of: Sequence[Of] = ("weight",)) -> None:
        if every < 1 or not of or set(of) - {"weight", "output"}:
            raise ValueError(f"every {every} must be at least 1, and of {list(of)} weight, output or both")
        self.every = every
        self.of = tuple(dict.fromkeys(of))
        self._watched: Watched | None = None
        self._measured: list[Measured] = []
        self._read: list[tuple[int, dict[str, dict[str, float]]]] = []  # (step, norms), not yet recorded

    def fit_start(self, session: Session) -> None:
        """Refuse a learner that cannot be watched."""
        self._find_model(session)

    def choose_updates(self, session: Session) -> Collection[int]:
        """Return the updates that are measured."""
        return range(0, session.n_updates, self.every)

    def update_start(self, session: Session) -> None:
        """Set hooks."""
        gradients = LayerGradients(self._find_model(session), self.of)
        self._watched = Watched(session.step, loss_scale(session.learner), gradients)

    def update_end(self, session: Session) -> None:
        """Take the hooks away."""
        self._finish_watching()

    def progress(self, session: Session) -> None:
        """Record the norms so far."""
        self._record(session)

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Record the norms of the epoch."""
        self._record(session)

    def close(self, session: Session) -> None:
        """Take the hooks away."""
        self._finish_watching()

    def state_dict(self) -> dict[str, object]:
        """Return the norms that are not yet recorded."""
        self._read_all()
        return {"read": [list(entry) for entry in self._read]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._read = [(step, norms) for step, norms in state.get("read", [])]

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Draw the figures."""
        records = read_records(session.run.folder / FILE)
        words = name_in_words(self._find_model(session))
        for kind in self.of:
            rows = [{"step": record["step"], **record[kind]} for record in records]
            title = f"L2 norm of the gradient of each layer's {kind}"
            figure = gradient_plots.gradient_norms(rows, title, words)
            session.run.figure(f"gradient_norms_{kind}", figure, rows, session.step)

    def _find_model(self, session: Session) -> nn.Module:
        model = session.learner.main_module()
        if model is None:
            raise UserError(
                "Gradient norms need a torch model that learns by gradient: use callbacks.gradient_norms=null."
            )
        if "output" in self.of and watchable_model(session.learner) is None:
            raise UserError(
                "The outputs of a compiled model cannot be watched: use learner.compile=false or "
                "callbacks.gradient_norms.of=[weight]."
            )
        return model

    def _finish_watching(self) -> None:
        if self._watched is not None:
            step, scale, gradients = self._watched
            gradients.remove()
            self._measured.append(Measured(step, scale, gradients.norms()))
            self._watched = None

    def _read_all(self) -> None:
        self._finish_watching()
        for step, scale, norms in self._measured:
            plain: dict[str, dict[str, float]] = {}
            for kind, layers in norms.items():
                plain[kind] = _read_norms(layers, scale)
            if not all(plain.values()):
                raise UserError(
                    "No gradient reached a layer's weight in an update: this learner cannot be watched; use "
                    "callbacks.gradient_norms=null."
                )
            self._read.append((step, plain))
        self._measured.clear()

    def _record(self, session: Session) -> None:
        self._read_all()
        for step, norms in self._read:
            session.run.append(FILE, {"step": step, **norms})
            values: Metrics = {}
            for kind, layers in norms.items():
                for layer, norm in layers.items():
                    values[f"gradient_norm/{kind}/{layer}"] = norm
            session.run.board.scalars(values, step)
        self._read = []


def _read_norms(layers: Mapping[str, Tensor], scale: float) -> dict[str, float]:
    """Read the norms of all layers with one copy from the device."""
    if not layers:
        return {}
    values = torch.stack(list(layers.values())).tolist()
    return {name: value / scale for name, value in zip(layers, values, strict=True)}
