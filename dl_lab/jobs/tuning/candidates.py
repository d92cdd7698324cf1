"""Which settings are worth a try for a job on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dl_lab import keys
from dl_lab.runs import local
from dl_lab.runs.files import as_mapping

Setting: TypeAlias = bool | int | str  # the value of a key

EVALUATION_BATCHES = (64, 256, 1024, 4096)
MOST_LANES = 16


@dataclass(frozen=True)
class Facts:
    """What a job is like on this machine.

    Attributes:
        device: The type of its device.
        threads: Threads of torch.
        dimensions: The number of axes of each column of a batch.
        batch_size: Items in a batch of the training.
        eval_batch_size: Items in a batch of the evaluation.
        n_val: Items of the validation split.
    """

    device: str
    threads: int
    dimensions: Sequence[int]
    batch_size: int
    eval_batch_size: int
    n_val: int


@dataclass(frozen=True)
class Candidate:
    """One setting that differs from the job as it is.

    Attributes:
        settings: Key -> value, as `local.yaml` would hold them.
        words: The overrides that make it; a thread count needs none.
        threads: Threads of torch; None leaves them as they are.
        is_compiled: Whether it begins with a compilation, which takes long.
    """

    settings: Mapping[str, Setting]
    words: tuple[str, ...] = ()
    threads: int | None = None
    is_compiled: bool = False

    @property
    def name(self) -> str:
        """As the user would type it."""
        return " ".join(f"{key}={_word(value)}" for key, value in self.settings.items())

    @property
    def is_local(self) -> bool:
        """Whether `local.yaml` may hold it: no key of it can change a result."""
        return all(key in local.SETTINGS and not keys.counts(key).identity for key in self.settings)


def _word(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _override(key: str, value: Setting, is_compiled: bool = False) -> Candidate:
    return Candidate({key: value}, (f"{key}={_word(value)}",), is_compiled=is_compiled)


def for_training(config: Mapping[str, object], facts: Facts, n_cores: int, typed: Collection[str]) -> list[Candidate]:
    """The settings to try while training, those that change no value first.

    Args:
        config: The resolved config of the job.
        facts: What a trial of the job said.
        n_cores: CPU cores that this process may use.
        typed: Keys of the command line: the user has decided them.
    """
    procedure = as_mapping(config["procedure"])
    learner = as_mapping(procedure.get("learner"))
    on_gpu = facts.device == "cuda"
    found: list[Candidate] = []
    if not on_gpu:
        counts = sorted({1, n_cores // 4, n_cores // 2, n_cores} - {0, facts.threads})
        found += [Candidate({"threads": count}, threads=count) for count in counts]
    found += _loading(as_mapping(procedure.get("dataset")), n_cores)
    if learner.get("channels_last") is False and 4 in facts.dimensions:
        found.append(_override("learner.channels_last", True))
    fused = as_mapping(learner.get("optimizer")).get("fused")
    if isinstance(fused, bool):
        found.append(_override("optimizer.fused", not fused))
    if learner.get("precision") == "fp32":
        found.append(_override("learner.precision", "bf16"))
        if on_gpu:
            found.append(_override("learner.precision", "fp16"))
    if on_gpu and learner.get("accumulation") == 1 and facts.batch_size >= 4:
        found.append(_override("learner.accumulation", 2))
    if learner.get("compile") is False:
        found.append(_override("learner.compile", True, is_compiled=True))
    return [candidate for candidate in found if not set(candidate.settings) & set(typed)]


def _loading(dataset: Mapping[str, object], n_cores: int) -> list[Candidate]:
    """Where the items reside, and how many workers gather them."""
    loading = dataset.get("loading")
    found = []
    if isinstance(loading, Mapping) and "residence" in loading:
        other = "device" if loading["residence"] == "stream" else "stream"
        found.append(_override("dataset.loading.residence", other))
        if loading["residence"] == "stream":
            counts = sorted({0, 1, n_cores} - {loading.get("workers")})
            found += [_override("dataset.loading.workers", count) for count in counts]
    workers = dataset.get("workers")
    if isinstance(workers, int):
        found += [_override("dataset.workers", count) for count in sorted({0, 1, n_cores} - {workers})]
    return found


def for_judging(facts: Facts, typed: Collection[str]) -> list[int]:
    """Sizes of an evaluation batch, the least first; the job's own size is one of them, or there is no other."""
    own = min(facts.eval_batch_size, facts.n_val)
    if "trainer.eval_batch_size" in typed or not facts.n_val:
        return [own]
    return sorted({own, *(min(size, facts.n_val) for size in EVALUATION_BATCHES)})


@dataclass(frozen=True)
class Lanes:
    """Jobs of a sweep that run at the same time.

    Attributes:
        count: How many.
        threads: Of each job.
    """

    count: int
    threads: int


def for_sweeps(facts: Facts, n_cores: int, typed: Collection[str]) -> list[Lanes]:
    """Lanes to try; the first is what `lanes=auto` means. One entry: there is nothing to choose."""
    if facts.device == "cuda":
        auto = Lanes(1, n_cores)
        others = [Lanes(count, max(1, n_cores // count)) for count in (2, 4)]
    else:
        auto = Lanes(n_cores, 1)
        others = [Lanes(count, n_cores // count) for count in sorted({1, n_cores // 2}) if 0 < count < n_cores]
    if auto.count > MOST_LANES or {"lanes", "threads"} & set(typed):
        return [auto]
    return [auto, *others]
