"""dl-lab export: a run's model as safetensors, ONNX or torch.export.

The exported file is read again and must give the model's own outputs on items of the real test split, for more than one
batch size. Exit status: 0 exported and checked, 1 it does not give the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch.export": ".pt2"}
SIZES = (3, 8)  # items; the second is another batch size than the one exported with
TOLERANCE = 1e-4  # relative to the largest output: other runtimes sum in another order
Outputs = list[Any]


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    if options.format == "onnx":
        _need("onnx", "onnxscript", "onnxruntime")
    import torch

    from dl_lab import loading

    loaded = loading.load(options.run, options.outputs)
    target = options.to or loaded.folder / f"model{ENDINGS[options.format]}"
    if target.exists():
        raise UserError(f"{target} exists already: name another file with --to.")
    inputs = [real_inputs(loaded, size) for size in SIZES]
    with torch.no_grad():
        expected = [_flat(loaded.model(*arguments)) for arguments in inputs]
        exported = EXPORTERS[options.format](loaded, inputs[0], target)
        distance = max(_distance(a, _flat(exported(*b))) for a, b in zip(expected, inputs, strict=True))
    if not distance <= TOLERANCE:
        target.unlink(missing_ok=True)
        raise UserError(f"The exported model gives other outputs (by up to {distance:.2g} of the largest): not kept.")
    same = "the same bits" if distance == 0 else f"the same within {distance:.1g} of the largest output"
    print(f"{target}: {target.stat().st_size:,} bytes; on {SIZES[0]} and {SIZES[1]} test items {same}.")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab export", description=summary, epilog=details, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("--format", choices=list(ENDINGS), default="safetensors", help="(%(default)s)")
    parser.add_argument("--to", type=Path, metavar="FILE", help="what to write (model.* in the run's folder)")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_args(list(argv))


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs more packages:  pip install {' '.join(missing)}")


def real_inputs(loaded: Any, n_items: int) -> tuple[Tensor, ...]:
    """What the task hands to the model for the first items of the test split."""
    seen: list[tuple[Tensor, ...]] = []
    hook = loaded.model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    try:
        loaded.learner.evaluate(next(iter(loaded.dataset.test.batches(n_items))))
    finally:
        hook.remove()
    if not seen:
        raise UserError("The task calls this model in its own way, not as model(inputs): it cannot be exported.")
    return seen[0]


def _flat(outputs: Any) -> Outputs:
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(outputs) if hasattr(leaf, "shape")]


def _distance(expected: Outputs, found: Outputs) -> float:
    if [tuple(a.shape) for a in expected] != [tuple(b.shape) for b in found]:
        return float("inf")
    parts = [float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in zip(expected, found, strict=True)]
    return max(parts, default=float("inf"))


# -- formats ------------------------------------------------------------------------------------------------------


def _safetensors(loaded: Any, inputs: tuple[Tensor, ...], target: Path) -> Callable[..., Any]:
    """Weights alone; checked in a model built anew from the run's config."""
    from dl_lab import config as configs
    from dl_lab.training.checkpoints import load_weights, save_weights

    save_weights(target, loaded.learner.weights(), {"run": loaded.folder.name})
    learner = configs.build(loaded.config, "procedure").learner
    learner.load_weights(load_weights(target))
    return learner.model.eval()


def _any_batch(inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """The first axis of every tensor is the batch, of any size."""
    from torch.export import Dim

    return tuple({0: Dim("batch")} if hasattr(x, "shape") and x.dim() else None for x in inputs)


def _torch_export(loaded: Any, inputs: tuple[Tensor, ...], target: Path) -> Callable[..., Any]:
    import torch

    program = _exported(loaded.model, inputs)
    torch.export.save(program, target)
    with warnings.catch_warnings():  # torch.export reads its weights into memory that nobody may write
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.export.load(target).module()


def _exported(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    import torch

    try:
        return torch.export.export(model, inputs, dynamic_shapes=_any_batch(inputs))
    except Exception as error:  # torch.export raises many kinds
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"torch.export cannot take this model as a graph: {first}") from error


def _onnx(loaded: Any, inputs: tuple[Tensor, ...], target: Path) -> Callable[..., Any]:
    import onnxruntime  # pyright: ignore[reportMissingImports]
    import torch

    with warnings.catch_warnings():  # torch's own use of what it deprecates
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(_exported(loaded.model, inputs), inputs, dynamo=True, verbose=False)
    assert program is not None
    program.save(target)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def call(*arguments: Tensor) -> list[Tensor]:
        given = {name: value.numpy() for name, value in zip(names, arguments, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return call


EXPORTERS = {"safetensors": _safetensors, "torch.export": _torch_export, "onnx": _onnx}
