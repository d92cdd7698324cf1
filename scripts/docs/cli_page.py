"""The reference of the command line, made from the parsers of the verbs."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable

from dl_lab.commands import help as help_


class _Seen(Exception):
    """Carries a parser out of the verb that built it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def page() -> str:
    """Usage, arguments and flags of every verb."""
    parts = [f"```text\n{help_.screen()}\n```"]
    for verb, summary in help_.verbs().items():
        parser = parser_of(verb)
        parts.append(f"## dl-lab {verb}")
        parts.append(f"{summary[:1].upper()}{summary[1:]}.")
        parts.append(f"```text\n{_usage(parser)}\n```")
        parts.append(_table(parser))
        if parser.epilog:
            parts.append(_prose(parser.epilog))
    return "\n\n".join(part for part in parts if part)


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser that a verb builds for `--help`; nothing else of the verb runs."""
    names = {"list": "list_"}
    module = importlib.import_module(f"dl_lab.commands.{names.get(verb, verb)}")
    kept = argparse.ArgumentParser.print_help
    argparse.ArgumentParser.print_help = _hand_over  # type: ignore[method-assign]
    try:
        main: Callable[[list[str]], int] = module.main
        main(["--help"])
    except _Seen as seen:
        return seen.parser
    finally:
        argparse.ArgumentParser.print_help = kept  # type: ignore[method-assign]
    raise RuntimeError(f"dl-lab {verb} --help built no parser.")


def _hand_over(parser: argparse.ArgumentParser, file: object = None) -> None:
    raise _Seen(parser)


def _usage(parser: argparse.ArgumentParser) -> str:
    usage = re.sub(r"\s+", " ", parser.format_usage()).removeprefix("usage: ").strip()
    return usage.replace(" [-h]", "")


def _table(parser: argparse.ArgumentParser) -> str:
    lines = ["| argument | meaning | default |", "|---|---|---|"]
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        takes = ""
        if action.option_strings and action.nargs != 0:
            takes = f" {action.metavar or (action.dest or '').upper()}"
        if action.choices:
            takes = f" {{{','.join(map(str, action.choices))}}}"
        expanded = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        default = action.default
        shown = "" if default in (None, False, [], argparse.SUPPRESS) else f"`{default}`"
        lines.append(f"| `{name}{takes}` | {_escape(expanded)} | {shown} |".replace("||", "|\\|"))
    return "\n".join(lines) if len(lines) > 2 else ""


def _prose(text: str) -> str:
    """A parser's epilog: one that is laid out as a table keeps its layout."""
    return f"```text\n{text.rstrip()}\n```" if re.search(r"\n\s{2,}\S|  +\S", text) else _escape(text)


def _escape(text: str) -> str:
    return re.sub(r"([|*<>_])", r"\\\1", re.sub(r"\s+", " ", text).strip())
