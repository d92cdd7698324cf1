"""Measure what is fastest on this machine for one job, and say which settings change no value."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from dl_lab import configs, keys
from dl_lab.configs.identity import cost_key
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.jobs.tuning.candidates import Candidate, Facts, Lanes, Setting, for_judging, for_sweeps, for_training
from dl_lab.jobs.tuning.contestants import Judging, Together
from dl_lab.jobs.tuning.findings import Found, Row, fill, note
from dl_lab.jobs.tuning.rounds import Contestant, compare
from dl_lab.jobs.tuning.trial import (
    PROVED_ITEMS,
    PROVED_UPDATES,
    Losses,
    Proof,
    Trial,
    TrialFailed,
    Updated,
)
from dl_lab.runs.machine import cores
from dl_lab.types import ConfigError, UserError

BASE = "as it is"
JUDGED_BASE = "evaluation as it is"
TRAINING_SHARE = 0.65  # of the time; then judging, then sweeps
JUDGING_SHARE = 0.8  # of the time, where judging ends
COMPILE_SHARE = 0.5  # of the time: a compilation that is not done by then is given up


class Tuning:
    """One tuning of one job."""

    def __init__(
        self,
        composer: configs.Composer,
        overrides: Sequence[str],
        seconds: float,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Check the job.

        Args:
            composer: Composes it.
            overrides: The words that describe it.
            seconds: How long the measuring may take, from when the job's data and parts are ready.
            say: Is told what happens, a line each.

        Raises:
            ConfigError: The job is wrong, or trains no single learner.
        """
        self.began = 0.0
        self.seconds = seconds
        self.say = say
        self.composer = composer
        self.overrides = list(overrides)
        composed = composer.compose(overrides)
        configs.refuse_unread(composed.unread)
        self.config = composed.config
        self.typed = {keys.of_word(word) for word in overrides}

    def run(self) -> Found:
        """Measure, within the time.

        Raises:
            UserError: The job itself cannot be measured here, or the time is too short.
        """
        import torch

        own_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a process with threads at work cannot be forked
        try:
            configs.check(self.config)
            if rehearse(self.config).training() is None:
                target = self.config["procedure"]["_target_"]
                raise ConfigError(f"procedure {target} trains no single learner: there is nothing to tune.")
            configs.load_dataset(self.config)
            return self._measure(self.config["threads"] or own_threads)
        finally:
            configs.forget_datasets()
            torch.set_num_threads(own_threads)

    def _measure(self, threads: int) -> Found:
        found = Found(cost_key(self.config))
        with contextlib.ExitStack() as opened:
            base = Trial(self.config, threads)
            opened.callback(base.close)
            base.start()
            try:
                base.wait()
                self.began = time.monotonic()
                n_updates, per_update, proof = self._prove_base(base)
            except TrialFailed as failure:
                raise UserError(f"The job itself cannot be measured: {failure}.") from None
            row = Row("training", BASE, memory=base.memory(), difference=0.0)
            self._train(found, opened, base, row, n_updates, per_update, proof)
            self._judge(found, base, per_update / max(base.facts.batch_size, 1))
            single = dict(found.winner)
            if len(single) > 1:
                self._confirm(found, opened, base, single, n_updates, per_update, proof)
        self._sweep(found, base.facts, n_updates, per_update)
        return found

    def _seconds_until(self, share: float) -> float:
        """Seconds until this share of the time is over."""
        return max(self.began + share * self.seconds - time.monotonic(), 0.0)

    # -- what the first updates make --------------------------------------------------------------------------

    def _prove_base(self, base: Trial) -> tuple[int, float, Proof]:
        """How many updates a proof has, seconds of an update, and the proof of the job as it is."""
        base.ask("update", 1)
        first = base.answer(Updated, self._seconds_until(1.0))
        losses = first.losses
        per_update = first.seconds
        n_updates = max(1, min(PROVED_UPDATES, int(0.05 * self.seconds / max(per_update, 1e-6))))
        if n_updates > 1:
            base.ask("update", n_updates - 1)
            more = base.answer(Updated, self._seconds_until(1.0))
            losses += more.losses
            per_update = more.seconds / (n_updates - 1)
        base.ask("prove", losses, self._proved_items(per_update, base.facts))
        proof = base.answer(Proof, self._seconds_until(1.0))
        base.ask("warm")
        base.answer(int, self._seconds_until(1.0))
        return n_updates, per_update, proof

    def _proved_items(self, per_update: float, facts: Facts) -> int:
        per_item = per_update / max(facts.batch_size, 1)
        return max(1, min(PROVED_ITEMS, int(0.01 * self.seconds / max(per_item, 1e-9)), facts.n_val or 1))

    def _begin(self, trial: Trial, n_updates: int, n_items: int, seconds: float) -> Proof:
        """Start a trial and let it make its proof. A trial that fails is ended: it must not work beside the others."""
        until = time.monotonic() + seconds
        try:
            trial.start()
            trial.wait(seconds)
            trial.ask("update", n_updates)
            updated = trial.answer(Updated, until - time.monotonic())
            trial.ask("prove", updated.losses, n_items)
            proof = trial.answer(Proof, until - time.monotonic())
            trial.ask("warm")
            trial.answer(int, until - time.monotonic())
        except TrialFailed:
            trial.close()
            raise
        return proof

    # -- the parts --------------------------------------------------------------------------------------------

    def _train(
        self,
        found: Found,
        opened: contextlib.ExitStack,
        base: Trial,
        row: Row,
        n_updates: int,
        per_update: float,
        proof: Proof,
    ) -> None:
        rows = {BASE: row}
        running: dict[str, Contestant] = {BASE: base}
        n_items = self._proved_items(per_update, base.facts)
        tried = for_training(self.config, base.facts, cores(), self.typed)
        for candidate in tried:
            self.say(f"{candidate.name} ...")
            row = Row("training", candidate.name, candidate.settings, is_local=candidate.is_local)
            rows[candidate.name] = row
            share = COMPILE_SHARE if candidate.is_compiled else 0.4
            try:
                trial = self._make(candidate, base)
                opened.callback(trial.close)
                row.difference = proof.difference(self._begin(trial, n_updates, n_items, self._seconds_until(share)))
                row.memory = trial.memory()
                running[candidate.name] = trial
            except (TrialFailed, ConfigError) as failure:
                row.problem = str(failure).partition("\n")[0]
        self.say("measuring the training ...")
        deadline = self.began + TRAINING_SHARE * self.seconds
        rounds = compare(running, BASE, deadline, per_update, drop=lambda name, error: note(rows[name], error))
        fill(found, rows, rounds)
        best: dict[str, Row] = {}
        for row in rows.values():
            family = "threads" if "threads" in row.settings else "loading"
            if row.is_winner and (family not in best or row.speed > best[family].speed):
                best[family] = row
        for row in best.values():
            found.winner |= row.settings

    def _make(self, candidate: Candidate, base: Trial) -> Trial:
        config = self.config
        if candidate.words:
            config = self.composer.compose([*self.overrides, *candidate.words]).config
            configs.check(config)
        return Trial(config, candidate.threads or base.threads)

    def _judge(self, found: Found, base: Trial, per_item: float) -> None:
        """Sizes of the evaluation batch, all in the process of the job as it is."""
        own = min(base.facts.eval_batch_size, base.facts.n_val)
        sizes = for_judging(base.facts, self.typed)
        affordable = int(0.03 * self.seconds / max(per_item, 1e-9))  # a pass is to be short beside the time
        sizes = [size for size in sizes if size <= max(affordable, own)]
        if len(sizes) < 2 or self._seconds_until(JUDGING_SHARE) <= 0:
            return
        self.say("measuring the evaluation ...")
        n_items = max(sizes) if max(sizes) == base.facts.n_val else _common_multiple(sizes, base.facts.n_val)
        running = {_size_name(size, own): Judging(base, size, n_items) for size in sizes}
        rows, metrics = {}, {}
        for size in sizes:
            name = _size_name(size, own)
            metrics[name] = running[name].metrics()
            rows[name] = Row("evaluation", name, {"trainer.eval_batch_size": size} if size != own else {})
            rows[name].memory = base.memory()
        for name, row in rows.items():
            row.difference = _greatest_difference(metrics[name], metrics[JUDGED_BASE])
        deadline = self.began + JUDGING_SHARE * self.seconds
        per_pass = per_item * n_items / 3  # a backward pass costs about two forward passes
        base_row = rows.pop(JUDGED_BASE)
        fill(found, {JUDGED_BASE: base_row, **rows}, compare(running, JUDGED_BASE, deadline, per_pass))

    def _confirm(
        self,
        found: Found,
        opened: contextlib.ExitStack,
        base: Trial,
        single: Mapping[str, Setting],
        n_updates: int,
        per_update: float,
        proof: Proof,
    ) -> None:
        """Winners of several kinds, together: they are kept only where they also win together."""
        words = tuple(f"{key}={value}" for key, value in single.items() if key != "threads")
        threads = single.get("threads")
        candidate = Candidate(single, words, threads=None if threads is None else int(threads))
        row = Row("training", candidate.name, candidate.settings, is_local=candidate.is_local)
        rows = {BASE: Row("training", BASE), candidate.name: row}
        try:
            trial = self._make(candidate, base)
            opened.callback(trial.close)
            made = self._begin(trial, n_updates, self._proved_items(per_update, base.facts), self._seconds_until(0.9))
            row.difference = proof.difference(made)
            row.memory = trial.memory()
            deadline = self.began + 0.9 * self.seconds
            rounds = compare({BASE: base, candidate.name: trial}, BASE, deadline, per_update)
            fill(found, rows, rounds, keep=(candidate.name,))
        except TrialFailed as failure:
            row.problem = str(failure)
            found.rows.append(row)
        if not row.is_winner:
            best = max((one for one in found.rows if one.is_winner), key=lambda one: one.speed)
            found.winner = dict(best.settings)

    def _sweep(self, found: Found, facts: Facts, n_updates: int, per_update: float) -> None:
        """Jobs at the same time: the samples a second of all of them."""
        lanes = for_sweeps(facts, cores(), self.typed)
        if len(lanes) < 2 or self._seconds_until(1.0) < 1:
            return
        self.say("measuring the lanes of sweeps ...")
        rows: dict[str, Row] = {}
        running: dict[str, Contestant] = {}
        proofs: dict[str, Proof] = {}
        with contextlib.ExitStack() as opened:
            for one in lanes:
                name = _lanes_name(one, lanes[0])
                rows[name] = Row("sweep", name, {} if one is lanes[0] else {"lanes": one.count}, is_local=True)
                group = Together([Trial(self.config, one.threads) for _ in range(one.count)])
                opened.callback(group.close)
                try:
                    proofs[name] = self._begin_all(group, n_updates, self._seconds_until(1.0))
                    rows[name].memory = group.memory()
                    running[name] = group
                except TrialFailed as failure:
                    rows[name].problem = str(failure)
                    group.close()
            first = _lanes_name(lanes[0], lanes[0])
            if first not in running:
                found.rows += rows.values()
                return
            for name, proof in proofs.items():
                rows[name].difference = proof.difference(proofs[first])
            deadline = self.began + self.seconds
            rounds = compare(running, first, deadline, per_update, drop=lambda name, error: note(rows[name], error))
            fill(found, rows, rounds)
        winners = [row for row in rows.values() if row.is_winner]
        if winners:
            found.winner |= max(winners, key=lambda row: row.speed).settings

    def _begin_all(self, group: Together, n_updates: int, seconds: float) -> Proof:
        until = time.monotonic() + seconds
        for trial in group.trials:
            trial.start()
        for trial in group.trials:
            trial.wait(until - time.monotonic())
            trial.ask("update", n_updates)
        losses: Losses = ()
        for trial in group.trials:
            losses = trial.answer(Updated, until - time.monotonic()).losses
        group.trials[0].ask("prove", losses, 1)
        proof = group.trials[0].answer(Proof, until - time.monotonic())
        for trial in group.trials:
            trial.ask("warm")
        for trial in group.trials:
            trial.answer(int, until - time.monotonic())
        return proof


def _size_name(size: int, own: int) -> str:
    return JUDGED_BASE if size == own else f"trainer.eval_batch_size={size}"


def _lanes_name(one: Lanes, auto: Lanes) -> str:
    threads = "1 thread" if one.threads == 1 else f"{one.threads} threads"
    return f"lanes={'auto' if one is auto else one.count} ({one.count} x {threads})"


def _common_multiple(sizes: Sequence[int], most: int) -> int:
    """A number of items that batches of each size fill without a rest; all items where there is none."""
    import math

    common = math.lcm(*sizes)
    return common if common <= most else most


def _greatest_difference(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    pairs = [(value, other[name]) for name, value in one.items() if name in other and value != other[name]]
    return max((abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in pairs), default=0.0)
