"""Compare two executions of one run: where they differ first, by how much, and what the cause may be.

This module reads run folders. It imports numpy and safetensors only to compare weights.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dl_lab.runs.files import as_mapping, read_json, read_losses, read_records
from dl_lab.types import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOLERANCE = 1e-5
NUMERIC_PACKAGES = ("numpy", "torchvision", "torchaudio", "scipy", "scikit_learn", "safetensors")  # besides torch
MEASURES_TIME = ("second", "seconds", "milliseconds", "time", "speedup")


@dataclass
class Difference:
    """What was compared, and every place where two executions differ.

    Attributes:
        compared: What was compared.
        places: Where they differ -> how.
        relative: The largest relative difference of any number; infinite where something is missing or not a number.
        first_step: The first update whose losses differ.
        at_start: Whether the weights differ before the first update.
    """

    compared: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    relative: float = 0.0
    first_step: int | None = None
    at_start: bool = False

    def verdict(self, tolerance: float) -> Literal["bit-equal", "equal within the tolerance", "different"]:
        """Judge the difference by the largest relative difference that still counts as equal."""
        if not self.places:
            return "bit-equal"
        return "equal within the tolerance" if self.relative <= tolerance else "different"


def compare(recorded: Path, repeated: Path, steps: int | None = None) -> Difference:
    """Compare two run folders in the order in which things happened.

    Args:
        recorded: The folder of the run.
        repeated: The folder of its new execution.
        steps: Compare only the first updates. None: compare the whole runs.
    """
    found = Difference()
    _compare_data(found, read_data_fingerprint(recorded), read_data_fingerprint(repeated))
    _compare_losses(found, read_losses(recorded)[:steps], read_losses(repeated)[:steps])
    _compare_fingerprints(found, _fingerprints(recorded, steps), _fingerprints(repeated, steps))
    if steps is None:
        _compare_records(found, read_records(recorded / "metrics.jsonl"), read_records(repeated / "metrics.jsonl"))
        _compare_metrics(found, recorded, repeated)
        for name in ("last", "best"):
            path = Path("checkpoints") / f"{name}.safetensors"
            _compare_weights(found, name, recorded / path, repeated / path)
    return found


def read_data_fingerprint(folder: Path) -> str:
    """Read the fingerprint of a run's data set; "" where none is recorded."""
    dataset = (read_json(folder / "status.json") or {}).get("dataset") or {}
    return str(dataset.get("fingerprint", ""))


def _compare_data(found: Difference, before: str, now: str) -> None:
    if not before or not now:
        return
    found.compared.append("the data")
    if before != now:
        found.places["data"] = f"the fingerprint of the data set was {before}, now {now}"
        found.relative = math.inf


def _have_same_bits(one: float, other: float) -> bool:
    return struct.pack("<d", one) == struct.pack("<d", other)


def _relative_difference(one: object, other: object) -> float:
    """Return the difference of two numbers relative to the larger one; infinite where only one of them is finite."""
    if one is other or one == other:
        return 0.0
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return math.inf
    if not math.isfinite(one) or not math.isfinite(other):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def _compare_losses(found: Difference, before: Sequence[float], now: Sequence[float]) -> None:
    if not before:
        return
    found.compared.append(f"{len(before):,} losses")
    if len(before) != len(now):
        found.places["number of updates"] = f"{len(before):,} then, {len(now):,} now"
        found.relative = math.inf
    pairs = list(zip(before, now, strict=False))
    found.relative = max([found.relative, *(_relative_difference(a, b) for a, b in pairs)])
    for step, (old, new) in enumerate(pairs, 1):
        if not _have_same_bits(old, new):
            found.first_step = step
            found.places["first step"] = f"update {step}: its loss was {old!r}, now {new!r}"
            return


def _fingerprints(folder: Path, steps: int | None) -> dict[int, dict[str, str]]:
    """Read the fingerprints of the weights: number of updates -> weight -> CRC-32C."""
    found = {}
    for record in read_records(folder / "weights.jsonl"):
        is_wanted = steps is None or record["step"] <= steps
        if is_wanted and "crc32c" in record:  # earlier versions wrote another digest
            found[record["step"]] = record["crc32c"]
    return found


