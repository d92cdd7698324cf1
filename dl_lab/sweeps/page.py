"""A sweep as a page to hand in: question, table, curves, published figures, how to reproduce. Markdown and HTML.

The HTML file is whole in itself: inline SVG and CSS, no script, nothing from the network; light and dark by the
reader's setting, and printable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from dl_lab import records, tables
from dl_lab.judge import judge
from dl_lab.run import read_json, read_records
from dl_lab.sweeps import comparison
from dl_lab.sweeps.comparison import Comparison
from dl_lab.sweeps.outcome import Group
from dl_lab.tables import Column

Rows = tuple[list[Column], list[dict[str, Any]]]
Point = tuple[float, float]
# Colours with at least 3:1 on white and on near-black; lines differ in their dashes too.
COLOURS = ("#2f6fde", "#c2571a", "#1f8a4c", "#b5179e", "#8d6e63", "#607d8b", "#b8860b", "#008b8b")
DASHES = ("", "7 3", "2 3", "9 3 2 3")
MOST_CURVES = 8
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 260, 56, 34


@dataclass(frozen=True)
class Curve:
    """The mean of a metric over the epochs, and its least and greatest value over the seeds."""

    name: str
    points: Sequence[Point]
    low: Sequence[Point]
    high: Sequence[Point]


@dataclass
class Page:
    """Everything on the page. curves: metric -> one curve for each of the first settings."""

    title: str
    questions: Sequence[str]
    sentences: Sequence[str]
    notation: str
    table: Rows
    published: Rows | None
    sources: Sequence[str]
    curves: Mapping[str, Sequence[Curve]]
    settings: Rows
    runs: Rows
    environment: Rows
    commands: Sequence[str] = field(default_factory=list)


def collect(about: Comparison, questions: Sequence[str], commands: Sequence[str]) -> Page:
    """Read what the page shows. questions: those of the experiments; commands: how to reproduce it."""
    found = about.outcome
    published, sources = _published(about)
    return Page(
        title=f"Sweep {found.folder.name}",
        questions=questions,
        sentences=comparison.sentences(about),
        notation=comparison.notation(about),
        table=comparison.pretty(about),
        published=published,
        sources=sources,
        curves={metric: _curves(about.groups[:MOST_CURVES], metric) for metric in _drawn(about)},
        settings=_settings(found.records),
        runs=_runs(about),
        environment=_environment(found.records[0]),
        commands=commands,
    )


def _published(about: Comparison) -> tuple[Rows | None, list[str]]:
    """Reference figures beside the mean measured ones, for each setting."""
    rows, sources = [], []
    words = {"max": "at least", "min": "at most", "equal": "equal"}
    for one in about.groups:
        reference = one.records[0].reference
        spreads = {name: one.spread(name) for name in reference}
        means = {name: found.mean for name, found in spreads.items() if found}
        for verdict in judge(means, reference):
            full = all(record.label not in ("part", "generated") for record in one.records)
            reached = "yes" if verdict.passed else "no"
            rows.append(
                {
                    "setting": one.name,
                    "metric": verdict.metric,
                    "measured": verdict.measured,
                    "reference": f"{words[verdict.mode]} {tables.number(verdict.published)}",
                    "tolerance": verdict.tolerance,
                    "reached": reached if full else f"not comparable: {one.records[0].data}",
                }
            )
            sources.append(f"{verdict.metric}: {verdict.source}")
    return (([Column(key) for key in rows[0]], rows) if rows else None), list(dict.fromkeys(sources))


def _drawn(about: Comparison) -> list[str]:
    """The metrics with a curve: the one that chooses, then other losses and scores of validation, then training's."""
    logged = {name for record in about.outcome.records[:1] for row in _epochs(record) for name in row}
    chosen = [about.by.metric] if about.by else []
    wanted = [*chosen, "val/accuracy", "val/loss", "train/loss", *sorted(n for n in logged if n.startswith("val/"))]
    return [name for name in dict.fromkeys(wanted) if name in logged][:3]


def _epochs(record: records.Record) -> list[dict[str, Any]]:
    return [row for row in read_records(record.folder / "metrics.jsonl") if row.get("epoch") is not None]


def _curves(groups: Sequence[Group], metric: str) -> list[Curve]:
    curves = []
    for one in groups:
        at: dict[float, list[float]] = {}
        for record in one.records:
            for row in _epochs(record):
                if row.get(metric) is not None:
                    at.setdefault(row["epoch"], []).append(row[metric])
        epochs = sorted(at)
        means = [(epoch, sum(at[epoch]) / len(at[epoch])) for epoch in epochs]
        low, high = ([(epoch, pick(at[epoch])) for epoch in epochs] for pick in (min, max))
        curves.append(Curve(one.name or "all jobs", means, low, high))
    return [curve for curve in curves if curve.points]


