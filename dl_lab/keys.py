"""What each key of a config counts for. This table is the only home of these facts.

A key covers everything below it, unless a longer key of the table says otherwise: `callbacks.progress.x` counts as
`callbacks.progress` does. A key that is not in the table counts as `Counts()`. To add a key, add one line.

The table lies in the lowest row because the run folders (`runs/`), the configs and the sweeps all ask it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a key counts for.

    Attributes:
        kind: What the key names. A "choice" is a config group whose option describes a run (model: mlp). A "part" is
            a group whose values describe it. A "group" is a group that builds no part of the procedure. The rest are
            single settings.
        identity: Two jobs that differ in this key may have different results.
        cost: The time of an epoch depends on this key.
        shown: `runs`, `compare` and `diff` show where runs differ in this key.
        published: A run that changes this key is not the published experiment any more.
        hparams: When TensorBoard's HParams table has a column for the key. "always" includes the values below it.
            "choice" is the chosen option alone. "asked" means only where the command line sets it.
        same_sweep: The same command with another value of this key belongs to another sweep.
        sweep_only: The key says how a sweep runs. A job that is repeated alone does not need it.
        listed: `dl-lab list` and `--help` name the group.
    """

    kind: Literal["choice", "part", "group", "setting"] = "setting"
    identity: bool = True
    cost: bool = True
    shown: bool = True
    published: bool = True
    hparams: Literal["always", "choice", "asked", "never"] = "asked"
    same_sweep: bool = True
    sweep_only: bool = False
    listed: bool = True


# Where or how a run happens, not what it computes.
_SURROUNDINGS = Counts(identity=False, cost=False, shown=False, published=False, hparams="never", same_sweep=False)
# How a sweep runs its jobs.
_SWEEP = replace(_SURROUNDINGS, sweep_only=True)
# What a search looks for and how: another value is another search.
_SEARCH = replace(_SWEEP, same_sweep=True)

# The choices stand in the order in which tables show them.
KEYS: dict[str, Counts] = {
    "experiment": Counts(kind="choice", published=False, hparams="choice"),
    "dataset": Counts(kind="choice", hparams="choice"),
    "dataset.storage.data_dir": Counts(identity=False, cost=False, shown=False),
    "dataset.storage.cache_dir": Counts(identity=False, cost=False, shown=False),
    "dataset.storage.files": Counts(shown=False),
    "dataset.data_dir": Counts(identity=False, cost=False, shown=False),  # of data sets of one's own
    "dataset.loading": Counts(identity=False),
    "dataset.residence": Counts(identity=False),  # in configs of dl-lab 0.1
    "dataset.workers": Counts(identity=False),  # in configs of dl-lab 0.1, and of data sets of one's own
    "model": Counts(kind="choice", hparams="always"),
    "task": Counts(kind="choice"),
    "optimizer": Counts(kind="choice", cost=False, hparams="always"),
    "optimizer.fused": Counts(cost=False),
    "scheduler": Counts(kind="choice", cost=False, hparams="always"),
    "learner": Counts(kind="choice"),
    "learner.out_of_memory": Counts(identity=False, cost=False),
    "learner.start_from": Counts(
        identity=False, cost=False
    ),  # the content of the weights counts, see `configs.identity`
    "procedure": Counts(kind="choice"),
    "procedure.cache_dir": Counts(identity=False, cost=False, shown=False),
    "procedure.outputs": Counts(identity=False, cost=False, shown=False),
    "trainer": Counts(kind="part"),
    "trainer.batch_size": Counts(hparams="always"),
    "trainer.checkpoint_seconds": Counts(identity=False, cost=False),
    "trainer.checkpoint_steps": Counts(identity=False, cost=False),
    "trainer.device": Counts(identity=False, shown=False, published=False, same_sweep=False),
    "trainer.log_steps": Counts(identity=False, cost=False),
    "trainer.max_epochs": Counts(cost=False, hparams="always"),
    "trainer.seed": Counts(cost=False),
    "callbacks": Counts(kind="part", published=False, hparams="never"),
    "callbacks.doctor": Counts(identity=False, cost=False, published=False, hparams="never"),
    "callbacks.progress": Counts(identity=False, cost=False, published=False, hparams="never"),
    "predictor": Counts(kind="part"),
    "vectors": Counts(kind="part"),
    "vectors.storage.data_dir": Counts(identity=False, cost=False, shown=False),
    "vectors.storage.cache_dir": Counts(identity=False, cost=False, shown=False),
    "vectors.storage.files": Counts(shown=False),
    "seed": Counts(cost=False, published=False, hparams="always"),
    "deterministic": Counts(),
    "id": Counts(identity=False, cost=False, shown=False),
    "reference": Counts(identity=False, cost=False, shown=False),
    "threads": Counts(identity=False, shown=False, published=False, hparams="never", same_sweep=False),
    "paths": _SURROUNDINGS,
    "logger": replace(_SURROUNDINGS, kind="group"),
    "profile": Counts(kind="group", published=False),
    "adapt": Counts(kind="group"),
    "hydra": replace(_SURROUNDINGS, kind="group", listed=False),
    "local": Counts(kind="group", listed=False),
    "sweep": replace(_SEARCH, kind="group", listed=False),
    "launcher": replace(_SWEEP, kind="group"),
    "search": replace(_SEARCH, kind="group"),
    "pruner": replace(_SEARCH, kind="group"),
    "n_trials": _SWEEP,
    "search_seed": _SEARCH,
    "objective": _SEARCH,
    "lanes": _SWEEP,
    "on_failure": _SWEEP,
    "job_process": _SWEEP,
}


def counts(path: str) -> Counts:
    """Look up what a key counts for.

    Args:
        path: The key as the user writes it, "trainer.device".
    """
    while path:
        if path in KEYS:
            return KEYS[path]
        path = path.rpartition(".")[0]
    return Counts()


def counts_inside(path: str) -> Counts:
    """Look up what a key of the procedure's own config counts for.

    A resolved config nests the parts: `learner.optimizer.lr` inside the procedure is `optimizer.lr`. An argument of
    the procedure itself counts as `procedure.NAME`, also where a setting has the same name.

    Args:
        path: The key below `procedure`.
    """
    words = path.split(".")
    while len(words) > 1 and _is_part(words[1]):
        words = words[1:]
    if not _is_part(words[0]):
        words = ["procedure", *words]
    return counts(".".join(words))


def of_word(word: str) -> str:
    """Return the key that an override of the command line sets: "optimizer.lr" of `+optimizer.lr=0.1`."""
    return word.lstrip("+~").partition("=")[0]


def choices() -> tuple[str, ...]:
    """List the config groups whose chosen option describes a run, in the order in which tables show them."""
    return tuple(key for key, about in KEYS.items() if about.kind == "choice")


def settings() -> tuple[str, ...]:
    """List the top-level keys of a config that are no groups."""
    return tuple(key for key, about in KEYS.items() if about.kind == "setting" and "." not in key)


def sweep_groups() -> tuple[str, ...]:
    """List the config groups that say how a sweep runs."""
    return tuple(key for key, about in KEYS.items() if about.kind == "group" and about.sweep_only)


def _is_part(name: str) -> bool:
    return name in KEYS and KEYS[name].kind in ("choice", "part")