def _compare_fingerprints(
    found: Difference, before: Mapping[int, Mapping[str, str]], now: Mapping[int, Mapping[str, str]]
) -> None:
    steps = sorted(before.keys() & now.keys())
    if not steps:
        return
    found.compared.append(f"all weights after {len(steps)} of the updates")
    same_until = None
    for step in steps:
        changed = [name for name, bits in before[step].items() if now[step].get(name) != bits]
        if changed:
            when = f"after {count(step, 'update')}" if step else "before the first update"
            since = f", still the same after {same_until}" if same_until is not None else ""
            share = f"{len(changed)} of {len(before[step])}"
            found.places["first tensor"] = f"{changed[0]} ({share} differ) {when}{since}"
            found.at_start = step == 0
            return
        same_until = step


def _compare_records(
    found: Difference, before: Sequence[Mapping[str, object]], now: Sequence[Mapping[str, object]]
) -> None:
    if not before:
        return
    found.compared.append(f"{len(before)} records")
    if len(before) != len(now):
        found.places["number of records"] = f"{len(before)} then, {len(now)} now"
        found.relative = math.inf
    for a, b in zip(before, now, strict=False):
        _compare_numbers(found, "first record", f"epoch {a.get('epoch')}, ", a, b)


def _compare_metrics(found: Difference, recorded: Path, repeated: Path) -> None:
    before = _final_metrics(recorded)
    found.compared.append(f"{len(before)} final metrics")
    _compare_numbers(found, "final metric", "", before, _final_metrics(repeated))


def _final_metrics(folder: Path) -> Mapping[str, object]:
    return (read_json(folder / "summary.json") or {}).get("metrics", {})


def _compare_numbers(
    found: Difference, place: str, where: str, before: Mapping[str, object], now: Mapping[str, object]
) -> None:
    """Compare metrics by name, except those that measure time."""
    for name in dict.fromkeys([*before, *now]):
        old = before.get(name)
        new = now.get(name)
        if old != new and not _is_time(name):
            found.relative = max(found.relative, _relative_difference(old, new))
            found.places.setdefault(place, f"{where}{name}: was {old!r}, now {new!r}")


def _is_time(name: str) -> bool:
    words = name.replace("/", "_").replace("-", "_").split("_")
    return any(word in MEASURES_TIME for word in words)


def _compare_weights(found: Difference, name: str, recorded: Path, repeated: Path) -> None:
    if not recorded.exists():
        return
    before = _read_tensors(recorded)
    now = _read_tensors(repeated) if repeated.exists() else {}
    found.compared.append(f"the {name} weights")
    changed: dict[str, tuple[float, float]] = {}
    for tensor in dict.fromkeys([*before, *now]):
        if tensor in before and tensor in now and before[tensor].shape == now[tensor].shape:
            if before[tensor].tobytes() != now[tensor].tobytes():
                changed[tensor] = _distance(before[tensor], now[tensor])
        else:
            changed[tensor] = (math.inf, math.inf)
    if changed:
        worst = max(changed, key=lambda tensor: changed[tensor][0])
        relative, absolute = changed[worst]
        found.relative = max(found.relative, relative)
        found.places[f"{name} weights"] = (
            f"{len(changed)} of {len(before)} tensors; most in {worst}, by up to {absolute:.3g} "
            f"({relative:.2g} of its largest value)"
        )


