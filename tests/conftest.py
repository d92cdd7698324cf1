"""What the tests share: the command in its own process, the command in this process, and real data where it is."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drawing import draw_figures
from forked_commands import ForkedCommands
from long_tests import FixtureClock, LongTests, Stopwatch

ROOT = Path(__file__).resolve().parent.parent
FORKED = ForkedCommands()
FORKED.install()
LONG_TESTS = LongTests(Path(__file__).parent / "long_tests.txt")
KEEPS_A_WORKER_BUSY = 5.0  # seconds of one test


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-long-tests", action="store_true", help="update tests/long_tests.txt")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        FORKED.address = config.workerinput["forked_commands"]
    if config.getoption("record_long_tests"):
        config.pluginmanager.register(FixtureClock())
        if not hasattr(config, "workerinput"):  # the process that all reports come to
            config.pluginmanager.register(Stopwatch(LONG_TESTS))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """In pytest-xdist's first process: one server forks the commands of all its workers."""
    node.workerinput["forked_commands"] = FORKED.find_server()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tests, and let one worker run those that share a long fixture.

    What keeps one worker busy for long goes first: the others have work meanwhile.
    """
    seconds: dict[pytest.Item, float] = {}
    for item in items:
        seconds[item] = LONG_TESTS.find(item.nodeid, getattr(item, "fixturenames", []))
        if seconds[item]:
            item.add_marker("long")
        if item.get_closest_marker("xdist_group") is None and (shared := LONG_TESTS.find_shared(item)):
            item.add_marker(pytest.mark.xdist_group(shared))

    def can_begin_late(item: pytest.Item) -> bool:
        return seconds[item] < KEEPS_A_WORKER_BUSY and item.get_closest_marker("xdist_group") is None

    items.sort(key=can_begin_late)


def pytest_collection_finish() -> None:
    """Look for garbage more seldom, and not among what was imported: that took a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """A test that is marked `figures` or `browser` draws figures, its fixtures too; the others make them only."""
    draws = any(item.get_closest_marker(name) for name in ("figures", "browser"))
    FORKED.draws = draws
    draw_figures(draws)
    return (yield)


@pytest.fixture(autouse=True)
def start_of_commands(request):
    """A test that is marked `real_start` starts the command as a user does; the others fork it, without its imports."""
    FORKED.enabled = request.node.get_closest_marker("real_start") is None


@pytest.fixture(autouse=True, scope="session")
def inner_temporary_folders(tmp_path_factory):
    """A pytest that a test starts has a place of its own: it would delete the folders of this machine's older runs."""
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(tmp_path_factory.mktemp("inner"))


@pytest.fixture
def write_command():
    """Write a file that is `dl-lab` or `python` for a shell with this environment: (path, environment)."""

    def write(path: Path, environment: dict[str, str]) -> None:
        first = [] if path.name == "python" else ["-m", "dl_lab"]
        path.write_text(FORKED.script(environment, *first), encoding="utf-8")
        path.chmod(0o755)

    return write


@pytest.fixture
def lab(tmp_path):
    """Run `dl-lab ...` as a user does: a process of its own, in an empty folder. Returns the finished process."""

    def run(*arguments: str, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "dl_lab", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def execute_in():
    """Compose and run in this process: (folder, *overrides) -> metrics."""
    from dl_lab import configs as config
    from dl_lab.jobs.one import execute

    composer = config.Composer()

    def run(folder: Path, *overrides: str) -> dict[str, float]:
        composed = composer.compose([*overrides, f"hydra.run.dir={folder}", "threads=1"])
        return execute(composed, ["dl-lab", *overrides], quiet=True)

    return run


@pytest.fixture
def execute(tmp_path, execute_in):
    """Compose and run in this process, in an empty folder; returns (run folder, metrics)."""

    def run(*overrides: str):
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        return folder, execute_in(folder, *overrides)

    return run


@pytest.fixture
def fresh_imports(monkeypatch):
    """The test's own modules are forgotten at its end, and `sys.path` is as it was: another test may reuse a name."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in set(sys.modules) - before:
        file = vars(sys.modules[name]).get("__file__") or ""  # getattr would load a lazy module
        if "pytest-of-" in file:
            del sys.modules[name]


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = os.environ.get("DL_LAB_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: DL_LAB_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the documentation site, built strictly: any warning fails. All workers share one build."""
    from filelock import FileLock

    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    target = shared / "site"
    with FileLock(shared / "site.lock"):
        if not (target / "built").exists():
            done = subprocess.run(
                [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(target)],
                cwd=ROOT,
                env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            (target / "built").touch()
    return target


@pytest.fixture
def make_sweep(tmp_path):
    """Write a finished sweep of lr x seed as dl-lab leaves it, without training; returns its folder.

    values: (lr, seed) -> the run's val/accuracy (test is 0.01 below), or a state like "failed", or None: not started.
    experiments: each of them has all jobs; "" for none.
    """
    import yaml

    from dl_lab.runs.board import NoBoard
    from dl_lab.runs.recorder import Run

    def make(
        values: dict[tuple[float, int], float | str | None],
        reference: dict | None = None,
        experiments: tuple[str, ...] = ("",),
    ) -> Path:
        folder = tmp_path / "outputs" / "sweeps" / "2026-01-02" / "10-00-00_abcd1234"
        folder.mkdir(parents=True)
        jobs = []
        grid = [(experiment, *job) for experiment in experiments for job in values.items()]
        for number, (experiment, (lr, seed), value) in enumerate(grid):
            words, name = [f"optimizer.lr={lr}", f"seed={seed}"], f"{number}_{number:08x}"
            jobs.append({"number": number, "id": f"{number:08x}", "overrides": words, "data": ""})
            if value is None:
                continue
            trainer = {"max_epochs": 2, "seed": seed, "monitor": "val/accuracy", "mode": "max"}
            config = {"seed": seed, "optimizer": {"lr": lr}, "trainer": trainer, "reference": reference or {}}
            texts = {
                "config.yaml": yaml.safe_dump(config),
                ".hydra/overrides.yaml": "".join(f"- {word}\n" for word in ["model=mlp", *words]),
            }
            choices = {"dataset": "digits", "model": "mlp"} | ({"experiment": experiment} if experiment else {})
            run = Run.create(folder / name, texts, config, NoBoard(), {"choices": choices, "command": "dl-lab -m x=1"})
            run.set_status("running", pid=os.getpid(), host=os.uname().nodename, started="2026-01-02T10:00:00+00:00")
            if isinstance(value, str):
                run.set_status(value, ended="2026-01-02T10:00:09+00:00")
                continue
            for epoch in (1, 2):
                run.log({"train/loss": 1 / epoch, "val/accuracy": value - 0.2 + 0.1 * epoch}, 10 * epoch, epoch)
            metrics = {"train/loss": 0.5, "val/accuracy": value, "test/accuracy": value - 0.01}
            dataset = {"name": "digits", "label": "full", "note": "", "fingerprint": "f", "sizes": {"train": 9}}
            counts = {"parameters": 1650, "trainable": 650}
            run.finish(metrics, epochs=2, epoch=2, test_looks=1, dataset=dataset, **counts)
            run.set_status("done", ended=f"2026-01-02T10:00:0{9 - seed % 3}+00:00")
        plan = {"key": "abcd1234", "command": "dl-lab -m optimizer.lr=...", "code": "c", "fixed": ["model=mlp"]}
        (folder / "sweep.yaml").write_text(yaml.safe_dump({**plan, "written": "2026-01-02", "notes": [], "jobs": jobs}))
        return folder

    return make
