"""Write a report as one self-contained HTML file.

SVG, CSS and pictures are inside the file; nothing comes from the network. A short script sorts tables and hides
columns; the page reads the same without it. The page is light or dark as the reader's system asks, and prints to A4.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from dl_lab.show import tables
from dl_lab.show.tables import Column
from dl_lab.sweeps.results import drawing
from dl_lab.sweeps.results.drawing import Curve, Dots, breakable
from dl_lab.sweeps.results.page import Page, Section
from dl_lab.sweeps.results.rows import Row, Rows


def html(page: Page) -> str:
    """Write the page as one HTML file that opens anywhere."""
    parts = [f"<h1>{escape(page.title)}</h1>{_write_facts(page.facts)}"]
    level = 2 if len(page.sections) == 1 else 3
    for section in page.sections:
        parts.append(_write_section(section, level))
    commands = escape("\n".join(page.commands))
    parts.append(f"<h2>How to reproduce</h2><pre tabindex='0'>{commands}</pre>")
    for title, rows in (
        ("Every job", page.runs),
        ("The same in all", page.settings),
        ("Where it ran", page.environment),
    ):
        if rows:
            parts.append(_fold(title, rows))
    return TEMPLATE.format(title=escape(page.title), style=STYLE, body="\n".join(parts), script=SCRIPT)


def _write_facts(facts: Mapping[str, str]) -> str:
    items = []
    for name, value in facts.items():
        if value:
            items.append(f"<div><dt>{escape(name)}</dt><dd>{breakable(value)}</dd></div>")
    return f"<dl class='facts'>{''.join(items)}</dl>"


def _write_section(section: Section, level: int) -> str:
    heading = f"h{level}"
    name = f" of {section.title}" if section.title else ""
    parts = []
    if section.title:
        parts.append(f"<h2>{escape(section.title)}</h2>")
    if section.question:
        parts.append(f"<p class='question'>{escape(section.question)}</p>")
    sentences = _write_sentences(section.sentences)
    parts.append(f"<{heading}>Result</{heading}>{sentences}{_write_table(section.table, f'Main figures{name}')}")
    if section.notation:
        parts.append(f"<p class='note'>{escape(section.notation)}</p>")
    if section.matters:
        caption = f"The share of variance that each key explains by itself{name}"
        parts.append(f"<{heading}>What matters</{heading}>{_write_table(section.matters, caption)}")
    if section.published:
        table = _write_table(section.published, f"Published figures{name}")
        sources = "".join(f"<li>{escape(source)}</li>" for source in section.sources)
        parts.append(f"<{heading}>Published figures</{heading}>{table}")
        parts.append(f"<p>Sources</p><ul>{sources}</ul>")
    if section.more:
        parts.append(_fold(f"Every metric{name}", section.more))
    parts.append(_draw_dots(section.dots, heading) + _draw_curves(section.curves, heading))
    parts.append(_show_pictures(section, heading))
    return "\n".join(part for part in parts if part)


def _write_sentences(sentences: Sequence[str]) -> str:
    items = []
    for sentence in sentences:
        kind = " class='warning'" if sentence.startswith("Warning") else ""
        items.append(f"<li{kind}>{escape(sentence)}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _draw_dots(dots: Mapping[str, Sequence[Dots]], heading: str) -> str:
    if not dots:
        return ""
    figures = "".join(drawing.dots_figure(metric, rows) for metric, rows in dots.items())
    note = "A ring is one seed, the dot their mean, the line its 95 % interval."
    return f"<{heading}>Final values</{heading}><p class='note'>{note}</p><div class='grid'>{figures}</div>"


def _draw_curves(curves: Mapping[str, Sequence[Curve]], heading: str) -> str:
    drawn = {metric: found for metric, found in curves.items() if any(curve.points for curve in found)}
    if not drawn:
        return ""
    names = [curve.name for curve in next(iter(drawn.values()))]
    has_band = any(curve.low != curve.high for found in drawn.values() for curve in found)
    note = "<p class='note'>Mean over the seeds; the band reaches from the least to the greatest.</p>"
    figures = "".join(drawing.curves_figure(metric, found) for metric, found in drawn.items())
    return (
        f"<{heading}>Curves</{heading}>{note if has_band else ''}{drawing.legend(names)}"
        f"<div class='grid'>{figures}</div>"
    )


def _show_pictures(section: Section, heading: str) -> str:
    if not section.figures:
        return ""
    parts = []
    for path in section.figures:
        words = path.stem.replace("_", " ")
        alt = escape(f"Figure of {section.figures_of}: {words}")
        image = f"<img alt='{alt}' src='{_to_data_url(path)}'/>"
        parts.append(f"<figure><figcaption>{escape(words)}</figcaption>{image}</figure>")
    return f"<{heading}>Figures of {escape(section.figures_of)}</{heading}><div class='grid'>{''.join(parts)}</div>"


def _to_data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _fold(title: str, rows: Rows) -> str:
    """Write a table that is folded until the reader opens it."""
    return f"<details><summary>{escape(title)}</summary>{_write_table(rows, title)}</details>"


def _write_table(rows: Rows, caption: str) -> str:
    columns, entries = rows
    heads = []
    for column in columns:
        texts = [_text_of(row, column) for row in entries]
        kind = "number" if all(_is_number(text) for text in texts if text) and any(texts) else ""
        heads.append(f"<th scope='col'{_class_of(column, kind)}>{breakable(column.name)}</th>")
    body = "".join(_write_row(row, columns) for row in entries)
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(caption)}'><table>"
        f"<caption>{escape(caption)}</caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _text_of(row: Row, column: Column) -> str:
    return tables.cell(row.get(column.key), column.exact).strip()


def _is_number(text: str) -> bool:
    """Whether a cell holds a figure, "0.98 ± 0.01" or "0.9 to 1.0", and no list of them."""
    return text[:1] in "0123456789+-<" and ":" not in text


ON_WIDE_SCREENS = ("parameters", "time")  # columns that a phone has no room for


def _class_of(column: Column, kind: str = "") -> str:
    """Write the class of a cell."""
    words = [kind] if kind else []
    if column.on_request:
        words.append("on-request")
    elif column.key in ON_WIDE_SCREENS:
        words.append("wide")
    return f" class='{' '.join(words)}'" if words else ""


def _write_row(row: Row, columns: Sequence[Column]) -> str:
    is_best = bool(row.get("mark"))
    cells = []
    for i, column in enumerate(columns):
        text = _text_of(row, column)
        tag = " <strong class='tag'>best</strong>" if is_best and i == 0 else ""
        kind = _class_of(column, "number" if text and _is_number(text) else "")
        cells.append(f"<td{kind}>{breakable(text)}{tag}</td>")
    kind_of_row = " class='best'" if is_best else ""
    return f"<tr{kind_of_row}>{''.join(cells)}</tr>"


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de; --tint: #eaf2ff;
  --alarm: #7a4b00; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0f1318; --soft: #9aa5b1; --line: #39414a;
  --tint: #16263d; --alarm: #f0c674; --link: #79c0ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 66rem;
  margin: 0 auto; padding: 1rem 1.2rem 3rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2rem; }
h3 { font-size: 1.05rem; margin-top: 1.5rem; }
.question { font-size: 1.1rem; border-left: 4px solid var(--line); padding-left: .8rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .4rem 1.5rem; margin: 0; }
.facts dt { color: var(--soft); font-size: .85rem; } .facts dd { margin: 0; }
.note, small { color: var(--soft); font-size: .9rem; font-weight: normal; } .warning { color: var(--alarm); }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; }
.number { text-align: right; } tr.best td { background: var(--tint); font-weight: 600; }
.tag { font-size: .75rem; border: 1px solid currentColor; border-radius: .6rem; padding: 0 .4rem; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\25B2"; font-size: .7em; }
th[aria-sort=descending] button::after { content: " \\25BC"; font-size: .7em; }
.columns { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; color: var(--soft); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem; border: 1px solid var(--line); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: .5rem 1.5rem; }
figure { margin: .5rem 0; } figcaption { font-weight: 600; }
svg, img { max-width: 100%; height: auto; } figure > svg { width: 100%; } img { background: #fff; }
svg text { fill: var(--soft); font-size: 12px; } svg text.name { fill: var(--ink); } svg .grid { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .9rem; }
details { margin: .8rem 0; } summary { cursor: pointer; font-weight: 600; }
@media (max-width: 600px) { body { padding: .6rem .7rem 2rem; } table { font-size: .78rem; }
  th, td { padding: .25rem .2rem; } ul { padding-left: 1.1rem; } }
@media screen and (max-width: 600px) { .wide { display: none; } }
@page { size: A4; margin: 15mm; }
@media print { :root { --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --tint: #eef; --alarm: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } .columns { display: none; } .scroll { overflow: visible; }
  table { font-size: 8.5pt; } th, td { padding: 2pt 4pt; hyphens: none; } h2, h3, figcaption { break-after: avoid; }
  figure, tr, .legend { break-inside: avoid; } .grid { grid-template-columns: 1fr 1fr; } }
"""

