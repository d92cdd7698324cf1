"""Say what a comparison shows, in sentences; and write the whole answer of `dl-lab compare`."""

from __future__ import annotations

from collections.abc import Sequence

from dl_lab.show import statistics, tables
from dl_lab.sweeps.results import outcome
from dl_lab.sweeps.results.comparison import MARK, Comparison, name_plural, name_replicates, pretty, write_p
from dl_lab.sweeps.results.groups import Group
from dl_lab.sweeps.results.importance import as_rows, measure_importance
from dl_lab.sweeps.results.outcome import Outcome

INTERVAL = (
    "interval: holds the true mean with 95 % confidence (Student's t; of proportions on the logit scale, of losses on "
    "the log scale, so that it stays within their bounds)"
)
MOST_TIED = 3  # settings that a tie names besides the first


def sentences(about: Comparison) -> list[str]:
    """Say what was run, which setting is best, how often the jobs looked at test, and what so few seeds can show."""
    found = about.outcome
    lines = [_describe_jobs(found)]
    if found.unfinished or found.not_started:
        states = outcome.words(found.unfinished, found.not_started)
        lines.append(f"Left out: {states}. Unfinished jobs count in no mean.")
    unofficial = {record.data for record in found.records if record.label in ("part", "generated")}
    if unofficial:
        lines.append(f"The data are {', '.join(sorted(unofficial))}: not results on the full official data.")
    lines += _name_best(about)
    looks = sum(record.test_looks for record in found.records)
    if looks:
        times = f"{looks} time{'s' * (looks != 1)}"
        lines.append(f"The jobs looked at the test split {times}. Its figures are only shown; they chose nothing.")
    if about.baseline:
        lines.append(_compare_with_baseline(about, about.baseline))
    lines += _warn(about)
    return lines


def notation(about: Comparison) -> str:
    """Explain how to read the table; "" where nothing needs it."""
    parts = []
    if about.best:
        parts.append(f"{MARK} best")
    if any(len(group.records) > 1 for group in about.groups):
        parts += [f"mean ± standard deviation over n {name_plural(about.outcome)}", INTERVAL]
    if about.baseline:
        parts.append("p: paired t-test, corrected for the number of comparisons (Holm)")
    return f"{'; '.join(parts)}." if parts else ""


def _describe_jobs(found: Outcome) -> str:
    """Say how many jobs there are, in what they differ, and over which replicates."""
    n = len(found.records)
    jobs = f"{n} finished job{'s' * (n != 1)}"
    if not found.paths:
        names = " and ".join(name_replicates(found))
        return f"{jobs} that differ in the {names} only ({_list_replicates(found.groups[0])})."
    differ = _join(list(tables.short_names(found.paths).values()))
    if all(len(group.records) == 1 for group in found.groups):
        return f"{jobs}, one of each setting; they differ in {differ}."
    same = f"not all over the same {name_plural(found)}"
    if len({tuple(group.replicates) for group in found.groups}) == 1:
        same = f"{_list_replicates(found.groups[0])} each"
    return f"{jobs}: {len(found.groups)} settings that differ in {differ}, {same}."


def _list_replicates(group: Group) -> str:
    """List the replicates of a setting, as in "seeds 0, 1, 2" or "folds 0, 1 and seeds 0, 1"."""
    parts = []
    for i, path in enumerate(group.over):
        values = dict.fromkeys(str(replicate[i]) for replicate in group.replicates)
        parts.append(f"{path.rpartition('.')[2]}s {', '.join(values)}")
    return " and ".join(parts)


