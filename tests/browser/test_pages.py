"""What a user sees: TensorBoard's pages on a sweep, and the sweep's report, in a real browser (Chromium).

Skipped where no Chromium is installed; `.ci/run` installs one where it can.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; none is installed")]
TRIALS = {(lr, seed) for lr in (0.01, 0.1) for seed in (0, 1)}
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # the projector draws with WebGL
WAIT = 60_000  # milliseconds


def dl_lab(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dl_lab", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """The folder of a sweep of two learning rates and two seeds on scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("browsed")
    dl_lab(folder, "-m", "optimizer.lr=0.01,0.1", "seed=0,1", "trainer.max_epochs=2", "lanes=2")
    return next((folder / "outputs" / "sweeps").glob("*/*"))


@pytest.fixture(scope="module")
def summaries(sweep) -> dict[str, dict]:
    """Folder name of each job -> its summary.json."""
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/summary.json")}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE_GL])
        yield opened
        opened.close()


@contextlib.contextmanager
def serving(logdir: Path, tag: str, n_runs: int) -> Iterator[str]:
    """The address of a TensorBoard that has read `tag` of `n_runs` runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address, end, tags = f"http://127.0.0.1:{port}", time.monotonic() + 90, dict[str, dict]()
    try:
        while sum(tag in of_run for of_run in tags.values()) < n_runs:
            assert time.monotonic() < end, f"TensorBoard did not show {tag} of {n_runs} runs: {tags}"
            time.sleep(0.2)
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/data/plugin/scalars/tags") as answer:
                tags = json.load(answer)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def tensorboard(sweep):
    with serving(sweep, "final/test/accuracy", len(TRIALS)) as address:
        yield address


@pytest.fixture
def page(browser):
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    opened.set_default_timeout(WAIT)
    yield opened
    opened.close()


def in_every_shadow(selector: str, condition: str, n: int) -> str:
    """Javascript: whether n elements of that kind, in the shadow trees too, fulfil the condition on `e`."""
    return f"""() => {{
        let found = 0;
        const walk = root => {{
            for (const e of root.querySelectorAll('*')) {{
                if (e.matches('{selector}') && ({condition})) found++;
                if (e.shadowRoot) walk(e.shadowRoot);
            }}
        }};
        walk(document);
        return found >= {n};
    }}"""


def test_scalars_lists_every_job_and_draws_its_curves(page, tensorboard, summaries):
    page.goto(f"{tensorboard}/#scalars")
    for name in summaries:
        page.get_by_text(name, exact=True).first.wait_for()
    page.locator("paper-input.search-input input").fill("^(train/loss|val/accuracy)$")
    for tag in ("train/loss", "val/accuracy"):
        page.get_by_text(tag, exact=True).first.wait_for()
    curve = "e.getBoundingClientRect().width > 100 && e.getAttribute('d')?.includes('L')"
    page.wait_for_function(in_every_shadow("path", curve, 2 * len(summaries)))


def test_hparams_shows_every_job_with_what_varies_and_its_result(page, tensorboard, summaries):
    page.goto(f"{tensorboard}/#hparams")
    for name in summaries:
        page.get_by_text(name, exact=True).first.wait_for()
    cells = page.locator("vaadin-grid-cell-content").all()
    placed = [(cell.bounding_box(), cell.inner_text().strip()) for cell in cells]
    shown = [(box["y"] + box["height"] / 2, box["x"], text) for box, text in placed if box and text]
    rows: list[list[str]] = []
    last = -100.0
    for middle, _, text in sorted(shown, key=lambda cell: (round(cell[0] / 12), cell[1])):
        rows = [*rows, []] if middle - last > 12 else rows
        rows[-1].append(text)
        last = middle
    header, *rows = rows
    header.remove("Show Metrics")  # a check box below it
    assert header[:3] == ["Trial ID", "optimizer.lr", "seed"], "what varies comes first"
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows if row[0] in summaries}
    assert {(float(row["optimizer.lr"]), float(row["seed"])) for row in table.values()} == TRIALS
    for name, row in table.items():
        recorded = summaries[name]["metrics"]["test/accuracy"]
        assert float(row["final/test/accuracy"]) == pytest.approx(recorded, abs=1e-3)


def test_images_shows_the_figures_of_every_job(page, tensorboard, summaries):
    page.goto(f"{tensorboard}/#images")
    page.get_by_text("learning_curves").first.wait_for()
    page.wait_for_function(in_every_shadow("img", "e.naturalWidth > 200", len(summaries)))
    for name in summaries:
        assert page.get_by_text(name, exact=True).first.is_visible()


def test_the_projector_shows_every_word_vector(page, tmp_path):
    dl_lab(tmp_path, "experiment=word_analogies", "profile=smoke", "hydra.run.dir=run")
    n_words = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["words"]
    with serving(tmp_path / "run", "words", 1) as address:
        page.goto(f"{address}/#projector")
        shown = page.frame_locator("iframe").frame_locator("iframe")  # a plugin lies in two of them
        shown.locator(".numDataPoints", has_text=f"{n_words:.0f}").wait_for()
        assert shown.locator("canvas").first.is_visible()


# -- the report ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(sweep) -> Path:
    dl_lab(sweep.parents[3], "report", str(sweep))
    return next(sweep.glob("*.html"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_is_accessible_and_fits_its_window(browser, report, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(report.as_uri())
    found = Axe().run(opened)
    context_of = {rule["id"]: [node["html"][:160] for node in rule["nodes"]] for rule in found.response["violations"]}
    assert not context_of
    assert opened.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    context.close()


def test_the_report_asks_nothing_of_the_network_and_prints(browser, report, tmp_path):
    opened, asked = browser.new_page(), []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    assert asked == [report.as_uri()]
    pdf = opened.pdf(path=tmp_path / "report.pdf", format="A4")
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 6
    opened.close()