def _settings(found: Sequence[records.Record]) -> Rows:
    differing = set(records.differing(found))
    rows = [{"setting": path, "value": value} for path, value in found[0].config.items() if path not in differing]
    return [Column("setting"), Column("value", exact=True)], rows


def _runs(about: Comparison) -> Rows:
    metrics = [name for name in about.outcome.metrics if not name.startswith("train/")]
    rows = [
        {"setting": one.name, "seed": record.config["seed"], "run": record.folder.name, **record.metrics}
        for one in about.groups
        for record in one.records
    ]
    for record in about.outcome.unfinished:
        setting = f"{record.state}{': ' + record.error if record.error else ''}"
        rows.append({"setting": setting, "seed": record.config.get("seed"), "run": record.folder.name})
    return [Column("setting"), Column("seed"), Column("run"), *map(Column, metrics)], rows


def _environment(record: records.Record) -> Rows:
    facts = read_json(record.folder / "env.json") or {}
    devices, git, packages = facts.get("devices") or {}, facts.get("git") or {}, facts.get("packages") or {}
    changes = ", with uncommitted changes (diff.patch in each run's folder)" if git.get("dirty") else ""
    shown = {
        "dl-lab": facts.get("dl_lab"),
        "code": facts.get("code"),
        "git": f"{git['sha']}{changes}" if git.get("sha") else None,
        "Python": facts.get("python"),
        "torch": devices.get("torch") or packages.get("torch"),
        "numpy": packages.get("numpy"),
        "GPU": ", ".join(devices.get("gpus") or []) or "none",
        "processor": facts.get("cpu"),
        "threads": devices.get("threads"),
        "platform": facts.get("platform"),
        "date": facts.get("time"),
    }
    rows = [{"what": name, "value": str(value)} for name, value in shown.items() if value is not None]
    return [Column("what"), Column("value")], rows


# -- Markdown -----------------------------------------------------------------------------------------------------


def markdown(page: Page) -> str:
    """The page without its curves (they are in the HTML)."""
    parts = [f"# {page.title}", *(f"> {question}" for question in page.questions)]
    parts += ["## Result", "\n".join(f"- {sentence}" for sentence in page.sentences), tables.markdown(*page.table)]
    parts += [page.notation] if page.notation else []
    if page.published:
        parts += ["## Reference figures", tables.markdown(*page.published), *(f"Source of {s}" for s in page.sources)]
    parts += ["## How to reproduce", "```console\n" + "\n".join(page.commands) + "\n```"]
    for title, rows in (("Every job", page.runs), ("The same in all", page.settings), ("Where", page.environment)):
        parts += [f"## {title}", tables.markdown(*rows)]
    return "\n\n".join(parts) + "\n"


# -- HTML ---------------------------------------------------------------------------------------------------------


def html(page: Page) -> str:
    """One file; opens anywhere."""
    questions = "".join(f"<p class='question'>{escape(question)}</p>" for question in page.questions)
    sentences = "".join(
        f"<li class='warning'>{escape(s)}</li>" if s.startswith("Warning") else f"<li>{escape(s)}</li>"
        for s in page.sentences
    )
    parts = [
        f"<h1>{escape(page.title)}</h1>{questions}",
        f"<h2>Result</h2><ul>{sentences}</ul>{_table(page.table, 'The settings, the best first')}",
        f"<p class='note'>{escape(page.notation)}</p>" if page.notation else "",
    ]
    if page.published:
        listed = "".join(f"<li>{escape(source)}</li>" for source in page.sources)
        title = "Reference figures"
        parts.append(f"<h2>{title}</h2>{_table(page.published, title)}<p>Sources</p><ul>{listed}</ul>")
    if any(page.curves.values()):
        parts.append("<h2>Curves</h2><p class='note'>Mean over the seeds; the band is the least and the greatest.</p>")
        parts += [_figure(metric, curves) for metric, curves in page.curves.items() if curves]
    commands = escape("\n".join(page.commands))
    parts.append(f"<h2>How to reproduce</h2><pre tabindex='0'>{commands}</pre>")
    for title, rows in (("Every job", page.runs), ("The same in all", page.settings), ("Where", page.environment)):
        parts.append(f"<details><summary>{title}</summary>{_table(rows, title)}</details>")
    return TEMPLATE.format(title=escape(page.title), style=STYLE, body="\n".join(parts))