def _join(words: Sequence[str]) -> str:
    """Join words with commas, the last two with "and"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _name_best(about: Comparison) -> list[str]:
    """Name the best setting, and how far the next one is behind."""
    best = about.best
    by = about.by
    if best is None or by is None:
        return ["No val/* metric was measured: nothing here can be called the best."]
    if len(about.groups) == 1:
        return []
    others = [group.name for group in about.tied if group is not best]
    if others:
        shown = _join([best.name, *others[:MOST_TIED]])
        more = f" and {len(others) - MOST_TIED} more" if len(others) > MOST_TIED else ""
        return [f"A tie by {by.words}: {shown}{more} have the same mean."]
    line = f"Best by {by.words}: {best.name}."
    second = about.groups[1]
    pair = statistics.compare_pairs(best.by_replicate(by.metric), second.by_replicate(by.metric))
    if pair is None:
        return [line]
    gap = tables.number(abs(pair.difference))
    paired_by = " and ".join(name_replicates(about.outcome))
    certainty = ""
    if pair.p is not None:
        certainty = f"; over {pair.n} {name_plural(about.outcome)}, p {write_p(pair.p)}"
    return [f"{line} The next, {second.name}, is {gap} behind (paired by {paired_by}{certainty})."]


def _compare_with_baseline(about: Comparison, baseline: Group) -> str:
    """Name the settings that differ clearly from the baseline."""
    n_pairs = sum(pair is not None for pair in about.pairs)
    clear = []
    for group, p in zip(about.groups, about.corrected, strict=True):
        if p is not None and p < statistics.LEVEL:
            clear.append(group.name)
    which = f"differ at the {statistics.LEVEL:.0%} level: {'; '.join(clear)}" if clear else "none differs clearly"
    count = f"{n_pairs} comparison{'s' * (n_pairs != 1)}"
    paired_by = " and ".join(name_replicates(about.outcome))
    return f"Against {baseline.name} in {about.on}, {count} paired by {paired_by}: {which}."


# -- warnings -----------------------------------------------------------------------------------------------------

FOLDS = (
    "Folds share training data, so their results are not independent: intervals and p are too optimistic. Repeat the "
    "cross-validation with other seeds to see more."
)


def _warn(about: Comparison) -> list[str]:
    """Warn where there are too few seeds or folds to say anything, and say what folds cannot show."""
    lines = []
    has_folds = any("fold" in name for name in name_replicates(about.outcome))
    if has_folds and len(about.groups[0].records) > 1:
        lines.append(FOLDS)
    return lines + _warn_of_losses(about) + _warn_of_few(about)


def _warn_of_losses(about: Comparison) -> list[str]:
    if not about.loss_caution or about.by is None:
        return []
    split = about.by.metric.partition("/")[0]
    others = [name for name in about.outcome.metrics if name.startswith(f"{split}/") and not name.endswith("/loss")]
    other = f" Choose by another metric: --metric {others[0]}." if others else ""
    return [f"Warning: {about.loss_caution[0].lower()}{about.loss_caution[1:]}{other}"]


def _warn_of_few(about: Comparison) -> list[str]:
    nouns = name_plural(about.outcome)
    counts = [len(group.records) for group in about.groups]
    n = min([pair.n for pair in about.pairs if pair] or counts)
    if len(counts) < 2 and n > 1:
        return []
    if n == 1:
        return [
            f"Warning: one {nouns.removesuffix('s')} says nothing about the spread: a difference may be luck. "
            "Give seed=0,1,2,... a sweep."
        ]
    enough = statistics.fewest_pairs()
    if n >= enough:
        return []
    chance = round(1 / statistics.smallest_p(n))
    return [
        f"Warning: {n} {nouns} are too few to say much. Even if all {n} point the same way, chance alone does that in "
        f"1 of {chance} cases; from {enough} {nouns} on it is less than 1 in 20. The t-test's p rests on the "
        f"differences being normal, which {n} of them cannot show."
    ]


# -- the whole answer ---------------------------------------------------------------------------------------------


def text_of_all(abouts: Sequence[Comparison], width: int) -> str:
    """Write the text of each comparison: one block for each data set and watched metric.

    Args:
        abouts: The comparisons.
        width: The width of a line, in characters.
    """
    if len(abouts) == 1:
        return text(abouts[0], width)
    blocks = [f"{len(abouts)} blocks: results on different data or by different metrics are not ranked together."]
    for about in abouts:
        first = about.outcome.records[0]
        watched = f", {about.by.metric}" if about.by else ""
        blocks.append(f"== {first.data or 'no data set'}{watched} ==\n\n{text(about, width)}")
    return "\n\n".join(blocks)


def text(about: Comparison, width: int) -> str:
    """Write a comparison as sentences, table and notation.

    Args:
        about: The comparison.
        width: The width of a line, in characters.
    """
    parts = []
    for sentence in sentences(about):
        parts += tables.wrap(sentence, width, indent="  ")
    columns, rows = pretty(about)
    parts += ["", tables.text(columns, rows, width, rule=True), ""]
    parts += tables.wrap(notation(about), width)
    if about.by:
        matters = measure_importance(about.outcome, about.by.metric)
        if matters:
            parts += ["", *tables.wrap(importance_title(about.by.metric), width)]
            parts.append(tables.text(*as_rows(matters), width))
    return "\n".join(parts)


def importance_title(metric: str) -> str:
    """Write the sentence above the table of importances."""
    return f"What matters for {metric}: the share of its variance that each key explains by itself."
