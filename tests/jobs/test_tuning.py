"""Tuning: what the rounds say, what counts as a change of results, and what the command writes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dl_lab import keys
from dl_lab.datasets.dataset import Dataset
from dl_lab.jobs.tuning import trial
from dl_lab.jobs.tuning.candidates import Candidate, Facts, for_judging, for_sweeps, for_training
from dl_lab.jobs.tuning.findings import Found, Row
from dl_lab.jobs.tuning.rounds import CONTROL, Rounds, compare
from dl_lab.jobs.tuning.trial import Proof, TrialFailed
from dl_lab.jobs.tuning.tune import BASE, Tuning
from dl_lab.runs import local
from dl_lab.training.trainer import Trainer
from dl_lab.types import Ratio


@dataclass
class Clock:
    """Time that only work moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Worker:
    """A contestant that needs `seconds()` for an update of one sample."""

    clock: Clock
    seconds: Callable[[], float]
    turns: list[int] = field(default_factory=list)

    def work(self, n_updates: int) -> tuple[float, float]:
        spent = n_updates * self.seconds()
        self.clock.now += spent
        self.turns.append(n_updates)
        return n_updates, spent


def race(deadline: float = 100.0, drop: Any = None, **seconds: Callable[[], float]) -> tuple[Rounds, dict[str, Worker]]:
    clock = Clock()
    workers = {name: Worker(clock, own) for name, own in seconds.items()}
    more = {} if drop is None else {"drop": drop}
    rounds = compare(workers, "base", deadline, seconds["base"](), clock, **more)
    return rounds, workers


# -- the rounds -------------------------------------------------------------------------------------------------------


def test_twice_as_fast_is_faster_and_half_as_fast_is_slower():
    rounds, _ = race(base=lambda: 0.02, quick=lambda: 0.01, slow=lambda: 0.04, same=lambda: 0.0201)
    assert rounds.verdict("quick") == "faster"
    assert rounds.verdict("slow") == "slower"
    assert rounds.verdict("same") == "same speed"
    assert rounds.ratio("quick") == pytest.approx(2)
    assert rounds.noise() == 0


def test_the_time_is_kept():
    for deadline in (1.0, 7.0, 40.0):
        clock = Clock()
        workers = {name: Worker(clock, lambda: 0.01) for name in ("base", "a", "b", "c")}
        compare(workers, "base", deadline, 0.01, clock)
        assert 0.5 * deadline < clock.now <= deadline or len(workers["base"].turns) == 2 * 15  # the base: control too


def test_a_noisy_machine_is_said_to_be_noisy():
    drawn = random.Random(1)
    noisy = lambda: 0.01 * drawn.uniform(0.5, 2.0)  # noqa: E731
    rounds, _ = race(base=noisy, quick=lambda: noisy() / 1.2)
    assert rounds.verdict("quick") == "too noisy"


def test_a_difference_that_each_round_shows_is_told_on_a_noisy_machine():
    drawn = random.Random(1)
    noisy = lambda: 0.01 * drawn.uniform(0.8, 1.25)  # noqa: E731
    rounds, _ = race(base=noisy, quick=lambda: noisy() / 4, slow=lambda: noisy() * 4, same=noisy)
    assert rounds.noise() > 0.15
    verdicts = {name: rounds.verdict(name) for name in ("quick", "slow", "same")}
    assert verdicts == {"quick": "faster", "slow": "slower", "same": "too noisy"}


def test_a_gain_below_the_noise_is_no_gain():
    drawn = random.Random(2)
    noisy = lambda: 0.01 * drawn.uniform(0.95, 1.05)  # noqa: E731
    rounds, _ = race(base=noisy, a_little=lambda: noisy() / 1.02)
    assert rounds.verdict("a_little") == "same speed"


def test_a_machine_that_slows_down_favours_nobody():
    clock = Clock()
    drifting = lambda: 0.01 * (1 + clock.now / 50)  # noqa: E731
    workers = {name: Worker(clock, drifting) for name in ("base", "same")}
    rounds = compare(workers, "base", 100.0, 0.01, clock)
    assert rounds.verdict("same") == "same speed"