def _table(rows: Rows, caption: str) -> str:
    columns, entries = rows
    head = "".join(f"<th scope='col'>{escape(column.name.strip()) or 'best'}</th>" for column in columns)
    body = "".join(
        "<tr"
        + (" class='best'" if row.get("mark") == comparison.MARK else "")
        + ">"
        + "".join(_cell(row.get(column.key), column) for column in columns)
        + "</tr>"
        for row in entries
    )
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(caption)}'><table>"
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any, column: Column) -> str:
    text = tables.cell(value, column.exact).strip()
    numeric = text[:1].isdigit() or text[:1] in "+-<"
    return f"<td{' class=number' if numeric and text else ''}>{escape(text)}</td>"


def _figure(metric: str, curves: Sequence[Curve]) -> str:
    legend = "".join(
        f"<span><svg width='34' height='10' aria-hidden='true'><line x1='1' x2='33' y1='5' y2='5' {_stroke(i)}/></svg> "
        f"{escape(curve.name)}</span>"
        for i, curve in enumerate(curves)
    )
    ends = "; ".join(f"{curve.name}: {tables.number(curve.points[-1][1])}" for curve in curves)
    words = f"{metric} over the epochs. After the last epoch: {ends}."
    return (
        f"<figure><figcaption>{escape(metric)}</figcaption>{_drawing(curves, words)}"
        f"<div class='legend'>{legend}</div></figure>"
    )


def _stroke(i: int) -> str:
    dashes = DASHES[i % len(DASHES)]
    return f"stroke='{COLOURS[i % len(COLOURS)]}' stroke-width='2'" + (
        f" stroke-dasharray='{dashes}'" if dashes else ""
    )


def _drawing(curves: Sequence[Curve], words: str) -> str:
    """An SVG of the curves with axes."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in (*curve.low, *curve.high)]
    left, right, bottom, top = min(xs), max(xs), min(ys), max(ys)
    right, top = (right if right > left else left + 1), (top if top > bottom else bottom + 1)

    def place(point: Point) -> str:
        x = LEFT + (point[0] - left) / (right - left) * (WIDTH - LEFT - 12)
        y = 10 + (top - point[1]) / (top - bottom) * (HEIGHT - BOTTOM - 10)
        return f"{x:.1f},{y:.1f}"

    drawn = []
    for value in _ticks(bottom, top):
        x, y = place((left, value)).split(",")
        drawn.append(f"<line class='grid' x1='{x}' x2='{WIDTH - 12}' y1='{y}' y2='{y}'/>")
        drawn.append(f"<text x='{LEFT - 6}' y='{y}' text-anchor='end' dy='.35em'>{value:g}</text>")
    for value in sorted({round(v) for v in _ticks(left, right)}):
        if left <= value <= right:
            x, _ = place((value, bottom)).split(",")
            drawn.append(f"<text x='{x}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{value:g}</text>")
    drawn.append(f"<text x='{(WIDTH + LEFT) / 2:.0f}' y='{HEIGHT - 3}' text-anchor='middle'>epoch</text>")
    for i, curve in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        band = " ".join(map(place, [*curve.high, *reversed(curve.low)]))
        line = " ".join(map(place, curve.points))
        drawn.append(f"<polygon points='{band}' fill='{colour}' opacity='.15'/>")
        drawn.append(f"<polyline points='{line}' fill='none' {_stroke(i)}/>")
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(words)}'>{''.join(drawn)}</svg>"


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values."""
    import math

    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de; --tint: #eaf2ff;
  --alarm: #7a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0f1318; --soft: #9aa5b1; --line: #39414a;
  --tint: #16263d; --alarm: #f0c674; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.question { font-size: 1.15rem; border-left: 4px solid var(--line); padding-left: .8rem; }
.note { color: var(--soft); font-size: .9rem; } .warning { color: var(--alarm); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
td.number { text-align: right; } tr.best td { background: var(--tint); font-weight: 600; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .9rem; }
summary { cursor: pointer; font-size: 1.1rem; margin: 1rem 0 .5rem; }
@media (max-width: 500px) { svg text { font-size: 19px; } }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --tint: #eee;
  --alarm: #7a4b00; } body { max-width: none; font-size: 11px; } figure, tr { break-inside: avoid; }
  table { font-size: 7px; width: 100%; } th, td { white-space: normal; overflow-wrap: anywhere; padding: .1rem .2rem; }
  .scroll { overflow: visible; } pre { white-space: pre-wrap; } svg { max-height: 6.5cm; }
  details::details-content { content-visibility: visible; display: block; } }
@page { margin: 14mm; }
"""
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""
