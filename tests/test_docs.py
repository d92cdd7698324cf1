"""The README and the docs do what they show: commands compose, pages run in an empty folder, tables are current."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from dl_lab import cli, configs
from dl_lab.commands import train
from dl_lab.configs import catalogue, unknown_keys
from dl_lab.sweeps import families, start
from dl_lab.sweeps.expand import expand

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]
EXECUTED = [
    ROOT / "README.md",
    DOCS / "index.md",
    DOCS / "defending.md",
    DOCS / "own_code.md",
    DOCS / "tables.md",
    DOCS / "reference" / "configs.md",
    DOCS / "reference" / "python.md",
]
EXECUTED_ELSEWHERE = sorted((DOCS / "extend").glob("*.md"))  # tests/test_extend.py
MARK = r"<!-- (?:not run: (?P<reason>[^>]+)|exit status (?P<status>\d)) -->\n+"
FENCE = re.compile(rf"(?:{MARK})?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
WHOLE_PAGE = re.compile(r"^# [^\n]+\n\n<!-- not run: (?P<reason>[^>]+) -->\n")
SHELLS = ("console", "bash", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    status: the exit status that its commands have. reason: why it is not run; "" where it is.
    """

    language: str
    text: str
    status: int
    reason: str

    @property
    def file(self) -> str | None:
        """The path in a comment at the top of a block that is a file."""
        found = re.match(r"(?:# @package _global_\n)?# (?P<path>[\w./-]+\.(?:py|yaml|md))\n", self.text)
        return found["path"] if found else None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    whole = WHOLE_PAGE.match(text)
    for match in FENCE.finditer(text):
        reason = match["reason"] or (whole["reason"] if whole else "")
        yield Block(match["language"], match["text"], int(match["status"] or 0), reason)


def commands(block: Block) -> list[str]:
    lines = [line.partition(" #")[0].strip() for line in block.text.splitlines()]
    return [line for line in lines if re.match(r"(\w+=\S+ )*dl-lab\b", line)]


def shown_commands() -> list[str]:
    """The commands of all pages but those of a user's own config folder or project, which only a session can run."""
    found = set()
    for page in PAGES:
        for block in blocks(page):
            if block.language == "console" and block.status == 0 and not block.text.startswith("python "):
                outside = re.split(r"^cd ", block.text, maxsplit=1, flags=re.MULTILINE)[0]
                lines = commands(replace(block, text=outside))
                found |= {line for line in lines if line.startswith("dl-lab") and "--config-dir" not in line}
    return sorted(found)


@pytest.mark.parametrize("line", shown_commands())
def test_shown_commands_can_be_pasted(line):
    """What bash or zsh would read as something of their own stands in quotes."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
    assert not re.search(r"[(){}\[\]*?;&<>]", bare), line


@pytest.mark.parametrize("line", shown_commands())
def test_shown_commands_are_right(line):
    words = shlex.split(line)[1:]
    if words and not words[0].startswith("-") and "=" not in words[0]:
        assert words[0] in cli.verbs()
        if words[0] != "sweep":
            return
        words = words[1:]
    if re.fullmatch(r"dl-lab -m sweep=\w+( --dry-run)?", line):
        assert (ROOT / "conf" / "sweep" / f"{words[1].partition('=')[2]}.yaml").exists()
        return  # tests/test_ready_sweeps.py composes its jobs
    if line.startswith(("dl-lab -m", "dl-lab sweep")):
        options = start.parse(words)
        composer = configs.Composer(options.config_dir)
        grid = expand(composer, options.overrides, options.grid_flags)
        jobs = families.compose_all(
            composer.compose, composer.group_names(), [[*grid.fixed, *job] for job in grid.jobs()]
        )
        assert len(jobs) > 1
    else:
        words = [word for word in words if word not in ("--cfg", "job", "--help", "--version")]
        jobs = [configs.Composer().compose(train.parse(words).overrides)]
    configs.check(jobs[0].config)


def test_every_block_is_run_or_says_why_not():
    for page in PAGES:
        if page in EXECUTED_ELSEWHERE:
            continue
        for block in blocks(page):
            is_run = page in EXECUTED and (block.language in (*SHELLS, "python") or block.file)
            assert is_run or block.reason or block.language == "text", f"{page.relative_to(ROOT)}\n{block.text}"


@pytest.fixture
def shell(tmp_path, write_command):
    """Run lines of a shell in a folder that stays the current one; `python` and `dl-lab` are those of the tests."""
    own = tmp_path / "bin"
    own.mkdir()
    here = tmp_path / "here"
    here.mkdir()
    place = tmp_path / "place"
    place.write_text(str(here))
    settings = {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    if "DL_LAB_DATA" not in os.environ:
        settings["DL_LAB_DATA"] = str(Path.home() / ".cache" / "dl-lab")
    environment = {**os.environ, **settings}
    write_command(own / "dl-lab", environment)
    write_command(own / "python", environment)

    def run(lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", f'cd "$(cat {place})"\n{lines}\npwd > {place}\n'],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    run.folder = lambda: Path(place.read_text().strip())  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_a_page_pasted_from_the_top_into_an_empty_folder_works(page, shell):
    """Files are written, commands and Python run in the order of the page; what serves until it is stopped is not."""
    if page.name == "python.md":
        shell("dl-lab trainer.max_epochs=1")  # a run to load
    ran = 0
    for block in blocks(page):
        if block.reason:
            continue
        if block.file:
            target = shell.folder() / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            continue
        if block.language == "python":
            done = shell(f"python - <<'END'\n{block.text}\nEND")
        elif block.language in SHELLS:
            lines = [line for line in block.text.splitlines() if not line.startswith("dl-lab tensorboard")]
            done = shell("\n".join(lines))
        else:
            continue
        assert done.returncode == block.status, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran


def test_python_and_yaml_of_every_page_can_be_parsed():
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                ast.parse(block.text)
            if block.language == "yaml":
                yaml.safe_load(block.text)


# -- what is made from the code -----------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch):
    """A module of scripts/ or scripts/docs/ by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    return importlib.import_module