def test_too_few_rounds_are_no_verdict():
    rounds, _ = race(deadline=1.0, base=lambda: 0.2, quick=lambda: 0.1)
    assert rounds.n_rounds < 3
    assert rounds.verdict("quick") == "few rounds"


def test_a_hopeless_contestant_works_no_more():
    rounds, workers = race(base=lambda: 0.01, hopeless=lambda: 0.1)
    assert len(workers["hopeless"].turns) == 2
    assert rounds.verdict("hopeless") == "slower"


def test_a_contestant_that_fails_is_left_out_and_the_others_go_on():
    failed = {}

    def fail() -> float:
        raise RuntimeError("no memory")

    note = lambda name, error: failed.setdefault(name, str(error))  # noqa: E731
    rounds, _ = race(drop=note, base=lambda: 0.01, broken=fail, quick=lambda: 0.005)
    assert failed == {"broken": "no memory"}
    assert "broken" not in rounds.speeds
    assert rounds.verdict("quick") == "faster"


def test_a_base_that_fails_ends_the_comparison():
    seconds = iter([0.01, 0.01])
    with pytest.raises(StopIteration):
        race(base=lambda: next(seconds), other=lambda: 0.01)


def test_every_round_has_the_base_twice():
    rounds, workers = race(base=lambda: 0.01, other=lambda: 0.01)
    assert len(rounds.speeds[CONTROL]) == rounds.n_rounds
    assert len(workers["base"].turns) == 2 * len(workers["other"].turns)


# -- what changes results ---------------------------------------------------------------------------------------------


def proof(weight: str = "1", loss: float = 0.5, metric: float = 0.7) -> Proof:
    return Proof({"w": weight}, (loss,), {"val/loss": metric})


def test_equal_bits_are_no_change_and_other_weights_are_one():
    assert proof().difference(proof()) == 0
    assert proof().difference(proof(weight="2")) > 0  # though no loss tells it yet
    assert proof().difference(proof(weight="2", loss=0.5 * (1 + 1e-7))) == pytest.approx(1e-7, rel=0.01)
    assert proof().difference(proof(metric=0.35)) == pytest.approx(0.5)


def test_only_a_faster_setting_that_changes_no_bit_and_counts_for_no_result_wins():
    row = Row("training", "threads=1", {"threads": 1}, difference=0.0, verdict="faster", is_local=True)
    assert row.is_winner
    assert row.changes == "same bits"
    for change in ({"difference": 1e-7}, {"difference": None}, {"verdict": "slower"}, {"is_local": False}):
        assert not Row(**{**vars(row), **change}).is_winner
    assert Row("training", "x", difference=1e-7).changes.startswith("last bits")
    assert Row("training", "x", difference=0.02).changes.startswith("other")


def test_no_setting_of_the_local_file_counts_for_a_result():
    assert not [key for key in local.SETTINGS if keys.counts(key).identity]
    assert not Candidate({"learner.precision": "bf16"}).is_local
    assert not Candidate({"trainer.eval_batch_size": 64}).is_local


def test_a_noisy_or_short_training_is_not_clear():
    row = Row("training", "threads=1", verdict="same speed")
    rows = [Row("training", BASE), row]
    assert Found("k", rows, n_rounds={"training": 3}).is_clear
    assert not Found("k", rows, n_rounds={"training": 2}).is_clear
    assert not Found("k", rows).is_clear
    row.verdict = "too noisy"
    assert not Found("k", rows, n_rounds={"training": 9}).is_clear
    assert Found("k", [*rows, Row("training", "x", verdict="faster")]).unclear == (1, 2)


