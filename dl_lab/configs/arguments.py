"""Whether the arguments that a config gives to a target fit: their names, and their declared types."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dl_lab.configs.targets import targets
from dl_lab.configs.words import did_you_mean, to_list
from dl_lab.types import ConfigError


def check_call(path: str, node: Mapping[str, object], target: Callable[..., object]) -> None:
    """Check that the arguments of a target exist, that none is missing, and that plain values have the declared types.

    Args:
        path: The config path of the part.
        node: The part.
        target: Its class or function.

    Raises:
        ConfigError: An argument is unknown, missing or of the wrong type.
    """
    arguments = {key: value for key, value in node.items() if not re.fullmatch(r"_[a-z]+_", str(key))}
    try:
        parameters, takes_any = _parameters_of(target)
    except (ValueError, TypeError):  # builtins without a signature, callables without a hash
        return
    for key in arguments:
        if key not in parameters and not takes_any:
            names = [n for n in parameters if n not in ("self", "args", "kwargs")]
            raise ConfigError(
                f"{path}.{key}: {node['_target_']} has no argument {key!r}.{did_you_mean(key, names)}\n"
                f"{to_list('arguments', names)}"
            )
    missing = [name for name, parameter in parameters.items() if _is_required(parameter) and name not in arguments]
    if missing and not node.get("_partial_") and "_args_" not in node:
        hint = " To give the function itself: _partial_: true." if inspect.isfunction(target) else ""
        raise ConfigError(f"{path}: {node['_target_']} needs a value for {', '.join(missing)}.{hint}")
    check_types(path, arguments, target)


def check_types(path: str, arguments: Mapping[str, object], target: Callable[..., object]) -> None:
    """Check that plain values have the types that a target declares for them.

    Args:
        path: The config path of the part.
        arguments: Values of the target's arguments. Parts that are still to build are not checked.
        target: The part's class or function.

    Raises:
        ConfigError: A value does not fit.
    """
    hints = _type_hints(target)
    for key, value in arguments.items():
        if key in hints and not _holds_target(value):
            check_type(f"{path}.{key}", value, hints[key])
        elif key in hints and (wrong := _describe_wrong_container(value, hints[key])):
            raise ConfigError(f"{path}.{key} is {wrong}")


@functools.cache  # the jobs of a sweep call the same functions
def _parameters_of(target: Callable[..., object]) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """Return the parameters of a class or function by name, and whether it takes any other keyword, too."""
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return parameters, takes_any or _passes_on_keywords(target)


def _is_required(parameter: inspect.Parameter) -> bool:
    """Whether a call must give the parameter."""
    is_open = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return parameter.default is parameter.empty and not is_open


def _passes_on_keywords(target: Callable[..., object]) -> bool:
    """Whether a constructor takes any keyword although its signature names only a few, because of a decorator.

    `transformers.BertConfig` is a dataclass whose decorated constructor takes `**kwargs`. Where the decorator only
    passes them on, the constructor itself will refuse a wrong one.
    """
    function: Any = target.__init__ if inspect.isclass(target) else target
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except (ValueError, TypeError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _type_hints(target: Callable[..., object]) -> dict[str, object]:
    try:
        return _hints_of(target.__init__ if inspect.isclass(target) else target)
    except (TypeError, AttributeError):  # builtins, callables without a hash
        return {}


@functools.cache
def _hints_of(function: Callable[..., object]) -> dict[str, object]:
    """Return the type of each argument. An argument whose type only the type checker knows is left out."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        found: dict[str, object] = {}
        for name, hint in function.__annotations__.items():
            alone = types.SimpleNamespace(__annotations__={name: hint})
            with contextlib.suppress(NameError):
                found |= typing.get_type_hints(alone, getattr(function, "__globals__", {}))
        return found


def _holds_target(value: object) -> bool:
    return next(iter(targets(value)), None) is not None


