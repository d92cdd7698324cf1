"""Conditional grids: a key that only some options of a group have varies for those alone.

`model=mlp,linear model.dropout=0.1,0.5` is three jobs, because the linear model has no dropout.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dl_lab.configs.compose import Composer, UnknownKeyError
from dl_lab.configs.explain import key_paths
from dl_lab.keys import of_word

Words = tuple[str, ...]


def divide(
    composer: Composer, fixed: Sequence[str], jobs: Sequence[Sequence[str]], error: UnknownKeyError
) -> tuple[list[str], list[list[str]], list[str]]:
    """Remove from each job the keys that its options do not have.

    Args:
        composer: Composes the options that the jobs choose.
        fixed: The overrides of every job.
        jobs: The further overrides of each job.
        error: What composing a job said about an unknown key.

    Returns:
        The overrides of every job, the further overrides of each job, and a note for each key that was removed.

    Raises:
        UnknownKeyError: `error`, where no option has the key.
    """
    groups = composer.group_names()
    choices = [_choices([*fixed, *job], groups) for job in jobs]
    if len(set(choices)) < 2:
        raise error
    others = [word for word in fixed if not _is_choice(word, groups)]
    known = {chosen: _keys(composer, chosen, others) for chosen in dict.fromkeys(choices)}
    for job in jobs:
        for word in [*fixed, *job]:
            if _sets_plain_key(word, groups) and not any(of_word(word) in keys for keys in known.values()):
                raise error
    divided: dict[Words, None] = {}  # without the jobs that have become equal
    removed: dict[str, dict[Words, None]] = {}  # key -> the choices that do not have it
    for job, chosen in zip(jobs, choices, strict=True):
        kept = []
        for word in [*fixed, *job]:
            key = of_word(word)
            if not _sets_plain_key(word, groups) or key in known[chosen]:
                kept.append(word)
            else:
                removed.setdefault(key, {})[chosen] = None
        divided[tuple(kept)] = None
    shared = [word for word in fixed if all(word in job for job in divided)]
    rest = [[word for word in job if word not in shared] for job in divided]
    return shared, rest, [_note(key, list(lacking), choices) for key, lacking in removed.items()]


def _choices(words: Sequence[str], groups: Collection[str]) -> Words:
    return tuple(word for word in words if _is_choice(word, groups))


def _is_choice(word: str, groups: Collection[str]) -> bool:
    """Whether a word chooses an option of a group: `model=mlp`, `+callbacks@procedure=x`."""
    return of_word(word).partition("@")[0] in groups


def _is_plain(word: str) -> bool:
    """Whether a word changes a key that must exist: neither `+key=1` nor `~key`, and none of Hydra's own."""
    return not word.startswith(("+", "~", "hydra."))


def _sets_plain_key(word: str, groups: Collection[str]) -> bool:
    """Whether a word sets a key that an option may lack."""
    return _is_plain(word) and not _is_choice(word, groups)


def _keys(composer: Composer, chosen: Words, others: Sequence[str]) -> set[str]:
    """Return the keys of a config with these options.

    Args:
        composer: Composes the config.
        chosen: The options.
        others: Further words, which may add keys.

    Raises:
        ConfigError: The options do not go together.
    """
    added = [word for word in others if not _is_plain(word)]
    return set(key_paths(composer.load([*chosen, *added])))


def _note(key: str, lacking: Sequence[Words], choices: Sequence[Words]) -> str:
    """Write the sentence for a key that some options lack. It names the one group that decides, where there is one."""
    having = [chosen for chosen in choices if chosen not in lacking]
    for place in range(len(choices[0])):
        words_lacking = dict.fromkeys(chosen[place] for chosen in lacking if len(chosen) > place)
        words_having = dict.fromkeys(chosen[place] for chosen in having if len(chosen) > place)
        if not words_lacking.keys() & words_having.keys():
            return f"{key} is set only where {' or '.join(words_having)}: {', '.join(words_lacking)} has no such key."
    return f"{key} is set only where the chosen options have it: {' '.join(lacking[0])} has no such key."
