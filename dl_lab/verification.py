"""Two executions of one run held against each other: where they differ first, how much, and what may be the cause.

Reads run folders; imports numpy and safetensors only to compare weights.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dl_lab.run import read_json, read_losses, read_records

TOLERANCE = 1e-5
NUMERIC_PACKAGES = ("torch", "numpy", "torchvision", "torchaudio", "scipy", "scikit_learn", "safetensors")
MEASURES_TIME = ("second", "seconds", "milliseconds", "time", "speedup")


@dataclass
class Difference:
    """What was compared, and every place where two executions differ.

    relative: the largest relative difference of any number; infinite where something is missing or not a number.
    """

    compared: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    relative: float = 0.0
    first_step: int | None = None
    at_start: bool = False  # the weights differ before the first update

    def verdict(self, tolerance: float) -> Literal["bit-equal", "equal within the tolerance", "different"]:
        if not self.places:
            return "bit-equal"
        return "equal within the tolerance" if self.relative <= tolerance else "different"


def compare(recorded: Path, repeated: Path, steps: int | None = None) -> Difference:
    """Compare run folders in the order in which things happened; only the first `steps` updates where that is given."""
    found = Difference()
    _compare_losses(found, read_losses(recorded), read_losses(repeated), steps)
    _compare_fingerprints(found, _fingerprints(recorded, steps), _fingerprints(repeated, steps))
    if steps is None:
        _compare_records(found, read_records(recorded / "metrics.jsonl"), read_records(repeated / "metrics.jsonl"))
        _compare_metrics(found, recorded, repeated)
        for name in ("last", "best"):
            _compare_weights(
                found, name, *(path / "checkpoints" / f"{name}.safetensors" for path in (recorded, repeated))
            )
    return found


def _same(one: float, other: float) -> bool:
    return struct.pack("<d", one) == struct.pack("<d", other)


def _relative(one: Any, other: Any) -> float:
    """0 for the same number; infinite where one of them is none."""
    numbers = [value for value in (one, other) if isinstance(value, int | float) and math.isfinite(value)]
    if len(numbers) < 2:
        return 0.0 if one is other or one == other else math.inf
    largest = max(map(abs, numbers))
    return abs(one - other) / largest if largest else 0.0


def _compare_losses(found: Difference, before: Sequence[float], now: Sequence[float], steps: int | None) -> None:
    if not before:
        return
    before, now = before[:steps], now[:steps]
    found.compared.append(f"{len(before):,} losses")
    if len(before) != len(now):
        found.places["number of updates"] = f"{len(before):,} then, {len(now):,} now"
        found.relative = math.inf
    pairs = list(zip(before, now, strict=False))
    found.relative = max([found.relative, *(_relative(a, b) for a, b in pairs)])
    first = next((i for i, (a, b) in enumerate(pairs) if not _same(a, b)), None)
    if first is not None:
        found.first_step = first + 1
        found.places["first step"] = f"update {first + 1}: its loss was {before[first]!r}, now {now[first]!r}"


def _fingerprints(folder: Path, steps: int | None) -> dict[int, dict[str, str]]:
    records = read_records(folder / "weights.jsonl")
    recorded = [record for record in records if "crc32c" in record]  # earlier versions had another digest
    return {r["step"]: r["crc32c"] for r in recorded if steps is None or r["step"] <= steps}


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
            first, n = changed[0], len(before[step])
            when = f"after {step} updates" if step else "before the first update"
            since = f", still the same after {same_until}" if same_until is not None else ""
            found.places["first tensor"] = f"{first} ({len(changed)} of {n} differ) {when}{since}"
            found.at_start = step == 0
            return
        same_until = step


def _compare_records(found: Difference, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    if not before:
        return
    found.compared.append(f"{len(before)} records")
    if len(before) != len(now):
        found.places["number of records"] = f"{len(before)} then, {len(now)} now"
        found.relative = math.inf
    for a, b in zip(before, now, strict=False):
        _compare_numbers(found, "first record", f"epoch {a.get('epoch')}, ", a, b)


def _compare_metrics(found: Difference, recorded: Path, repeated: Path) -> None:
    before, now = ((read_json(path / "summary.json") or {}).get("metrics", {}) for path in (recorded, repeated))
    found.compared.append(f"{len(before)} final metrics")
    _compare_numbers(found, "final metric", "", before, now)


def _compare_numbers(
    found: Difference, place: str, where: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """By name; what measures time is left out."""
    for name in dict.fromkeys([*before, *now]):
        a, b = before.get(name), now.get(name)
        if a != b and not _is_time(name):
            found.relative = max(found.relative, _relative(a, b))
            found.places.setdefault(place, f"{where}{name}: was {a!r}, now {b!r}")


def _is_time(name: str) -> bool:
    words = name.replace("/", "_").replace("-", "_").split("_")
    return any(word in MEASURES_TIME for word in words)


def _compare_weights(found: Difference, name: str, recorded: Path, repeated: Path) -> None:
    if not recorded.exists():
        return
    before, now = _tensors(recorded), _tensors(repeated) if repeated.exists() else {}
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


def _tensors(path: Path) -> dict[str, Any]:
    """By name, as float64 or as integers. Raises UserError where the file cannot be read."""
    from dl_lab.training.checkpoints import load_weights

    loaded = load_weights(path)
    return {name: (t.double() if t.is_floating_point() else t).numpy() for name, t in loaded.items()}


def _distance(one: Any, other: Any) -> tuple[float, float]:
    """(relative to the largest value, absolute)."""
    import numpy

    difference = float(numpy.max(numpy.abs(one.astype(float) - other.astype(float))))
    largest = float(numpy.max(numpy.abs(one.astype(float))))
    return (difference / largest if largest else math.inf), difference


# -- why ----------------------------------------------------------------------------------------------------------


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What of env.json can change a number, in the order of how likely it does: {"torch": "2.10 then, 2.11 now"}."""
    packages = [env.get("packages") or {} for env in (before, now)]
    devices = [env.get("devices") or {} for env in (before, now)]
    facts = {
        "GPU": [", ".join(d.get("gpus") or []) or "none" for d in devices] if all(devices) else ["", ""],
        # a run made before this was recorded: not known, so not a change
        "TF32": [d.get("tf32") for d in devices] if all("tf32" in d for d in devices) else ["", ""],
        "torch": [d.get("torch") or p.get("torch", "") for d, p in zip(devices, packages, strict=True)],
        "CUDA": [d.get("cuda") for d in devices] if all(devices) else ["", ""],
        "threads": [d.get("threads") for d in devices] if all(devices) else ["", ""],
        "processor": [env.get("cpu", "") for env in (before, now)],
        "Python": [env.get("python", "") for env in (before, now)],
    }
    changed = {
        name: f"{then or 'none'} then, {new or 'none'} now" for name, (then, new) in facts.items() if then != new
    }
    if before.get("code") and before["code"] != now.get("code"):
        changed["dl-lab's code"] = f"{_code(before)} then, {_code(now)} now"
    for name in NUMERIC_PACKAGES[1:]:
        then, new = (found.get(name) for found in packages)
        if then != new:
            changed[name] = f"{then or 'none'} then, {new or 'none'} now"
    return changed