class Stuck:
    """A trial that is never ready, as a compilation that takes too long."""

    def __init__(self) -> None:
        self.is_closed = False

    def start(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        raise TrialFailed(f"it was not ready after {seconds:.0f} s")

    def close(self) -> None:
        self.is_closed = True


def test_a_setting_that_is_not_ready_in_time_does_not_work_beside_the_others():
    stuck: Any = Stuck()
    tuning = object.__new__(Tuning)
    with pytest.raises(TrialFailed, match="not ready after 3 s"):
        tuning._begin(stuck, 1, 1, 3.0)
    assert stuck.is_closed


# -- what is tried ----------------------------------------------------------------------------------------------------

CONFIG = {
    "procedure": {
        "learner": {"channels_last": False, "precision": "fp32", "compile": False, "optimizer": {"fused": True}},
        "dataset": {"loading": {"residence": "auto", "workers": 2}},
    }
}
FACTS = Facts("cpu", threads=8, dimensions=[4, 1], batch_size=64, eval_batch_size=1024, n_val=5000)


def names(facts: Facts, typed: Collection[str] = ()) -> set[str]:
    return {candidate.name for candidate in for_training(CONFIG, facts, 8, typed)}


def test_a_cpu_job_has_threads_and_no_half_precision():
    assert names(FACTS) == {
        "threads=1",
        "threads=2",
        "threads=4",
        "dataset.loading.residence=stream",
        "learner.channels_last=true",
        "optimizer.fused=false",
        "learner.precision=bf16",
        "learner.compile=true",
    }


def test_a_gpu_job_has_no_threads_and_texts_have_no_memory_format():
    found = names(replace(FACTS, device="cuda", dimensions=[2, 2, 1]))
    assert not [name for name in found if name.startswith(("threads", "learner.channels_last"))]
    assert "learner.precision=fp16" in found


def test_what_the_user_typed_is_not_tried():
    assert "threads=1" not in names(FACTS, {"threads"})
    assert len(for_sweeps(FACTS, 8, {"lanes"})) == 1


def test_evaluation_batches_are_no_larger_than_the_split():
    assert for_judging(FACTS, set()) == [64, 256, 1024, 4096]
    assert for_judging(replace(FACTS, n_val=200), set()) == [64, 200]
    assert for_judging(FACTS, {"trainer.eval_batch_size"}) == [1024]


def test_lanes_begin_with_what_auto_means():
    found = for_sweeps(FACTS, 8, set())
    assert (found[0].count, found[0].threads) == (8, 1)
    assert {(one.count, one.threads) for one in found[1:]} == {(4, 2), (1, 8)}
    assert len(for_sweeps(FACTS, 1, set())) == 1


def test_a_learner_that_forgets_no_grad_is_timed_without_gradients():
    seen = []

    def evaluate(batch):
        seen.append(torch.is_grad_enabled())
        return {"loss": Ratio(batch.x.sum(), len(batch.x))}

    arrays = torch.rand(8, 4), torch.arange(8) % 3
    work = object.__new__(trial._Work)
    work.learner = SimpleNamespace(evaluate=evaluate)  # pyright: ignore[reportAttributeAccessIssue]
    work.dataset = Dataset.from_arrays(arrays, arrays, arrays)
    work.device = torch.device("cpu")
    assert work.judge(4, 8, 1).n_samples == 8
    assert seen == [False, False]


def test_a_trial_warms_up_with_the_last_batch_of_an_epoch():
    seen: list[int] = []
    work = object.__new__(trial._Work)
    work.learner = SimpleNamespace(update=lambda batch: seen.append(len(batch.x)))  # pyright: ignore[reportAttributeAccessIssue]
    work.device = torch.device("cpu")
    for n_items, drop_last, wanted in ((8, False, 2), (9, False, 0), (8, True, 0)):
        arrays = torch.rand(n_items, 4), torch.arange(n_items) % 3
        work.dataset = Dataset.from_arrays(arrays, arrays, arrays)
        work.trainer = Trainer(1, batch_size=3, drop_last=drop_last)
        assert work.warm() == wanted
    assert seen == [2]


def test_a_trial_leaves_out_the_last_batch_where_the_job_does():
    work = object.__new__(trial._Work)
    arrays = torch.rand(8, 4), torch.arange(8) % 3
    work.dataset = Dataset.from_arrays(arrays, arrays, arrays)
    for drop_last, sizes in ((False, [3, 3, 2, 3]), (True, [3, 3, 3, 3])):
        work.trainer = Trainer(1, batch_size=3, drop_last=drop_last)
        assert [len(batch.x) for batch in itertools.islice(work._endless(), 4)] == sizes
