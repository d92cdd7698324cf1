"""The pages on own parts (docs/extend): each example runs as it stands, and a run that it makes is done."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from dl_lab import cli
from dl_lab.runs.files import read_json

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted((DOCS / "extend").glob("*.md"))
BLOCK = re.compile(r"```(python|yaml|console)\n(.*?)```", re.DOTALL)


def write_files(page: Path, folder: Path) -> None:
    """Write every block that begins with the comment `# path` as that file."""
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        named = re.match(r"# ([\w/]+\.(?:py|yaml))\n", text)
        assert language == "console" or named, f"{page.name}: a block without the name of its file"
        if named:
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(text, encoding="utf-8")


def commands_of(page: Path) -> list[str]:
    blocks = [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language == "console"]
    return [line for text in blocks for line in text.splitlines() if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    lines = commands_of(page)
    assert lines
    for i, line in enumerate(lines):
        words = shlex.split(line)
        at = words.index("dl-lab")
        for word in words[:at]:
            monkeypatch.setenv(*word.split("=", 1))
        arguments = words[at + 1 :]
        if arguments[0] in cli.verbs():
            assert cli.main(arguments) == 0, line
            continue
        place = f"outputs/run{i}"
        assert cli.main([*arguments, f"hydra.run.dir={place}", "threads=1"]) == 0, line
        assert (read_json(tmp_path / place / "status.json") or {})["state"] == "done"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]  # each page has a package of this name
    assert "my_lab" not in sys.modules and os.getcwd() == str(tmp_path)


def test_there_is_a_page_for_each_seam():
    seams = {"model", "data", "task", "learner", "callback", "trainer", "procedure", "predictor", "logger"}
    assert {page.stem for page in PAGES} == seams