def test_the_readme_is_short_and_its_tables_are_the_measured_ones(script):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 7000
    assert script("readme_tables").fill(text) == text


def test_the_site_builds_strictly(site):
    for name in ("index", "concepts", "reference/cli", "reference/configs/model", "results/text", "notebook"):
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        assert "<!-- made:" not in text


def test_the_keys_in_the_text_of_a_page_exist():
    """A key is `dataset.decoding.convert` or the left side of `dataset.decoding.convert=true`."""
    groups = catalogue.groups()
    known = set()
    for group in groups:
        for entry in catalogue.entries(group):
            paths = set(unknown_keys.paths_of(entry.content))
            known |= paths | {f"{group.replace('/', '.')}.{path}" for path in paths}
    # Keys that no shipped YAML writes: of data sets of one's own, of SLURM, of an experiment's own part.
    known |= {"dataset.workers", "dataset.noise", "launcher.options.constraint", "procedure.cost.clock"}
    key = re.compile(
        rf"(?<![./\w])(?:{'|'.join(group for group in groups if '/' not in group)})(?:\.[a-z_0-9]+)+(?=[=`])"
    )
    unknown = {}
    for page in PAGES:
        if page.name != "from_lightning.md":  # has Lightning's keys beside ours
            found = {
                word for word in key.findall(page.read_text(encoding="utf-8")) if not word.endswith((".py", ".md"))
            }
            unknown[page.relative_to(ROOT).as_posix()] = sorted(found - known)
    assert unknown.pop("docs/index.md") == ["optimizer.learning_rate"], "the typing error that the page shows"
    assert {page: words for page, words in unknown.items() if words} == {}


def test_every_config_key_has_a_meaning(script):
    assert script("config_pages").undocumented() == []


def test_the_reference_has_every_group_option_and_verb(script, site):
    reference = site / "reference"
    overview = (reference / "configs.html").read_text(encoding="utf-8")
    for group in script("config_pages").group_names():
        assert f'href="configs/{group}.html"' in overview
        page = (reference / "configs" / f"{group}.html").read_text(encoding="utf-8")
        for option in (ROOT / "conf" / group).glob("*.yaml"):
            assert f'<h2 id="{option.stem}">' in page
    verbs = (reference / "cli.html").read_text(encoding="utf-8")
    for verb in cli.verbs():
        assert verb in ("help", "train") or f'<h2 id="dl-lab-{verb}">' in verbs
    assert re.search(r"<code>--dry-run</code></td>\s*<td[^>]*>show the plan", verbs)


def test_types_defaults_and_meanings_come_from_the_code(script):
    page = script("config_pages").page("model")
    assert "<code>dropout</code> | <code>float</code> | <code>0.2</code>" in page


def test_every_experiment_is_listed_with_its_id_explained(script):
    pages = script("experiment_pages")
    made = pages.experiments()
    experiments = configs.catalogue.experiments()
    for entry in experiments:
        assert f"| `{entry.name}` |" in made
        assert not entry.id or pages.source(entry.id), f"{entry.id} has no source in words"
    assert pages.abbreviations("see IST2-ATTN.").startswith("*[IST2-ATTN]: Instituto Superior")


def test_results_show_full_length_runs_only(script):
    pages = script("result_pages")
    for path in (DOCS / "results").glob("*.csv"):
        if path.stem == "search":
            continue
        made = pages.table(path.stem)
        assert (DOCS / "results" / f"{path.stem}.md").exists()
        assert "max_epochs" not in made
        assert f"[{path.name}]({path.name})" in made


def test_every_figure_is_used_and_a_script_makes_every_screenshot(script):
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    figures = {path.name for path in (DOCS / "figures").iterdir()}
    assert {name for name in figures if f"figures/{name})" not in text} == set()
    source = (ROOT / "scripts" / "screenshots.py").read_text(encoding="utf-8")
    screenshots = {name for name in figures if name.startswith(("terminal", "tensorboard", "report", "site"))}
    assert len(screenshots) >= 10
    assert {name for name in screenshots if f'"{name.removesuffix(".png")}' not in source} == set()
    for kind in ("light", "dark", "phone", "print"):
        assert f"report_{kind}.png" in screenshots


def test_the_notebook_has_outputs_and_a_plot_and_its_page_shows_them(script):
    cells = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in code)
    made = script("notebook_page").page()
    assert made.count("data:image/png") == 1
    assert "test/accuracy" in made
    assert made.count("```python") == len(code)


def test_the_guides_are_listed_with_their_first_sentence(script):
    listed = script("hooks")._list_of_guides()
    for line in listed.splitlines()[2:]:
        assert not line.endswith("|  |"), f"no sentence: {line}"


def test_the_design_page_draws_the_rows_that_the_import_test_enforces(script):
    layers = script("layers")
    picture = layers.draw()
    assert picture == (DOCS / "figures" / "layers.svg").read_text(encoding="utf-8"), "python scripts/docs/layers.py"
    heights = [[int(re.search(rf'y="(\d+)"[^>]*>{name}<', picture)[1]) for name in row] for row in layers.rows()]
    assert all(len(set(row)) == 1 for row in heights)
    assert heights == sorted(heights)
    design = (DOCS / "design.md").read_text(encoding="utf-8")
    for row in layers.rows():
        for name in row:
            assert f"`{name}`" in design or f"`{name}/`" in design, f"docs/design.md does not explain {name}"
