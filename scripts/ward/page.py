"""The commands of docs/doctor.md: run each one, and say whether the doctor names the disease of its section.

    python scripts/ward/page.py OUTPUT_FOLDER

Only the commands of `dl-lab` itself are run here; `scripts/ward/run.py` has the others.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dl_lab.show.doctor.diagnose import diagnose

PAGE = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
SECTION = re.compile(r"\n### ([a-z-]+)\n(.*?)(?=\n### |\Z)", re.DOTALL)
COMMAND = re.compile(r"```console\ndl-lab (.*?)\n```", re.DOTALL)


def main() -> None:
    """Run the commands, and fail where a disease is not named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    missing = []
    for disease, words in read_commands():
        run = folder / disease
        arguments = ["dl-lab", *words, f"hydra.run.dir={run}", "threads=1", "logger=none"]
        subprocess.run(arguments, capture_output=True, check=disease != "diverging")  # that one ends with a status of 1
        found = [finding.name for finding in diagnose(run)]
        print(f"{disease:32} {' '.join(found)}", flush=True)
        if disease not in found:
            missing.append(disease)
    if missing:
        sys.exit(f"Not named: {', '.join(missing)}.")


def read_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each disease of the page that has a command, and the words of the command."""
    for disease, body in SECTION.findall(PAGE.read_text(encoding="utf-8")):
        for command in COMMAND.findall(body):
            yield disease, shlex.split(command)


if __name__ == "__main__":
    main()
