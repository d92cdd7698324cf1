"""dl-lab trust: allow this project's own code to run, now and later.

The packages are those of `allow` in [tool.dl-lab] of the nearest pyproject.toml. The permission is kept outside the
project, so that a cloned repository cannot give it to itself. A package added to `allow` later is asked for again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dl_lab import project
from dl_lab.show.options import Parser
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab trust` and return the exit status."""
    options = parse(argv)
    found = project.find()
    if found is None:
        raise UserError("There is no pyproject.toml with a table [tool.dl-lab] in this folder or above it.")
    if options.revoke:
        project.distrust(found)
        print(f"{found.root}: its own code is refused from now on.")
        return 0
    if not found.allow:
        print(f"{found.root} names no package in `allow`: there is nothing to trust.")
        return 0
    project.trust(found)
    print(f"{found.root}: a config may use {', '.join(found.allow)} from now on. Undo it:  dl-lab trust --revoke")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab trust", description=summary, epilog=details)
    parser.add_argument("--revoke", action="store_true", help="refuse the project's code again")
    return parser.parse_args(list(argv))
