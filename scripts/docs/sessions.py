"""The recorded terminal sessions in docs/sessions: run their commands again, and write what they say into the pages.

    python scripts/docs/sessions.py [table text ...]     records (all pages, without a name)

A page is the source of its commands: each line "$ ..." in a block ```text is run in an empty folder, one after the
other, with a wheel of this checkout in an environment of its own. The lines below a command are what it said.
`tests/test_sessions.py` replays the pages and compares.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "sessions"
BLOCK = re.compile(r"```text\n(.*?)```", re.DOTALL)
HOME = "/home/you"  # stands for the folder of the session


@dataclass(frozen=True)
class Step:
    """A command and what it said."""

    command: str
    said: str


def read_steps(page: Path) -> list[Step]:
    """The commands of a page and the recorded outputs."""
    steps = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, said = part.partition("\n")
            steps.append(Step(command, said))
    return steps


def build_wheel(folder: Path) -> Path:
    """Build a wheel from a copy of the sources, without network."""
    for name in ("dl_lab", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    code = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def make_environment(folder: Path) -> Path:
    """Make an environment with pip, which borrows all packages but dl-lab from this one; return its `bin`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder / "bin"


def replay(steps: list[Step], folder: Path, wheel: Path | None, binaries: Path) -> list[Step]:
    """Run the commands from an empty folder.

    Args:
        steps: What to run; a command that fails ends the replay.
        folder: An empty folder.
        wheel: What `pip install` finds in the folder. None: the steps install nothing.
        binaries: The folder of `dl-lab`: the `bin` of the environment.

    Returns:
        The same commands with what they say now.
    """
    if wheel is not None:
        shutil.copy(wheel, folder)
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "DL_LAB", "VIRTUAL"))
    }
    matplotlib = kept.get("MPLCONFIGDIR") or str(Path.home() / ".cache" / "matplotlib")
    environment = {
        **kept,
        "PATH": f"{binaries}{os.pathsep}{kept['PATH']}",
        "XDG_CONFIG_HOME": str(folder / ".config"),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "MPLCONFIGDIR": matplotlib,  # its list of fonts takes seconds to make
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",  # they are borrowed
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    here = folder
    found = []
    for step in steps:
        words = shlex.split(step.command.partition("  #")[0])
        if words[0] == "cd":
            here = here / words[1]
            found.append(Step(step.command, ""))
            continue
        words[0] = str(shutil.which(words[0], path=environment["PATH"]))
        done = subprocess.run(
            words,
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        said = "\n".join(line.rstrip() for line in done.stdout.replace(str(folder), HOME).splitlines())
        found.append(Step(step.command, said + "\n" if said else ""))
        if done.returncode != 0:
            raise RuntimeError(f"{step.command} ended with status {done.returncode}:\n{said}")
    return found


def write(page: Path, steps: list[Step]) -> None:
    """Write what the commands said into the page."""
    waiting = list(steps)

    def fill(match: re.Match[str]) -> str:
        own = [waiting.pop(0) for _ in re.findall(r"(?m)^\$ ", match[1])]
        return "```text\n" + "".join(f"$ {step.command}\n{step.said}" for step in own) + "```"

    page.write_text(BLOCK.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")


def main(names: list[str]) -> None:
    """Record the sessions of the named pages."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "source").mkdir()
        wheel = build_wheel(place / "source")
        binaries = make_environment(place / "environment")
        for page in sorted(PAGES.glob("*.md")):
            if page.stem == "index" or (names and page.stem not in names):
                continue
            folder = place / page.stem
            folder.mkdir()
            write(page, replay(read_steps(page), folder, wheel, binaries))
            print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
