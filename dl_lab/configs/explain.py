"""Explain Hydra's and OmegaConf's errors in the user's words."""

from __future__ import annotations

import re
import shlex
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dl_lab import keys
from dl_lab.configs import catalogue
from dl_lab.types import UserError

# oneDNN's recurrent layers need more of a CPU for bf16 than others do
NO_KERNEL = "This CPU cannot compute a layer of the model in this learner.precision; fp32 works everywhere."


def key_paths(value: object, path: str = "") -> Iterator[str]:
    """Yield every key of a config by its dotted path, without Hydra's own."""
    from omegaconf import DictConfig

    if not isinstance(value, DictConfig) or value._is_none() or value._is_missing() or value._is_interpolation():
        return
    for key in value:
        if path or key != "hydra":
            full = f"{path}.{key}" if path else str(key)
            yield full
            yield from key_paths(value._get_node(key), full)


def not_an_override(word: str | None, words: Sequence[str] = ()) -> str:
    """Say why a word is not `key=value`, and what to write instead.

    Args:
        word: The word; None where Hydra does not name it.
        words: The whole command line, in its order.
    """
    word = word or ""
    if grid := _grid_with_blanks(word, words):
        return f"{word!r} is not an override: write a grid without blanks, {grid}, or put quotes around it, '{grid}'."
    key, equals, value = word.partition("=")
    is_key = re.fullmatch(r"[+~]{0,2}[\w/.@:-]+", key) is not None
    signs = dict.fromkeys(sign for sign in value if sign in SIGNS or not sign.isascii())
    if is_key and equals and signs and not value.startswith(("[", "{", "'", '"')):
        names = " and ".join(SIGNS.get(sign, sign) for sign in signs)
        escaped = value.replace('"', '\\"')
        quoted = f'{key}="{escaped}"'
        return f"{word!r}: {names} in a text needs quotes:  {shlex.quote(quoted)}"
    return (
        f"{word!r} is not an override like key=value.\n"
        f"  a list: 'key=[1, 2]'   a text with spaces or signs: 'key=\"a b\"'   leave a group out: ~group"
    )


def unnamed_option(words: Sequence[str], groups: Sequence[str]) -> str:
    """Return the word that chooses something else than options by their names, such as `callbacks=[1]`; "" for none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for word in words:
        if keys.of_word(word).partition("@")[0] not in groups or "=" not in word:
            continue
        try:
            value = OverridesParser.create().parse_override(word).value()
        except HydraException:
            continue
        options = value if isinstance(value, list) else [value]
        if not isinstance(value, dict) and not all(option is None or isinstance(option, str) for option in options):
            return word
    return ""


def no_merge(error: BaseException) -> str:
    """Say why a value cannot replace another one."""
    message = _first_line(str(error.__cause__ or str(error).partition("\n")[2]))
    if kinds := re.match(r"Cannot merge (Dict|List)Config with (Dict|List)Config", message):
        names = {"Dict": "a mapping", "List": "a list"}
        return f"the config has {names[kinds[2]]} there, not {names[kinds[1]]}."
    return message


SIGNS = {sign: sign for sign in "=#~!%&()*;<>?@[]^`{|}'\""} | {",": "a comma", " ": "a blank", "\t": "a tab"}


def _grid_with_blanks(word: str, words: Sequence[str]) -> str:
    """Return `seed=1,2,3` for the words `seed=1,` `2,` `3`, where `word` is one of them; "" for any other word."""
    for start, first in enumerate(words):
        if "=" not in first or not first.endswith(","):
            continue
        end = start + 1
        while end < len(words) and words[end - 1].endswith(",") and "=" not in words[end]:
            end += 1
        if word in words[start:end]:
            return "".join(words[start:end]).rstrip(",")
    if "=" in word and word.endswith(","):
        return word.rstrip(",")
    return ""


def explain_value(error: Exception) -> str:
    """Explain an interpolation that leads nowhere, or a value of the wrong kind, with its config path."""
    path = getattr(error, "full_key", None) or ""
    message = _first_line(str(error))
    if unknown := re.match(r"Interpolation key '([^']+)' not found", message):
        top, _, rest = unknown[1].partition(".")
        own = path.partition(".")[0]
        message = f"${{{unknown[1]}}} names a key that this config does not have."
        is_group = (catalogue.SHIPPED / top).is_dir()
        is_chosen = bool(rest) and _root_of(error).get(top) is not None
        if is_group and not is_chosen:
            message += f" Is no {top} chosen? Choose one with {top}=NAME."
        elif is_group and own != top and (catalogue.SHIPPED / own).is_dir():
            message += f" This {own} does not fit this {top}, which has no {rest}: choose another with {own}=NAME."
    elif missing := re.search(r"Missing mandatory value: (\S+)", message):
        return f"{missing[1]} has no value yet: give it on the command line, {missing[1]}=..."
    elif message.startswith("Recursive interpolation"):
        message = "this interpolation leads back to itself."
    return f"{path}: {message}" if path else message


def _root_of(error: Exception) -> Mapping[str, object]:
    """Return the config in which an error of OmegaConf arose; an empty one if it does not say."""
    node = getattr(error, "parent_node", None)
    root = node._get_root() if node is not None else None
    return root if isinstance(root, Mapping) else {}


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def tidy(error: BaseException) -> str:
    """Return the message of a Hydra or OmegaConf error and of its causes, without their bookkeeping lines."""
    causes = []
    current: BaseException | None = error
    while current is not None:
        causes.append(str(current))
        current = current.__cause__
    lines = [line for text in causes for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"\s*(full_key|object_type|reference_type)[:=]", line)]
    return "\n".join(dict.fromkeys(kept))


def short_path(config: Mapping[str, object], path: str) -> str:
    """Return the path that the user knows: `model` for procedure.learner.model.

    This is the shortest end of the path that names the same part.
    """
    parts = path.split(".")
    target = _part_at(config, parts).get("_target_")
    for tail in [parts[i:] for i in range(len(parts) - 1, 0, -1)] if target else []:
        if _part_at(config, tail).get("_target_") == target:
            return ".".join(tail)
    return path


def _part_at(config: Mapping[str, object], keys: Sequence[str]) -> Mapping[str, object]:
    """Return the mapping at a path; {} where there is none."""
    node: object = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def fault(error: BaseException) -> str:
    """Return the message of a constructor that failed. For a bug, and in the user's own code, it names the line."""
    message = say(error)
    if message == NO_KERNEL:
        return message
    own = own_place(error)
    if isinstance(error, UserError):
        return message
    if isinstance(error, ValueError | TypeError | AssertionError) and message:
        return message + own
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {message}{own or place}"


def say(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class; our own words where torch's help nobody."""
    message = _first_line(str(error))
    if isinstance(error, RuntimeError) and "could not create a primitive" in message:
        return NO_KERNEL
    return message or type(error).__name__


def own_place(error: BaseException) -> str:
    """Return the last line of the user's own code that an error went through.

    Returns:
        A text to append to a message, " (nets.py, line 7)"; "" where the error went through no such code.
    """
    shipped = str(Path(__file__).resolve().parent.parent)
    foreign = (shipped, *sysconfig.get_paths().values(), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(foreign) and "site-packages" not in frame.filename:
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
