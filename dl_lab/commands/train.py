"""dl-lab [overrides]: compose, check, run, and show the result."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence

from dl_lab import configs
from dl_lab.commands import HYDRA_FLAGS, MULTIRUN
from dl_lab.configs.tuned import compose_for_machine
from dl_lab.jobs.one import execute
from dl_lab.runs.machine import is_several
from dl_lab.show.colours import paint


def main(argv: Sequence[str]) -> int:
    """Train, or run a sweep, and return the exit status."""
    if any(word.split("=")[0] in HYDRA_FLAGS for word in argv):
        return _show_config(argv)
    options = parse(argv)
    if sys.stderr.isatty() and not options.multirun:  # the imports take a second or two; a sweep has its own lines
        print(paint("Checking the settings and loading torch ...", "dim", sys.stderr), file=sys.stderr)
    composer = None if options.multirun else configs.Composer(options.config_dir, options.config_name)
    if composer is None or composer.is_multirun(options.overrides):
        from dl_lab.sweeps.start import start

        return start([word for word in argv if word not in ("-m", "--multirun")])
    composed = compose_for_machine(composer, options.overrides)
    configs.refuse_unread(composed.unread)
    if composed.local:
        settings = " ".join(f"{key}={value}" for key, value in composed.local.items())
        print(f"With {settings}, which dl-lab tune found fastest here.", file=sys.stderr)
    if is_several():
        from dl_lab.jobs import several

        several.execute(composed, ["dl-lab", *argv])
    else:
        execute(composed, ["dl-lab", *argv])
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse Hydra's flags that choose what is run. Everything else is an override."""
    parser = argparse.ArgumentParser(prog="dl-lab", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn", default="config")
    if any(word in MULTIRUN for word in argv):
        return argparse.Namespace(multirun=True, config_dir=None, config_name="config", overrides=[])
    options, unknown = parser.parse_known_intermixed_args(list(argv))
    flags = [word for word in unknown if word.startswith("-")]
    if flags:
        raise configs.ConfigError(f"There is no flag {flags[0]}. See dl-lab --help.")
    options.overrides += unknown
    return options


@contextlib.contextmanager
def _unchecked_help() -> Iterator[None]:
    """Let Hydra 1.3 make its parser with Python 3.14 (github.com/facebookresearch/hydra/issues/3121).

    Python 3.14 checks each help text when it is added. Hydra adds an object, which becomes a text when it is shown.
    """
    check = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is None:
        yield
        return
    argparse.ArgumentParser._check_help = lambda self, action: None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        argparse.ArgumentParser._check_help = check  # pyright: ignore[reportAttributeAccessIssue]


def _show_config(argv: Sequence[str]) -> int:
    """Let Hydra show the config: --cfg, --info, --hydra-help, tab completion."""
    import hydra
    from hydra._internal.utils import get_args_parser
    from omegaconf.errors import OmegaConfBaseException

    with _unchecked_help():
        options = get_args_parser().parse_args(list(argv))
    composer = configs.Composer(options.config_dir, options.config_name or "config")
    if options.cfg or options.info:  # composing here first gives dl-lab's error messages, not Hydra's
        config = composer.load(options.overrides, options.multirun)
        if options.resolve:
            configs.resolve(config, options.overrides)
        if options.resolve and options.cfg == "hydra":
            raise configs.ConfigError(
                "Hydra's own settings have their values only while a job runs: no --resolve here."
            )
    sys.argv = ["dl-lab", *composer.in_hydras_words(argv)]
    main = hydra.main(version_base="1.3", config_path=f"pkg://{configs.CONFIG_MODULE}", config_name="config")
    try:
        with _unchecked_help():
            main(lambda _: None)()
    except (OmegaConfBaseException, ValueError) as error:
        raise configs.ConfigError(str(error).partition("\n")[0]) from error
    return 0
