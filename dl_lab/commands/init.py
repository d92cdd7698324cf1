"""dl-lab init: start a project of your own that trains, sweeps and has a test.

It has a package, configs, one test, a README with three commands and a little data, made here. Making a project is
your permission to run its code; `dl-lab trust --revoke` takes it back.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dl_lab import project
from dl_lab.show.options import Parser
from dl_lab.types import ConfigError, UserError

KINDS = {
    "table": "a CSV and a column to predict",
    "images": "a folder of images, one folder a class",
    "text": "a CSV of texts and labels",
    "audio": "a folder of sounds, one folder a class",
    "series": "a time series in a CSV",
    "loop": "a training loop of your own",
}


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab init` and return the exit status."""
    options = parse(argv)
    name = options.name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} cannot be the name of a Python package: use letters, digits and _.")
    folder = Path(name)
    if folder.exists():
        raise UserError(f"{folder.absolute()} exists already: give another name.")
    write(folder, importlib.import_module(f"dl_lab.starters.{options.kind}").files(), name)
    home = os.getcwd()
    os.chdir(folder)
    try:
        made = project.find()
    finally:
        os.chdir(home)
    if made is not None:
        project.trust(made)
    print(f"{folder}/ is a project on {KINDS[options.kind]}. Try it:\n")
    print(f"  cd {folder}\n  dl-lab experiment=first\n  dl-lab -m experiment=first sweep=rates\n  python -m pytest")
    return 0


def write(folder: Path, files: Mapping[str, str | bytes], name: str) -> None:
    """Write all files of a starter, or none.

    Args:
        folder: The folder of the new project.
        files: Path -> content. NAME stands for the package, in both.
        name: The name of the package.

    Raises:
        UserError: A file cannot be written.
    """
    whole = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for path, content in files.items():
            target = whole / path.replace("NAME", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                target.write_text(content.replace("NAME", name), encoding="utf-8")
        os.replace(whole, folder)
    except OSError as error:
        import shutil

        shutil.rmtree(whole, ignore_errors=True)
        raise UserError(f"Cannot write {folder}: {error.strerror}.") from error


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    kinds = "\n".join(f"  {kind:8}{about}" for kind, about in KINDS.items())
    parser = Parser(
        prog="dl-lab init",
        description=summary,
        epilog=f"{details}\nkinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the project's folder and package")
    parser.add_argument("--from", dest="kind", choices=list(KINDS), default="table", help="what it starts from (table)")
    return parser.parse_args(list(argv))
