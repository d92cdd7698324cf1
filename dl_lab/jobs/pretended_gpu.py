"""Try one step on a pretended GPU: does the model mix devices, or make the GPU wait for the host?

torch's fake tensors have shapes, types and a device, and no values. A step on fake CUDA tensors needs no GPU and
computes nothing. It fails where a tensor on the CPU meets one on the GPU. It also fails where the program asks for a
value (`.item()`, `if tensor:`, `nonzero`): a real GPU would first have to finish all earlier work.
"""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor

from dl_lab import configs
from dl_lab.configs.parts import procedure_of
from dl_lab.jobs.procedure import build_procedure
from dl_lab.jobs.rehearsal import shrink
from dl_lab.show.doctor.findings import Finding
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Batch, Task, UserError

ASKED_FOR_A_VALUE = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
)


def try_run(folder: Path) -> list[Finding]:
    """Build the model of a run again, and try a step on a pretended GPU.

    Raises:
        ConfigError: A part of the run cannot be built.
        UserError: The step fails for a reason that has nothing to do with devices.
    """
    fault = find_device_fault(configs.read_config(folder))
    if not fault:
        return []
    if fault.startswith("A step waits"):
        name = "waiting-for-the-host"
        means = "On a GPU each such step waits until all earlier work is finished, and the GPU idles meanwhile."
    else:
        name = "mixed-devices"
        means = "On a GPU this step fails. Register the tensor as a buffer, or make it on the input's device."
    return [Finding(name, fault, means, (), 0.8)]


def find_device_fault(config: Mapping[str, object]) -> str:
    """Try the forward pass and the loss on a pretended GPU.

    Args:
        config: A checked config.

    Returns:
        One sentence with the fault and its place in the code; "" where nothing is wrong, and for a procedure that
        trains no torch model.

    Raises:
        ConfigError: A part cannot be built.
    """
    training = build_procedure({**config, "procedure": shrink(procedure_of(config))}).training()
    if training is None or not isinstance(training.learner, GradientLearner):
        return ""
    learner = training.learner
    batch = next(iter(training.dataset.train.batches(4)))
    return try_step(learner.model, learner.task, batch)


def try_step(model: nn.Module, task: Task, batch: Batch) -> str:
    """Try the forward pass and the loss of one batch on a pretended GPU.

    Args:
        model: The model. It stays as it is.
        task: The task that computes the loss.
        batch: One batch, on the CPU.

    Returns:
        One sentence with the fault and its place in the code; "" where nothing is wrong. A warning names an operation
        that torch cannot pretend: what follows it is not tried.

    Raises:
        UserError: The step fails for a reason that has nothing to do with devices.
    """
    mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
    try:
        with mode, torch.backends.cudnn.flags(enabled=False):  # asking cuDNN needs a driver
            moved_task = cast(Task, pretend_move(task)) if isinstance(task, nn.Module) else task
            moved_task.loss(pretend_move(model), _map_tensors(batch))
    except ASKED_FOR_A_VALUE as error:
        return f"A step waits for the GPU: {_name_operation(error)} asks for a value{_find_place(error)}."
    except fake_tensor.UnsupportedOperatorException as error:  # ctc_loss
        warnings.warn(
            f"torch cannot pretend {_name_operation(error)}. Only the operations before it were tried.", stacklevel=2
        )
    except RuntimeError as error:
        text = str(error)
        if "device" in text and ("cpu" in text or "cuda" in text):
            return f"A step mixes devices: {text.splitlines()[0]}{_find_place(error)}."
        raise UserError(f"The step cannot be tried on a pretended GPU: {text.splitlines()[0]}") from error
    return ""


def pretend_move(model: nn.Module) -> nn.Module:
    """Copy a module; the parameters and buffers of the copy are fake tensors on a GPU.

    Args:
        model: The module. It stays as it is.
    """
    # Inside the caller's FakeTensorMode a plain deepcopy would make fake tensors of the original's device.
    with fake_tensor.unset_fake_temporarily():
        moved = copy.deepcopy(model)
    for module in moved.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                setattr(module, name, nn.Parameter(_pretend(parameter), parameter.requires_grad))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                setattr(module, name, _pretend(buffer))
    return moved


def _pretend(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


def _map_tensors(batch: Batch) -> Batch:
    if isinstance(batch, Tensor):
        return _pretend(batch)
    if isinstance(batch, Mapping):
        return {name: _map_tensors(value) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*[_map_tensors(value) for value in batch])
    if isinstance(batch, tuple | list):
        return type(batch)(_map_tensors(value) for value in batch)
    return batch


def _name_operation(error: BaseException) -> str:
    return str(getattr(error, "func", None) or error).removeprefix("aten.").partition(".")[0]


def _find_place(error: BaseException) -> str:
    """Name the last line of the traceback outside torch, as in " (model.py, line 12)"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "site-packages" not in frame.filename and frame.filename != __file__:
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
