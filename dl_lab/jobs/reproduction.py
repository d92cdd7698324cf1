"""Plan and run the published experiments: which ones have no finished run yet, and what data do they lack?

Planning reads run folders and configs, and imports no torch. Each experiment runs in a process of its own: full memory
or a bug ends that one alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dl_lab import configs, keys
from dl_lab.configs import identity
from dl_lab.configs.parts import procedure_of
from dl_lab.datasets.files import DataFile, ensure, needed_files
from dl_lab.datasets.storage import storage_of
from dl_lab.runs import records
from dl_lab.runs.files import read_json
from dl_lab.runs.find import RESUMABLE
from dl_lab.runs.records import Record
from dl_lab.types import UserError

Step = Literal["done", "running", "resume", "run", "lacks data"]


@dataclass(frozen=True)
class Item:
    """One run of the plan.

    Attributes:
        experiment: Its name.
        words: Overrides besides the experiment and the seed.
        seed: The seed of the run.
        step: What is to be done.
        record: The run that is done, runs, or is to be resumed; None where there is none.
        to_fetch: Missing files that can be downloaded, with their data folder.
        by_hand: Missing files that have no public download.
        weights: The architecture whose ImageNet weights the run itself downloads; "" for none.
        has_reference: The experiment has published figures.
    """

    experiment: str
    words: tuple[str, ...]
    seed: int
    step: Step
    record: Record | None = None
    to_fetch: tuple[tuple[DataFile, Path], ...] = ()
    by_hand: tuple[str, ...] = ()
    weights: str = ""
    has_reference: bool = True

    @property
    def n_bytes(self) -> int:
        """The bytes to download, as far as the sizes are known."""
        return sum(file.size or 0 for file, _ in self.to_fetch)

    @property
    def command(self) -> list[str]:
        """The words after `dl-lab` that do the step."""
        if self.step == "resume" and self.record is not None:
            return ["resume", str(self.record.folder)]
        seed = f"seed={self.seed}"
        if self.has_reference:
            return ["reproduce", self.experiment, *self.words, seed]
        return [f"experiment={self.experiment}", *self.words, seed]


def plan(
    composer: configs.Composer,
    names: Sequence[str],
    found: Sequence[Record],
    words: Sequence[str] = (),
    n_seeds: int = 1,
) -> list[Item]:
    """Plan a run for each experiment and seed.

    A finished run counts if it has the overrides of the experiment (the threads or the logger may differ) and read the
    files that are here now. A run on a part of the data is repeated once the whole data are here.

    Args:
        composer: Composes the experiments.
        names: The experiments.
        found: The runs that are there already.
        words: Overrides of every run.
        n_seeds: Runs of each experiment: with its own seed, and with the seeds that follow.

    Raises:
        ConfigError: An experiment or an override is wrong.
    """
    items = []
    for name in names:
        composed = composer.compose([f"experiment={name}", *words])
        configs.refuse_unread(composed.unread)
        config = composed.config
        runs = [record for record in found if record.config.get("experiment") == name]
        same = [record for record in runs if changes(records.overrides(record.folder)) == changes(words)]
        to_fetch, by_hand = _find_missing_files(config)
        item = Item(
            experiment=name,
            words=tuple(words),
            seed=config["seed"],
            step="lacks data" if by_hand else "run",
            to_fetch=tuple(to_fetch),
            by_hand=tuple(by_hand),
            weights=_find_missing_weights(config),
            has_reference=bool(config.get("reference")),
        )
        digests = identity.data_files(config) if same else {}
        for i in range(n_seeds):
            items.append(_match_run(replace(item, seed=config["seed"] + i), same, digests))
    return items


def changes(words: Sequence[str]) -> set[str]:
    """Return the overrides that make a run another one than the published experiment."""
    return {word for word in words if keys.counts(keys.of_word(word)).published}


def _match_run(item: Item, runs: Sequence[Record], digests: Mapping[str, str]) -> Item:
    """Match the item with the newest run of its seed that is finished, runs or can be resumed."""
    for record in reversed(runs):
        if record.config.get("seed") != item.seed:
            continue
        read = (read_json(record.folder / "env.json") or {}).get("data_files") or {}
        if record.state == "done" and record.metrics and (record.label == "full" or dict(read) == dict(digests)):
            return replace(item, step="done", record=record, to_fetch=(), by_hand=(), weights="")
        if record.state in ("running", "queued"):
            return replace(item, step="running", record=record)
        if record.state in RESUMABLE and item.step == "run":
            return replace(item, step="resume", record=record)
    return item


def _find_missing_files(config: Mapping[str, Any]) -> tuple[list[tuple[DataFile, Path]], list[str]]:
    """Find the missing files of a config's data: those to download, and those without a download."""
    to_fetch: list[tuple[DataFile, Path]] = []
    by_hand = []
    procedure = config["procedure"]
    for part in identity.DATA_PARTS:
        data = procedure.get(part)
        if not isinstance(data, Mapping) or data.get("source") == "generated":
            continue
        storage = storage_of(data, config["paths"])
        data_dir = storage.data
        for file in needed_files(storage.entries(), data_dir):
            if file.locate(data_dir).exists() or file.replacement(data_dir) is not None:
                continue
            if file.url:
                to_fetch.append((file, data_dir))
            elif not file.optional:
                by_hand.append(file.path)
    return to_fetch, by_hand


def _find_missing_weights(config: Mapping[str, object]) -> str:
    """Return the architecture whose ImageNet weights are not in the data folder yet; "" where none are needed."""
    procedure = procedure_of(config)
    if procedure.get("weights") != "imagenet":
        return ""
    architecture = procedure["learner"]["model"]["architecture"]
    there = any(Path(procedure["weights_dir"]).expanduser().glob(f"{architecture}*.pth"))
    return "" if there else architecture


def fetch(item: Item) -> None:
    """Download the files that the item lacks.

    Raises:
        UserError: A file cannot be downloaded.
    """
    for file, data_dir in item.to_fetch:
        ensure(file, data_dir)


def perform(item: Item, flags: Sequence[str] = ()) -> int:
    """Fetch the data and run the item in a process of its own.

    Args:
        item: The run, new or to be resumed.
        flags: Flags of dl-lab, such as --config-dir.

    Returns:
        The exit status of the process; 1 where its data cannot be downloaded.
    """
    try:
        fetch(item)
    except UserError as error:
        print(f"{item.experiment}: {error}", file=sys.stderr)
        return 1
    own_flags = [] if item.step == "resume" else list(flags)
    return subprocess.run([sys.executable, "-m", "dl_lab", *item.command, *own_flags], check=False).returncode