def _code(environment: Mapping[str, Any]) -> str:
    git = environment.get("git") or {}
    at = f" (git {git['sha'][:8]}{', with changes' if git.get('dirty') else ''})" if git.get("sha") else ""
    return f"{environment.get('code')}{at}"


def causes(
    difference: Difference,
    changes: Mapping[str, str],
    data: tuple[str, str],
    repeatable: bool | None,
    accumulation: tuple[int, int] = (1, 1),
) -> list[str]:
    """The likely causes, the likeliest first. data: fingerprints then and now. repeatable: whether two executions
    here and now agree (None: not known). accumulation: micro-batches then and now."""
    found = []
    if data[0] != data[1]:
        found.append(f"other data: the fingerprint was {data[0] or 'none'}, is {data[1] or 'none'}")
    if repeatable is False:
        found.append(
            "an operation that does not repeat itself: two executions here and now differ from each other "
            "(deterministic=true names the operation or refuses it)"
        )
    if accumulation[0] != accumulation[1]:
        found.append(
            f"memory was short: batches were split in {accumulation[0]}, now in {accumulation[1]}; sums round otherwise"
        )
    found += [f"{_explained(name)}: {words}" for name, words in changes.items()]
    if difference.at_start and not found:
        found.append("the weights differ before the first update: how they are drawn has changed")
    if not found:
        found.append(
            "nothing that was recorded has changed, and an execution repeats itself here: the record itself was "
            "changed, or the run rests on something that is not recorded"
        )
    return found


def _explained(name: str) -> str:
    if name == "GPU":
        return "another GPU (other kernels, another order of sums)"
    if name == "TF32":
        return "other operations in TF32 (float32 rounded to 10 bits of mantissa)"
    return f"another {name}" if name not in ("threads", "dl-lab's code") else f"other {name}"
