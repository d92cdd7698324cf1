"""Whether a part of the user's own has the methods of a protocol, with the protocol's arguments."""

from __future__ import annotations

import functools
import inspect

from dl_lab.types import ConfigError


def defines(part: object, method: str, protocol: type) -> bool:
    """Return whether a part's class has a method of its own, not only the protocol's empty one."""
    own = getattr(type(part), method, None)
    return own is not None and own is not getattr(protocol, method)


def refuse_other_arguments(name: str, part: object, method: str, protocol: type) -> None:
    """Check that a method takes what it is called with: in the middle of a training it would be too late.

    Args:
        name: The part's place in the config, for the message.
        part: The part.
        method: One of its methods.
        protocol: The class whose method of this name has the right arguments.

    Raises:
        ConfigError: The method takes other arguments.
    """
    wanted = _arguments_of(protocol, method)
    try:
        inspect.signature(getattr(part, method)).bind(*wanted)
    except TypeError:
        takes = f"the arguments {', '.join(wanted)}" if wanted else "no arguments"
        raise ConfigError(f"{name}: {type(part).__name__}.{method} must take {takes}.") from None
    except ValueError:  # it has no signature
        return


@functools.cache
def _arguments_of(protocol: type, method: str) -> list[str]:
    return list(inspect.signature(getattr(protocol, method)).parameters)[1:]
