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
pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # one sweep, one TensorBoard and one browser for all of them
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; none is installed"),
]
TRIALS = {(lr, seed) for lr in (0.01, 0.1) for seed in (0, 1)}
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # the projector draws with WebGL
NO_GL = ("--disable-gpu", "--disable-3d-apis")  # everything else: drawing in software GL takes much of a page's time
WAIT = 120_000  # milliseconds: a busy machine may need many seconds for a page


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
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="module")
def browser(chromium):
    opened = chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *NO_GL])
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
    with serving(sweep, "summary/test/accuracy", len(TRIALS)) as address:
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


MANY = 300  # elements: more than the empty frame of TensorBoard has
NEXT_FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"  # laid out anew


@pytest.mark.parametrize("tab", ["timeseries", "scalars", "hparams", "images"])
def test_no_page_of_tensorboard_is_cut(page, named_tensorboard, tab):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{named_tensorboard}/#{tab}")
    page.wait_for_function(in_every_shadow("*", "true", MANY))
    for width in (1280, 768):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(NEXT_FRAME)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


FIRST = """() => {
    const groups = [...document.querySelectorAll('.group-title')].map(e => e.innerText.trim());
    const cards = [...document.querySelectorAll('card-view')].map(e => e.innerText.replace(/\\s+/g, ''));
    return groups.filter(group => group != 'Pinned')[0] == 'accuracy' && cards.length > 1
        && cards[0].includes('accuracy/train') && cards[1].includes('accuracy/val')
        && document.body.innerText.includes('lr=0.01 seed=1');
}"""


def test_time_series_begins_with_accuracy_of_training_beside_validation(page, named_tensorboard):
    page.goto(f"{named_tensorboard}/#timeseries")
    page.wait_for_function(FIRST)


def test_scalars_lists_every_job_and_draws_its_curves(page, tensorboard, summaries):
    page.goto(f"{tensorboard}/#scalars")
    for name in summaries:
        page.get_by_text(name, exact=True).first.wait_for()
    page.locator("paper-input.search-input input").fill("^(loss/train|accuracy/val)$")
    for tag in ("loss/train", "accuracy/val"):
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
        assert 0 <= float(row["accuracy/val"]) <= 1
        if summaries[name]["best_epoch"] == summaries[name]["epochs"]:
            recorded = summaries[name]["metrics"]["val/accuracy"]
            assert float(row["accuracy/val"]) == pytest.approx(recorded, abs=1e-3)


@pytest.fixture(scope="module")
def named_tensorboard(sweep):
    """What `dl-lab tensorboard SWEEP` serves."""
    from dl_lab.commands.tensorboard import link_with_names

    with serving(link_with_names(sweep, sweep.parents[2]), "summary/test/accuracy", len(TRIALS)) as address:
        yield address


def test_hparams_of_a_sweep_opens_with_what_varies_then_validation_then_test(page, named_tensorboard):
    page.goto(f"{named_tensorboard}/#hparams")
    trials = page.locator("vaadin-grid-cell-content")
    for lr, seed in TRIALS:
        trials.get_by_text(f"lr={lr} seed={seed}", exact=True).first.wait_for()
    cells = trials.all()
    placed = [(cell.bounding_box(), cell.inner_text().strip()) for cell in cells]
    shown = [(box["y"], box["x"], text) for box, text in placed if box and text]
    top = min(y for y, _, _ in shown)
    header = [text for _, text in sorted((x, text) for y, x, text in shown if y - top < 25 and text != "Show Metrics")]
    assert header[:5] == ["Trial ID", "optimizer.lr", "seed", "val/loss", "val/accuracy"]


def test_images_shows_the_figures_of_every_job(page, tensorboard, summaries):
    page.goto(f"{tensorboard}/#images")
    page.get_by_text("learning_curves").first.wait_for()
    page.wait_for_function(in_every_shadow("img", "e.naturalWidth > 200", len(summaries)))
    for name in summaries:
        assert page.get_by_text(name, exact=True).first.is_visible()


@pytest.fixture
def page_with_webgl(chromium):
    browser = chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE_GL])
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    opened.set_default_timeout(WAIT)
    yield opened
    browser.close()