def _describe_wrong_container(value: object, hint: object) -> str:
    """Say what is wrong with a list of parts where only mappings fit, or with the reverse; "" where nothing is."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [typing.get_origin(option) for option in options if option is not types.NoneType]

    def takes_only(container: type) -> bool:
        return bool(kinds) and all(isinstance(kind, type) and issubclass(kind, container) for kind in kinds)

    if isinstance(value, list) and takes_only(Mapping):
        return "a list; it must be a mapping, whose parts have names."
    if isinstance(value, Mapping) and "_target_" not in value and takes_only(Sequence):
        return "a mapping; it must be a list."
    return ""


def check_type(path: str, value: object, hint: Any) -> None:
    """Check that a value has a type.

    Args:
        path: The config path of the value.
        value: A value of a YAML file.
        hint: A type hint. A list also fits where the hint is a tuple.

    Raises:
        ConfigError: The value does not fit. The message says what would.
    """
    os.environ.setdefault("TYPEGUARD_DISABLE_PLUGIN_AUTOLOAD", "1")  # saves reading all packages' entry points, 35 ms
    import typeguard

    candidates: list[object] = [value, tuple(value)] if isinstance(value, list) else [value]
    if _has_bool_for_number(value, hint) or _has_text_for_list(value, hint):
        candidates = []
    for candidate in candidates:
        try:
            typeguard.check_type(candidate, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
        except typeguard.TypeCheckError:
            continue
        return
    wanted = _describe_type(hint, str(value))
    raise ConfigError(f"{path}: {value!r} ({type(value).__name__}) does not fit; it must be {wanted}")


def _has_bool_for_number(value: object, hint: object) -> bool:
    """Whether a boolean stands where a number is meant. For Python, True is the number 1."""
    parts = typing.get_args(hint)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if isinstance(value, bool):
        options = parts if is_union else (hint,)
        takes_bool = any(option in (bool, object, Any) or value in typing.get_args(option) for option in options)
        return not takes_bool and any(option in (int, float, complex) for option in options)
    if is_union:
        return all(_has_bool_for_number(value, part) for part in parts if part is not types.NoneType)
    if isinstance(value, list) and parts:
        return any(_has_bool_for_number(item, parts[0]) for item in value)
    if isinstance(value, Mapping) and len(parts) == 2:
        return any(_has_bool_for_number(item, parts[1]) for item in value.values())
    return False


def _has_text_for_list(value: object, hint: object) -> bool:
    """Whether a text stands where a list of texts is meant. For Python, a text is a sequence of its letters."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return (
        isinstance(value, str)
        and any(typing.get_origin(option) is Sequence for option in options)
        and not any(option in (str, object, Any) or value in typing.get_args(option) for option in options)
    )


def _describe_type(hint: object, value: str) -> str:
    """Return in words what a value must be, with the choice that is nearest to the value given."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = typing.get_args(hint) if is_union else (hint,)
    choices: list[str] = []
    others: list[str] = []
    for part in parts:
        if typing.get_origin(part) is typing.Literal:
            choices += map(str, typing.get_args(part))
        else:
            others.append(_type_name(part))
    if not choices or hint == int | typing.Literal["auto"]:
        return f"{_type_name(hint)}."
    named = choices[0] if is_union and len(choices) == 1 else f"one of {', '.join(choices)}"
    return " or ".join([named, *others]) + f".{did_you_mean(value, choices)}"


def _type_name(hint: object) -> str:
    if hint == int | typing.Literal["auto"]:
        return "auto or a whole number"
    if hint is types.NoneType:
        return "null"
    if typing.get_origin(hint) is Callable:
        return "a function or class (_target_)"
    if isinstance(hint, type):
        return hint.__name__
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and any(
        typing.get_origin(option) is Sequence for option in options
    ):
        return ", or ".join(map(_type_name, options))
    if typing.get_origin(hint) is Sequence:
        (item,) = typing.get_args(hint)
        return f"a list of {_type_name(item)}, such as [a, b]" if item is str else f"a list of {_type_name(item)}"
    return re.sub(r"\b(typing|collections\.abc)\.", "", str(hint))
