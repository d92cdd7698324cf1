"""Hooks of the documentation site (mkdocs.yml names this file): pages made from the code, formulas, ids explained.

A comment `<!-- made: NAME -->` in a page is replaced by what NAME makes. Formulas become MathML, which browsers draw
without any script. Nothing is fetched from the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import cli_page
import config_pages
import course_pages
import experiment_pages
import latex2mathml.converter
import notebook_page
import result_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from sources import ROOT

from dl_lab.configs import catalogue

DOCS = ROOT / "docs"
MARK = re.compile(r"<!-- made: (?P<name>\w+)(?: (?P<of>[\w-]+))? -->")
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)", flags=re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|(?<![\\\w$])\$(?P<inline>[^$\n]*(?:\n[^$\n]+)?)\$(?!\w)", flags=re.DOTALL)
MAKERS: dict[str, Any] = {
    "cli": lambda of: cli_page.page(),
    "config_overview": lambda of: config_pages.overview(),
    "experiments": lambda of: experiment_pages.experiments(),
    "sweeps": lambda of: experiment_pages.sweeps(),
    "n_experiments": lambda of: str(len(catalogue.experiments())),
    "examined": lambda of: result_pages.examined(),
    "families": lambda of: result_pages.families(),
    "roofline": lambda of: result_pages.roofline(),
    "howto": lambda of: _list_of_guides(),
    "ids": lambda of: experiment_pages.ids(),
    "course": course_pages.table,
    "notebook": lambda of: notebook_page.page(),
    "results": result_pages.table,
    "startup": lambda of: result_pages.startup(),
    "sweep_costs": lambda of: result_pages.sweep_costs(),
    "sweep_times": lambda of: result_pages.sweep_times(),
    "tuning": lambda of: result_pages.tuning(),
    "throughput": lambda of: result_pages.throughput(),
}
_formulas: dict[str, list[tuple[str, bool]]] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put into the navigation: a page for each config group, and guides that mkdocs.yml does not name yet."""
    pages = [{group: f"reference/configs/{group}.md"} for group in config_pages.group_names()]
    sections = {name: items for section in config.nav or [] for name, items in section.items()}
    for item in sections["Reference"]:
        if "Config groups" in item:
            item["Config groups"] = ["reference/configs.md", *pages]
    named = set(_paths(config.nav))
    sections["How-to"] += [path for path in _guides() if path not in named]
    return config


def _paths(nav: Any) -> Iterator[str]:
    """Every page that a navigation names."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from _paths(list(nav.values()))
    else:
        for item in nav or []:
            yield from _paths(item)


def _guides() -> list[str]:
    """The pages that lie in docs/ itself or in docs/extend/."""
    paths = [*sorted((DOCS / "extend").glob("*.md")), *sorted(DOCS.glob("*.md"))]
    return [path.relative_to(DOCS).as_posix() for path in paths]


def _list_of_guides() -> str:
    """Every guide with its title and first paragraph."""
    apart = {"index.md", "concepts.md", "design.md", "howto.md"}
    lines = ["| page | about |", "|---|---|"]
    for path in _guides():
        if path in apart:
            continue
        title, _, rest = (DOCS / path).read_text(encoding="utf-8").partition("\n")
        lines.append(f"| [{title.lstrip('# ')}]({path}) | {_first_sentence(rest)} |")
    return "\n".join(lines)


def _first_sentence(text: str) -> str:
    """The first sentence of a page's prose; "" where it has none."""
    prose = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = (part.strip().strip("*") for part in prose.split("\n\n"))
    opening = next((part for part in paragraphs if part[:1].isalpha() or part[:1] == "`"), "")
    return re.split(r"(?<=[.?:])\s", opening.replace("\n", " "))[0].rstrip(":")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that exist only here: one for each config group, and the changelog."""
    for group in config_pages.group_names():
        name = f"reference/configs/{group}.md"
        files.append(File.generated(config, name, content=config_pages.page(group)))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code, take the formulas out, explain the ids."""
    text = MARK.sub(lambda match: MAKERS[match["name"]](match["of"]), markdown)
    kept: list[tuple[str, bool]] = []
    pieces = CODE.split(text)
    for i in range(0, len(pieces), 2):
        pieces[i] = FORMULA.sub(lambda match: _keep(match, kept), pieces[i])
    _formulas[page.file.src_uri] = kept
    text = "".join(pieces)
    definitions = experiment_pages.abbreviations(text)
    return f"{text}\n\n{definitions}\n" if definitions else text


def _keep(match: re.Match[str], kept: list[tuple[str, bool]]) -> str:
    is_block = match["block"] is not None
    kept.append((match["block"] if is_block else match["inline"], is_block))
    return f"formula{len(kept) - 1}atlumrof"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the formulas back, as MathML."""
    for i, (formula, is_block) in enumerate(_formulas.pop(page.file.src_uri, [])):
        mathml = latex2mathml.converter.convert(formula.strip(), display="block" if is_block else "inline")
        if is_block:  # a long formula scrolls; the keyboard must reach it
            mathml = mathml.replace("<math ", '<math tabindex="0" ', 1)
        html = html.replace(f"formula{i}atlumrof", mathml)
    return html