# A click on a column's title sorts the table. A box for each column hides it; a column on request begins hidden.
# Without the script nothing is missing.
SCRIPT = """
document.addEventListener('DOMContentLoaded', () => {
const number = text => { const found = text.replace(/,/g, '').match(/^[<+]?-?[0-9.]+(e[+-]?[0-9]+)?/);
  return found ? parseFloat(found[0].replace(/^[<+]/, '')) : NaN; };
for (const table of document.querySelectorAll('table')) {
  const heads = [...table.tHead.rows[0].cells];
  if (table.tBodies[0].rows.length < 2 && !table.querySelector('.on-request')) continue;
  const boxes = document.createElement('div');
  boxes.className = 'columns';
  heads.forEach((head, i) => {
    const title = head.textContent;
    const button = document.createElement('button');
    button.innerHTML = head.innerHTML;
    button.title = 'Sort by ' + title;
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [a, b].map(row => row.cells[i].textContent);
        const difference = number(x) - number(y);
        return (up ? 1 : -1) * (Number.isNaN(difference) ? x.localeCompare(y) : difference);
      });
      table.tBodies[0].append(...rows);
    };
    if (i === 0 || heads.length < 4) return;
    const label = document.createElement('label');
    const checked = !head.classList.contains('on-request');
    const box = Object.assign(document.createElement('input'), { type: 'checkbox', checked });
    box.onchange = () => { for (const row of table.rows) row.cells[i].hidden = !box.checked; };
    box.onchange();
    label.append(box, ' ' + title);
    boxes.append(label);
  });
  if (boxes.children.length) table.parentElement.before(boxes);
}
});
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{title}</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