def _read_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read tensors by name, as float64 or as integers."""
    from dl_lab.runs.weights import load_weights

    tensors = {}
    for name, tensor in load_weights(path).items():
        tensors[name] = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    return tensors


def _distance(one: NDArray[np.generic], other: NDArray[np.generic]) -> tuple[float, float]:
    """Return the largest difference, relative to the largest value and absolute."""
    import numpy as np

    difference = float(np.max(np.abs(one.astype(float) - other.astype(float))))
    largest = float(np.max(np.abs(one.astype(float))))
    return (difference / largest if largest else math.inf), difference


# -- why ----------------------------------------------------------------------------------------------------------


def environment_changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, str]:
    """List the changes in env.json that can change a number, the likeliest cause first.

    Returns:
        What changed -> how: {"torch": "2.10 then, 2.11 now"}.
    """
    old_facts = _facts(before)
    new_facts = _facts(now)
    changed = {}
    for name in (*DEVICE_FACTS, "processor", "Python"):
        if name in old_facts and name in new_facts and old_facts[name] != new_facts[name]:
            changed[name] = f"{old_facts[name] or 'none'} then, {new_facts[name] or 'none'} now"
    if before.get("code") and before["code"] != now.get("code"):
        changed["dl-lab's code"] = f"{_describe_code(before)} then, {_describe_code(now)} now"
    old_packages = as_mapping(before.get("packages"))
    new_packages = as_mapping(now.get("packages"))
    for name in NUMERIC_PACKAGES:
        old = old_packages.get(name)
        new = new_packages.get(name)
        if old != new:
            changed[name] = f"{old or 'none'} then, {new or 'none'} now"
    return changed


DEVICE_FACTS = {"GPU": "gpus", "TF32": "tf32", "torch": "torch", "CUDA": "cuda", "threads": "threads"}


def _facts(environment: Mapping[str, object]) -> dict[str, object]:
    """Return the facts of an environment that can change a number. A fact that is not recorded is left out."""
    devices = as_mapping(environment.get("devices"))
    facts: dict[str, object] = {name: devices[key] for name, key in DEVICE_FACTS.items() if key in devices}
    if "GPU" in facts:
        facts["GPU"] = ", ".join(devices["gpus"] or [])
    facts.setdefault("torch", as_mapping(environment.get("packages")).get("torch", ""))
    facts["processor"] = environment.get("cpu", "")
    facts["Python"] = environment.get("python", "")
    return facts


def _describe_code(environment: Mapping[str, object]) -> str:
    git = as_mapping(environment.get("git"))
    if not git.get("sha"):
        return str(environment.get("code"))
    state = ", with changes" if git.get("dirty") else ""
    return f"{environment.get('code')} (git {git['sha'][:8]}{state})"


def causes(
    difference: Difference,
    changes: Mapping[str, str],
    data: tuple[str, str],
    repeatable: bool | None,
    accumulation: tuple[int, int] = (1, 1),
) -> list[str]:
    """Return the likely causes of a difference, the likeliest first.

    Args:
        difference: The difference.
        changes: What changed in the environment -> how.
        data: The fingerprints of the data, then and now.
        repeatable: Whether two executions here and now agree. None: not known.
        accumulation: The number of micro-batches of a batch, then and now.
    """
    found = []
    if data[0] != data[1]:
        found.append(f"other data: the fingerprint was {data[0] or 'none'}, now {data[1] or 'none'}")
    if repeatable is False:
        found.append(
            "an operation that does not repeat itself: two executions here and now differ from each other "
            "(deterministic=true names the operation or refuses it)"
        )
    if accumulation[0] != accumulation[1]:
        found.append(
            f"memory was short: batches were split into {accumulation[0]} parts, now into {accumulation[1]}; their "
            "sums are rounded differently"
        )
    found += [f"{_explain_change(name)}: {words}" for name, words in changes.items()]
    if difference.at_start and not found:
        found.append("the weights differ before the first update: how they are drawn has changed")
    if not found:
        found.append(
            "nothing that is recorded has changed, and an execution repeats itself here: the record itself was "
            "changed, or the run depends on something that is not recorded"
        )
    return found


def _explain_change(name: str) -> str:
    if name == "GPU":
        return "another GPU (other kernels, another order of sums)"
    if name == "TF32":
        return "other operations in TF32 (float32 rounded to 10 bits of mantissa)"
    if name in ("threads", "dl-lab's code"):
        return f"other {name}"
    return f"another {name}"
