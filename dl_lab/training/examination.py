"""The examination of a trained model at the end of a fit: facts that the doctor cannot read from curves.

The model is checked in evaluation mode, and the random generators keep their state. Nothing here changes a weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.text.tokens import TokenSplit
from dl_lab.training.data_examination import Facts, lies_in_memory, undisturbed
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Batch, Learner, Split

ITEMS_TRIED = 64  # validation items
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def examine_model(learner: Learner, dataset: Dataset, n_seen: int, is_plain: bool | None = None) -> Facts:
    """Check a trained model as its last evaluation left it.

    Args:
        learner: The learner. Its model is checked if it trains a torch model by gradient (`GradientLearner`).
        dataset: All items.
        n_seen: How many items the training has learned from, repetitions included. The model is tried on a two
            hundredth of that, at most ITEMS_TRIED items, so that the examination takes a small part of the time.
        is_plain: Whether the model takes numbers and returns one tensor; None where that is not known. A plain model
            has no padding and no code, so it is not tried unless it has attention. One that is not known is tried only
            if it reads tokens.

    Returns:
        Plain values by name; a check that does not apply is left out.
    """
    if not isinstance(learner, GradientLearner):
        return {}
    model = learner.model
    dropouts = [(name, module) for name, module in model.named_modules() if isinstance(module, DROPOUTS)]
    found: Facts = {
        "dropout_in_evaluation": [name for name, module in dropouts if module.training],
        "not_in_optimizer": _find_forgotten(learner),
    }
    reads_tokens = isinstance(dataset.val, TokenSplit) or hasattr(model, "attention_maps")
    is_compiled = learner.forward is not model  # or a part of one
    if (is_plain is False or reads_tokens) and lies_in_memory(dataset) and not is_compiled:
        with undisturbed():
            found |= _try_model(learner, dataset.val, max(2, min(ITEMS_TRIED, n_seen // 200)))
    return found


def _find_forgotten(learner: GradientLearner) -> list[str]:
    """Return the names of the trained parameters that no optimizer of the learner has."""
    optimizers = [value for value in vars(learner).values() if isinstance(value, Optimizer)]
    if not optimizers:
        return []
    known = {parameter for one in optimizers for group in one.param_groups for parameter in group["params"]}
    return [name for name, value in learner.model.named_parameters() if value.requires_grad and value not in known]


def _try_model(learner: GradientLearner, split: Split, n_items: int) -> Facts:
    batch = next(iter(split.batches(min(len(split), n_items))))
    output = capture_output(learner, batch)
    found = _describe_code(output) | _describe_attention(learner.model, batch)
    mask = getattr(batch, "mask", None)
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and not batch.x.is_floating_point():
        found |= _change_padding(learner, batch, output)
    return found


def capture_output(learner: GradientLearner, batch: Batch) -> object:
    """Return the output of the model while the learner evaluates a batch.

    The task knows which columns of the batch the model takes.

    Returns:
        The output of the first call; None where the task does not call the model itself.
    """
    outputs: list[object] = []
    handle = learner.model.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    try:
        with torch.no_grad():
            learner.evaluate(batch)
    finally:
        handle.remove()
    return outputs[0] if outputs else None


def _describe_code(output: object) -> Facts:
    """Return the KL divergence of each latent unit of a variational autoencoder, in nats: its mean over the batch."""
    if not isinstance(output, tuple) or len(output) != 3:
        return {}
    _, mean, log_variance = output
    if not isinstance(mean, Tensor) or not isinstance(log_variance, Tensor):
        return {}
    if mean.dim() != 2 or mean.shape != log_variance.shape:
        return {}
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp())  # Kingma and Welling 2014, appendix B
    return {"kl_by_unit": divergence.mean(dim=0).tolist()}


def _describe_attention(model: nn.Module, batch: Batch) -> Facts:
    """Return the entropy of each layer's attention, as a share of the most that the lengths allow.

    A share of 1 is attention that chooses nothing.
    """
    read_maps: Callable[[Tensor, Tensor], list[Tensor]] | None = getattr(model, "attention_maps", None)
    if read_maps is None or not isinstance(getattr(batch, "mask", None), Tensor):
        return {}
    most = batch.mask.sum(dim=1).clamp(min=2).log()  # (batch,)
    shares: list[float] = []
    maps = read_maps(batch.x, batch.mask)  # a layer: (batch, heads, length, length)
    for weights in maps:
        entropy = -(weights * weights.clamp(min=1e-12).log()).sum(dim=-1).mean(dim=1)  # (batch, length)
        own = (entropy * batch.mask).sum(dim=1) / batch.mask.sum(dim=1).clamp(min=1)
        shares.append(float((own / most).mean()))
    return {"attention_entropy": shares}


def _change_padding(learner: GradientLearner, batch: Batch, output: object) -> Facts:
    """Write other tokens into the padding, and return how much the output changes: it must not read the padding."""
    padding = ~batch.mask
    if not padding.any() or padding.all():
        return {}
    other = torch.where(padding, batch.x.max(), batch.x)
    if torch.equal(other, batch.x):
        return {}
    first = _find_scores(output)
    second = _find_scores(capture_output(learner, batch._replace(x=other)))
    if first is None or second is None or first.shape != second.shape:
        return {}
    rows = padding.flatten(1).any(dim=1)
    difference = (first - second)[rows].abs().max() / first.std().clamp(min=1e-8)
    return {"padding_effect": float(difference)}


def _find_scores(output: object) -> Tensor | None:
    """Return the scores (batch, classes) of a classifier; None for other outputs."""
    if isinstance(output, Tensor) and output.is_floating_point() and output.dim() == 2:
        return output.float()
    return None
