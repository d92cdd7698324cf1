"""Split a text into overrides, find what an override sets, and write a value as an override.

Two overrides are the same when they set the same value: `optimizer.lr=0.1` and `optimizer.lr=1e-1`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dl_lab.configs.explain import not_an_override
from dl_lab.keys import of_word
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override, RangeSweep

OPENING = {"(": ")", "[": "]", "{": "}"}
MOST_VALUES = 1_000_000  # of one axis: a longer range is a typing error


def split_words(text: str) -> list[str]:
    """Split a text into overrides: 'a=1 b="x y" c=[32, 32]' has three. Blanks separate outside quotes and brackets.

    Args:
        text: The text.

    Raises:
        ConfigError: A quote or bracket is not closed.
    """
    words: list[str] = []
    word = ""
    closing: list[str] = []
    quote = ""
    for i, sign in enumerate(text):
        if quote:
            if sign == quote and text[i - 1] != "\\":
                quote = ""
        elif sign in "'\"":
            quote = sign
        elif sign in OPENING:
            closing.append(OPENING[sign])
        elif closing and sign == closing[-1]:
            closing.pop()
        elif sign.isspace() and not closing:
            words.append(word)
            word = ""
            continue
        word += sign
    words.append(word)
    missing = quote or "".join(closing[-1:])
    if missing:
        raise ConfigError(f"{text!r}: a closing {missing} is missing.")
    return [word for word in words if word]


def parse_overrides(words: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Parse words of the command line with Hydra's grammar.

    Args:
        words: The overrides.
        loader: Hydra's config loader, which `glob(...)` needs.

    Raises:
        ConfigError: A word is no override.
    """
    from hydra.errors import HydraException

    parsed = []
    for word in words:
        try:
            parsed.append(_parse(word, loader) if "glob(" in word else _parse_known(word))
        except HydraException as error:
            raise ConfigError(not_an_override(word, words)) from error
    return parsed


def _parse(word: str, loader: ConfigLoader | None = None) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    # `parse_override`, for a single word, would not give the loader to the override.
    return OverridesParser.create(config_loader=loader).parse_overrides([word])[0]


@functools.cache  # the jobs of a grid share most of their words
def _parse_known(word: str) -> Override:
    return _parse(word)


def alternatives(override: Override) -> list[str]:
    """Return the words of an override: one for each value of `a=1,2`, and itself for `a=1`.

    Args:
        override: The parsed override.

    Raises:
        ConfigError: A range cannot be counted, or has no values.
    """
    from hydra.core.override_parser.types import RangeSweep
    from hydra.errors import HydraException

    word = str(override.input_line)
    if not override.is_sweep_override():
        return [word]
    value = override.value()
    if isinstance(value, RangeSweep):
        check_range(word, value)
    try:
        words = [f"{override.get_key_element()}={text}" for text in override.sweep_string_iterator()]
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{word}: {error}") from error
    if not words:
        raise ConfigError(f"{word} has no values.")
    return words


def check_range(word: str, value: RangeSweep) -> None:
    """Refuse a range that never ends, or that has too many values.

    Args:
        word: The override, for the message.
        value: Its range.

    Raises:
        ConfigError: The step is 0, or there are too many values.
    """
    if not value.step:
        raise ConfigError(f"{word}: the step of a range must not be 0.")
    n_values = (float(value.stop or 0) - float(value.start or 0)) / float(value.step)
    if not n_values < MOST_VALUES:  # also where it is nan
        raise ConfigError(f"{word}: a range must have fewer than {MOST_VALUES:,} values.")


def as_mapping(words: Sequence[str]) -> dict[str, str]:
    """Return the values of overrides as they are written: {"a.b": "1e-1"} for "a.b=1e-1"."""
    mapping = {}
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        mapping[key] = value
    return mapping


def values_of(words: Sequence[str]) -> dict[str, object]:
    """Return the values of overrides as they are meant: {"a.b": 0.1} for "a.b=1e-1"."""
    return {of_word(word): value_of(word) for word in words}


@functools.cache
def value_of(word: str) -> object:
    """Return the value that a word without alternatives sets; None for `~key`."""
    (override,) = parse_overrides([word])
    return override.value()


def are_equal(one: object, other: object) -> bool:
    """Whether two values are the same for a config: 1 is 1.0, but True is not 1 and "1" is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def to_word(key: str, value: object) -> str:
    """Write the override that sets a key to a value of a YAML file, whatever signs a text holds.

    Args:
        key: The key.
        value: The value.
    """
    return f"{key}={_write(value)}"


def _write(value: object) -> str:
    if isinstance(value, str):
        return value if _is_read_back(value) else _quote(value)
    if isinstance(value, list):
        return f"[{','.join(map(_write, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(_write_items(value))}}}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write_items(value: Mapping[object, object]) -> Iterator[str]:
    for key, item in value.items():
        yield f"{_write(key)}:{_write(item)}"


@functools.cache
def _is_read_back(text: str) -> bool:
    """Whether Hydra reads a text without quotes as this text, alone and in a list."""
    if not text or text != text.strip():
        return False
    try:
        (alone, in_list) = parse_overrides([f"key={text}", f"key=[{text}]"])
    except ConfigError:
        return False
    return not alone.is_sweep_override() and alone.value() == text and in_list.value() == [text]


def _quote(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
