"""The procedure that a config describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dl_lab.configs.build import build

if TYPE_CHECKING:
    from dl_lab.procedures.protocol import Procedure


def build_procedure(config: Mapping[str, object]) -> Procedure:
    """Build the procedure with all its parts, and give it a default for each method that it lacks.

    Args:
        config: A resolved config.

    Raises:
        ConfigError: A constructor refuses its arguments.
    """
    from dl_lab.procedures.protocol import complete

    return complete(build(config, "procedure"))
