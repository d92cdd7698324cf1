"""The procedure that a config describes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dl_lab.configs.build import build
from dl_lab.types import UserError

if TYPE_CHECKING:
    from dl_lab.procedures.protocol import Procedure


@contextlib.contextmanager
def refuse_moving() -> Iterator[None]:
    """Refuse code that changes the current folder, and go back there: paths of the config begin in that folder.

    Raises:
        UserError: The block changed it.
    """
    place = os.getcwd()
    problem: Exception | None = None
    try:
        yield
    except (UserError, OSError) as error:  # perhaps because a file is not in the new folder
        problem = error
    finally:
        try:
            now = os.getcwd()
        except FileNotFoundError:
            now = "a folder that is no longer there"
        os.chdir(place)
    if now != place:
        raise UserError(
            f"The code changed the current folder to {now} (os.chdir). It must stay {place}, where the paths of the "
            "config begin: use whole paths instead."
        ) from problem
    if problem is not None:
        raise problem


@refuse_moving()
def build_procedure(config: Mapping[str, object]) -> Procedure:
    """Build the procedure with all its parts, and give it a default for each method that it lacks.

    Args:
        config: A resolved config.

    Raises:
        ConfigError: A constructor refuses its arguments.
    """
    from dl_lab.procedures.protocol import complete

    return complete(build(config, "procedure"))
