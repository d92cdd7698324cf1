"""How large the gradients of each layer are while a model learns: vanishing, exploding, or neither."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.run import read_records
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Metrics, Tally, UserError

Of = Literal["weight", "output"]
FILE = "gradient_norms.jsonl"


class LayerGradients:
    """L2 norms of the loss's gradient by layer, caught by hooks during the next backward passes.

    weight: of every weight matrix or kernel (parameters of two or more dimensions that are trained), after the passes
    have added up. output: of what each layer that has such a weight returns, over the whole batch; passes add up, as
    the micro-batches of one batch do. Layers keep the model's order. Nothing is read from the device here.
    """

    def __init__(self, model: nn.Module, of: Sequence[Of] = ("weight",)) -> None:
        parameters = [(n, p) for n, p in model.named_parameters() if p.dim() >= 2 and p.requires_grad]
        self.squares: dict[Of, dict[str, Tensor]] = {kind: {} for kind in of}  # kind -> layer -> squared norm
        self._handles: list[Any] = []
        if "weight" in of:
            for name, parameter in parameters:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._weight_hook(_layer(name))))
        if "output" in of:
            for name in dict.fromkeys(name.rpartition(".")[0] for name, _ in parameters):
                self._handles.append(model.get_submodule(name).register_forward_hook(self._output_hook(name)))
        self._order = {_layer(name): i for i, (name, _) in enumerate(parameters)}
        self._order |= {name.rpartition(".")[0]: self._order[_layer(name)] for name, _ in reversed(parameters)}

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def norms(self) -> dict[Of, dict[str, Tensor]]:
        """kind -> layer -> 0-dimensional tensor, of the passes so far."""
        return {
            kind: {name: squares[name].sqrt() for name in sorted(squares, key=self._order.__getitem__)}
            for kind, squares in self.squares.items()
        }

    def _weight_hook(self, name: str) -> Any:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.squares["weight"][name] = _square(parameter.grad)  # what the passes have added up to

        return hook

    def _output_hook(self, name: str) -> Any:
        def add(gradient: Tensor) -> None:
            squares = self.squares["output"]
            square = _square(gradient)
            squares[name] = squares[name] + square if name in squares else square

        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(add)  # not a module's backward hook: those forbid in-place layers after it

        return hook


def _layer(parameter: str) -> str:
    return parameter.removesuffix(".weight")


def _square(gradient: Tensor) -> Tensor:
    """The squared norm, taken of the norm: gradients of 1e-25 must not vanish here."""
    with torch.no_grad():
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        return torch.linalg.vector_norm(values, dtype=torch.float32).double().square()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


class GradientNorms(Callback):
    """Norms of the gradients by layer every `every` updates, the first one (initial weights) included.

    of: "weight", "output" or both (see LayerGradients). Gradients are those of the mean loss, before clipping. At the
    end: a figure for each kind (heat map over layer and step, lines over steps, profiles over layers) with its rows;
    all along, scalars `gradient_norm/<kind>/<layer>` and records in gradient_norms.jsonl. Hooks stand only during the
    updates that are measured, and norms stay on the device until the progress is shown.
    Raises ValueError for an interval below 1; UserError at the start for a learner that has no torch model, and for
    outputs of a compiled model; UserError where an update gives no gradient.
    """

    def __init__(self, every: int = 50, of: Sequence[Of] = ("weight",)) -> None:
        if every < 1 or not of or set(of) - {"weight", "output"}:
            raise ValueError(f"every {every} must be at least 1, and of {list(of)} weight, output or both")
        self.every, self.of = every, tuple(dict.fromkeys(of))
        self._watched: tuple[int, float, LayerGradients] | None = None  # step, loss scale, what its hooks catch
        self._waiting: list[tuple[int, float, dict[Of, dict[str, Tensor]]]] = []  # measured, not yet read
        self._read: list[list[Any]] = []  # read, not yet recorded: of a checkpoint

    def fit_start(self, session: Session) -> None:
        self._model(session)

    def update_start(self, session: Session) -> None:
        self._finish_watching()
        if session.step % self.every == 0:
            scaler = getattr(session.learner, "scaler", None)  # fp16: the loss, and with it the gradient, is scaled
            scale = float(scaler.get_scale()) if scaler is not None else 1.0
            self._watched = (session.step, scale, LayerGradients(self._model(session), self.of))

    def progress(self, session: Session) -> None:
        if self._watched is None or self._watched[0] < session.step:
            self._record(session)

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        self._record(session)

    def close(self, session: Session) -> None:
        self._finish_watching()

    def state_dict(self) -> dict[str, Any]:
        self._read_all()
        return {"read": self._read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._read = [list(row) for row in state.get("read", [])]

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        records = read_records(session.run.folder / FILE)
        for kind in self.of:
            rows = [{"step": record["step"], **record[kind]} for record in records]
            title = f"L2 norm of the gradient of each layer's {kind}"
            session.run.figure(f"gradient_norms_{kind}", plots.gradient_norms(rows, title), rows, session.step)

    def _model(self, session: Session) -> nn.Module:
        model = getattr(session.learner, "model", None)
        if not isinstance(model, nn.Module):
            raise UserError(
                "Gradient norms need a torch model that learns by gradient: use callbacks.gradient_norms=null."
            )
        if "output" in self.of and getattr(session.learner, "forward", model) is not model:
            raise UserError(
                "The outputs of a compiled model cannot be watched: use learner.compile=false or "
                "callbacks.gradient_norms.of=[weight]."
            )
        return model

    def _finish_watching(self) -> None:
        if self._watched is not None:
            step, scale, watched = self._watched
            watched.remove()
            self._waiting.append((step, scale, watched.norms()))
            self._watched = None

    def _read_all(self) -> None:
        self._finish_watching()
        for step, scale, norms in self._waiting:
            plain = {kind: _numbers(layers, scale) for kind, layers in norms.items()}
            if not all(plain.values()):
                raise UserError(
                    "No gradient reached a layer's weight in an update: this learner cannot be watched; use "
                    "callbacks.gradient_norms=null."
                )
            self._read.append([step, plain])
        self._waiting.clear()

    def _record(self, session: Session) -> None:
        self._read_all()
        for step, norms in self._read:
            session.run.append(FILE, {"step": step, **norms})
            values = {
                f"gradient_norm/{kind}/{layer}": v for kind, layers in norms.items() for layer, v in layers.items()
            }
            session.run.board.scalars(values, step)
        self._read = []


def _numbers(layers: Mapping[str, Tensor], scale: float) -> dict[str, float]:
    """With one copy from the device for all."""
    if not layers:
        return {}
    values = torch.stack(list(layers.values())).tolist()
    return {name: value / scale for name, value in zip(layers, values, strict=True)}
