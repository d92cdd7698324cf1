"""dl-lab export: a run's model as safetensors, ONNX or torch.export.

The exported file is read again and must give the model's own outputs on items of the real test split, for more than one
batch size. Exit status: 0 exported and checked, 1 it does not give the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab.show.options import Parser, add_outputs, output_file
from dl_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from dl_lab.jobs.loading import Loaded

Exported = Callable[..., object]  # the exported model, read again: call(*inputs) gives its outputs

ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch.export": ".pt2"}
SIZES = (3, 8)  # items of the two batches: the export sees the first size, the check also tries the second
TOLERANCE = 1e-4  # relative to the largest output: other runtimes sum in another order


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab export` and return the exit status."""
    options = parse(argv)
    if options.format == "onnx":
        _need("onnx", "onnxscript", "onnxruntime")
    import torch

    from dl_lab.jobs import loading

    loaded = loading.load(options.run, options.outputs)
    target = options.to or loaded.folder / f"model{ENDINGS[options.format]}"
    if target.exists():
        raise UserError(f"{target} exists already: name another file with --to.")
    inputs = [real_inputs(loaded, size) for size in SIZES]
    written = target.with_name(f".{os.getpid()}-{target.name}")  # renamed once it is verified
    try:
        with torch.no_grad():
            expected = [_flat(loaded.model(*arguments)) for arguments in inputs]
            exported = EXPORTERS[options.format](loaded, inputs, written)
            found = [_flat(_call(exported, arguments)) for arguments in inputs]
        distance = max(_distance(a, b) for a, b in zip(expected, found, strict=True))
        if distance <= TOLERANCE:
            os.replace(written, target)
    finally:
        written.unlink(missing_ok=True)
    if not distance <= TOLERANCE:
        raise UserError(f"The exported model gives other outputs (by up to {distance:.2g} of the largest): not kept.")
    same = "the same bits" if distance == 0 else f"the same within {distance:.1g} of the largest output"
    print(f"{target}: {target.stat().st_size:,} bytes; on {SIZES[0]} and {SIZES[1]} test items {same}.")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab export", description=summary, epilog=details)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("--format", choices=list(ENDINGS), default="safetensors", help="(%(default)s)")
    parser.add_argument("--to", type=output_file, metavar="FILE", help="what to write (model.* in the run's folder)")
    add_outputs(parser)
    return parser.parse_args(list(argv))


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs more packages:  pip install {' '.join(missing)}")


def real_inputs(loaded: Loaded, n_items: int) -> tuple[Tensor, ...]:
    """Return the arguments with which the task calls the model on the first items of the test split.

    Raises:
        UserError: The task calls the model in its own way, not as model(inputs).
    """
    import torch

    seen: list[tuple[Tensor, ...]] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        bound = inspect.signature(module.forward).bind(*arguments, **named)
        seen.append(bound.args)

    hook = loaded.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            loaded.learner.evaluate(next(iter(loaded.dataset.test.batches(n_items))))
    finally:
        hook.remove()
    if not seen:
        raise UserError("The task calls this model in its own way, not as model(inputs): it cannot be exported.")
    return seen[0]


def _call(exported: Exported, arguments: tuple[Tensor, ...]) -> object:
    """Call the exported model, which must take every batch that the model takes."""
    try:
        return exported(*arguments)
    except Exception as error:  # torch.export and other runtimes raise many kinds
        first = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The exported model does not take another batch of the test split ({first}): not kept."
        ) from error


def _flat(outputs: object) -> list[Tensor]:
    """Return the tensors of a model's outputs."""
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(outputs) if hasattr(leaf, "shape")]


def _distance(expected: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest difference relative to the largest output; infinite where shapes differ."""
    if [tuple(a.shape) for a in expected] != [tuple(b.shape) for b in found]:
        return float("inf")
    distances = []
    for a, b in zip(expected, found, strict=True):
        largest = a.abs().max().clamp(min=1e-12)
        distances.append(float((a - b).abs().max() / largest))
    return max(distances, default=float("inf"))


# -- formats ------------------------------------------------------------------------------------------------------


def _write_safetensors(loaded: Loaded, inputs: Sequence[tuple[Tensor, ...]], target: Path) -> Exported:
    """Write the weights alone. The check builds a new model from the run's config and loads them."""
    from dl_lab import configs
    from dl_lab.runs.weights import load_weights, save_weights

    save_weights(target, loaded.learner.weights(), {"run": loaded.folder.name})
    learner = configs.build(loaded.config, "procedure").learner
    learner.load_weights(load_weights(target))
    return learner.main_module().eval()


def _free_axes(inputs: Sequence[tuple[Tensor, ...]]) -> tuple[Any, ...]:
    """Return the axes that may have any size: the batch, and those that differ between the two examples (a length)."""
    from torch.export import Dim

    axes: list[dict[int, Any] | None] = []
    for one, other in zip(*inputs[:2], strict=True):
        if not hasattr(one, "shape") or not one.dim():
            axes.append(None)
            continue
        differing = [i for i in range(1, one.dim()) if one.shape[i] != other.shape[i]]
        axes.append({0: Dim("batch"), **dict.fromkeys(differing, Dim.AUTO)})
    return tuple(axes)


def _write_torch_export(loaded: Loaded, inputs: Sequence[tuple[Tensor, ...]], target: Path) -> Exported:
    import torch

    program = _graph(loaded.model, inputs)
    torch.export.save(program, target)
    with warnings.catch_warnings():  # torch.export reads its weights into memory that nobody may write
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.export.load(target).module()


def _graph(model: nn.Module, inputs: Sequence[tuple[Tensor, ...]]) -> ExportedProgram:
    import torch

    try:
        return torch.export.export(model, inputs[0], dynamic_shapes=_free_axes(inputs))
    except Exception as error:  # torch.export raises many kinds
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"torch.export cannot take this model as a graph: {first}") from error


def _write_onnx(loaded: Loaded, inputs: Sequence[tuple[Tensor, ...]], target: Path) -> Exported:
    import onnxruntime
    import torch

    with warnings.catch_warnings():  # torch uses functions that it deprecates
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(_graph(loaded.model, inputs), inputs[0], dynamo=True, verbose=False)
    assert program is not None
    program.save(target)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def call(*arguments: Tensor) -> list[Tensor]:
        given = {name: value.numpy() for name, value in zip(names, arguments, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return call


EXPORTERS = {"safetensors": _write_safetensors, "torch.export": _write_torch_export, "onnx": _write_onnx}
