"""A job with what `dl-lab tune` found for it on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dl_lab import keys
from dl_lab.configs.compose import Composer
from dl_lab.configs.identity import cost_key
from dl_lab.configs.resolve import Composed, resolve
from dl_lab.runs import local


def compose_for_machine(composer: Composer, overrides: Sequence[str]) -> Composed:
    """Compose one job. The settings of `dl-lab tune` stand below the words of the command line, which win.

    Args:
        composer: Composes.
        overrides: The words of the command line.

    Raises:
        ConfigError: The job is wrong, or `local.yaml` cannot be read.
    """
    composed = composer.compose(overrides)
    found = local.find(cost_key(composed.config))
    typed = {keys.of_word(word) for word in overrides}
    settings = {key: value for key, value in found.items() if key not in typed and not keys.counts(key).sweep_only}
    if not settings:
        return composed
    words = [f"{key}={value}" for key, value in settings.items()]
    tuned = resolve(composer.load([*words, *overrides]), overrides)
    return replace(tuned, unread=composed.unread, local=settings)