def test_the_projector_shows_every_word_vector(page_with_webgl, tmp_path):
    page = page_with_webgl
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
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_the_report_is_accessible_and_fits_its_window(page, report, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    page.goto(report.as_uri())
    # The elements are the same at every width, and axe takes most of the time.
    if width == 390 or (width, scheme) == (1280, "light"):
        violations = Axe().run(page).response["violations"]
        assert not {rule["id"]: [node["html"][:160] for node in rule["nodes"]] for rule in violations}
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.evaluate(CUT) == [], "a table is cut"


# The boxes whose content is wider than they are.
CUT = """() => [...document.querySelectorAll('.scroll')]
    .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth + 1).map(box => box.ariaLabel)"""


def test_the_report_sorts_and_hides_columns(page, report):
    page.goto(report.as_uri())
    table = page.locator("table").first
    settings = table.locator("tbody tr td:first-child")
    table.get_by_role("button", name="setting").click()
    first = settings.first.inner_text()
    assert table.locator("th").first.get_attribute("aria-sort") == "ascending"
    table.get_by_role("button", name="setting").click()
    assert settings.first.inner_text() != first
    page.get_by_label("n", exact=True).first.uncheck()
    assert not table.locator("th").nth(1).is_visible()
    assert table.locator("th").nth(2).is_visible()


def test_the_report_shows_five_columns_and_others_on_request(page, report):
    page.goto(report.as_uri())
    titles = page.locator("table").first.locator("th")
    shown = [title.inner_text() for title in titles.all() if title.is_visible()]
    assert shown == ["setting", "n", "val/loss", "test/accuracy", "95 % interval of test/accuracy"]
    page.get_by_label("parameters", exact=True).check()
    page.get_by_label("time of a job").check()
    shown = [title.inner_text() for title in titles.all() if title.is_visible()]
    assert shown[5:] == ["parameters", "time of a job"]


def test_the_report_begins_with_title_facts_and_result_and_shows_the_runs_figures(page, report):
    page.goto(report.as_uri())
    headings = page.locator("h1, h2").all_inner_texts()
    assert headings[:2] == ["mlp on digits: which lr is best?", "Result"]
    assert page.locator("dl.facts").inner_text().startswith("Data")
    page.wait_for_function("[...document.images].length > 1 && [...document.images].every(i => i.naturalWidth > 200)")


# -- the documentation site ---------------------------------------------------------------------------------------


PAGES = ("index", "reference/configs/model", "results/text", "attention", "notebook", "defending", "setup")
LONG_PAGE = "reference/configs/model.html"  # axe needs many seconds for it; a short page has the same elements


@pytest.mark.parametrize("path", [f"{name}.html" for name in (*PAGES, "reference/configs/optimizer")])
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_a_page_of_the_site_is_accessible_fits_and_asks_nothing_of_the_network(page, site, path, width):
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / path).as_uri())
    assert all(url.startswith("file://") for url in asked)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    page.wait_for_function("document.readyState == 'complete'")
    # As above, axe runs where it may find something new.
    if path == "index.html" or (width == 390 and path != LONG_PAGE):
        violations = Axe().run(page).response["violations"]
        serious = [rule for rule in violations if rule["impact"] in ("serious", "critical")]
        assert not {rule["id"]: [node["html"][:160] for node in rule["nodes"]] for rule in serious}


def test_the_site_begins_with_its_name_a_sentence_and_a_picture(page, site):
    page.goto((site / "index.html").as_uri())
    article = page.locator("article")
    assert article.locator("h1").inner_text().startswith("dl-lab")
    assert article.locator("p").first.inner_text().startswith("One command trains deep-learning experiments")
    picture = article.locator("img").first
    assert picture.evaluate("image => image.naturalWidth") > 800
    tabs = page.locator("nav.md-tabs a").all_inner_texts()
    assert [tab.strip() for tab in tabs][:3] == ["Start", "Concepts", "How-to"]


A4_WIDTH = 680  # pixels between the page's margins: 180 mm

# Words that stand on two lines, outside of code; a break after a hyphen or a slash is none.
BROKEN = """() => {
    const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        if (node.parentElement.closest('pre, code, script, style, svg, button')) continue;
        for (const match of node.data.matchAll(/[^\\s\\/-]+/g)) {
            const range = document.createRange();
            range.setStart(node, match.index);
            range.setEnd(node, match.index + match[0].length);
            const lines = new Set([...range.getClientRects()].filter(r => r.width > 1).map(r => Math.round(r.top)));
            if (lines.size > 1) found.push(match[0]);
        }
    }
    return found;
}"""
BEYOND = """() => [...document.querySelectorAll('table, figure, img, svg, p, h1, h2, dl')]
    .filter(box => box.getBoundingClientRect().right > innerWidth + 1).map(box => box.outerHTML.slice(0, 80))"""


def test_the_report_prints_on_a4_without_broken_words_or_cut_columns(page, report):
    page.set_viewport_size({"width": A4_WIDTH, "height": 1123})
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate(BROKEN) == []
    assert page.evaluate(BEYOND) == []
    assert page.evaluate(CUT) == []
    page.set_viewport_size({"width": 60, "height": 1123})
    assert page.evaluate(BROKEN) != [], "the check finds broken words where there are some"


def test_the_report_asks_nothing_of_the_network_and_prints(page, report, tmp_path):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert asked == [report.as_uri()]
    pdf = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 6
