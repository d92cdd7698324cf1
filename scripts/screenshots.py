"""Make every screenshot of the docs: terminal, TensorBoard, report and site, in Chromium. Writes docs/figures/*.png.

    python scripts/screenshots.py                 # all of them
    python scripts/screenshots.py report site     # only these parts

A sweep and a run on scikit-learn's digits are made in a temporary folder first. Needs Chromium and
`pip install 'dl-lab[dev,screenshots]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import os
import pty
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dl_lab.commands.tensorboard import link_with_names

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWEEP = ("-m", "optimizer.lr=0.01,0.003,0.001", "seed=0,1,2", "trainer.max_epochs=10", "threads=1", "lanes=2")
RUN = ("optimizer.lr=0.003", "trainer.max_epochs=12", "threads=1")
A4_WIDTH, A4_HEIGHT = 794, 1123  # of a page in CSS pixels
PARTS = ("terminal", "tensorboard", "report", "site")


# -- terminal -----------------------------------------------------------------------------------------------------


def in_terminal(words: Sequence[str], folder: Path, columns: int = 92, rows: int = 60) -> list[list[tuple[str, str]]]:
    """Run dl-lab on a terminal of that size. Return the last screen: for each line its pieces with their CSS."""
    import pyte

    screen = pyte.HistoryScreen(columns, rows, history=1000)
    stream = pyte.ByteStream(screen)
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": str(rows), "TERM": "xterm-256color"}
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(sys.executable, [sys.executable, "-m", "dl_lab", *words], environment)
    with contextlib.suppress(OSError):  # the terminal is gone when the process ends
        while chunk := os.read(terminal, 65536):
            stream.feed(chunk)
    os.waitpid(process, 0)
    lines = []
    for y in range(rows):
        pieces: list[tuple[str, str]] = []
        for x in range(columns):
            cell = screen.buffer[y][x]
            style = _css(cell)
            if pieces and pieces[-1][1] == style:
                pieces[-1] = (pieces[-1][0] + cell.data, style)
            else:
                pieces.append((cell.data, style))
        lines.append(pieces)
    while lines and not "".join(text for text, _ in lines[-1]).strip():
        lines.pop()
    return lines


COLOURS = {"red": "#ff7b72", "green": "#7ee787", "yellow": "#f2cc60", "brown": "#f2cc60", "blue": "#79c0ff"}
COLOURS |= {"magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#f0f6fc", "black": "#484f58", "brightblack": "#8b949e"}


def _css(cell: object) -> str:
    colour = str(getattr(cell, "fg", "default"))
    shown = COLOURS.get(colour, f"#{colour}" if len(colour) == 6 and colour != "default" else "inherit")
    weight = "bold" if getattr(cell, "bold", False) else "normal"
    return f"color:{shown};font-weight:{weight}"


def terminal_page(command: str, lines: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A page that looks like a terminal window."""
    shown = [f"<b>$ {html.escape(command)}</b>"]
    for pieces in lines:
        shown.append("".join(f"<span style='{css}'>{html.escape(text)}</span>" for text, css in pieces))
    body = "\n".join(shown)
    return (
        "<body style='margin:0;background:#0d1117'><pre style='margin:0;padding:18px 22px;color:#e6edf3;"
        f"font:15px/1.35 DejaVu Sans Mono,monospace;display:inline-block'>{body}</pre></body>"
    )


def terminal(browser: Browser, folder: Path) -> None:
    """A sweep from its plan to its end, its comparison, and a run."""
    for name, words in (("terminal_sweep", SWEEP), ("terminal_compare", ("compare", "last")), ("terminal_run", RUN)):
        lines = in_terminal(words, folder)
        page = browser.new_page(viewport={"width": 900, "height": 600})
        page.set_content(terminal_page(" ".join(["dl-lab", *words]), lines))
        box = page.locator("pre").bounding_box() or {"width": 900, "height": 600}
        page.set_viewport_size({"width": round(box["width"]), "height": round(box["height"])})
        save(page, name)


# -- TensorBoard --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard of a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/data/runs") as answer:
                if len(answer.read()) > 10:
                    break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def tensorboard(browser: Browser, folder: Path) -> None:
    """Scalars and HParams of the sweep; the picture of the README."""
    with serving(link_with_names(sweep_folder(folder), folder / "outputs")) as address:
        for name, tab in (("tensorboard_scalars", "timeseries"), ("tensorboard_hparams", "hparams")):
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.goto(f"{address}/#{tab}")
            page.wait_for_timeout(6000)
            save(page, name)
    run, board = (Image.open(FIGURES / f"{name}.png") for name in ("terminal_run", "tensorboard_scalars"))
    height = 620
    parts = [
        picture.convert("RGB").resize((picture.width * height // picture.height, height)) for picture in (run, board)
    ]
    joined = Image.new("RGB", (sum(part.width for part in parts) + 12, height), "white")
    joined.paste(parts[0], (0, 0))
    joined.paste(parts[1], (parts[0].width + 12, 0))
    compress(joined, FIGURES / "terminal_and_tensorboard.png")


# -- report and site ----------------------------------------------------------------------------------------------


def report(browser: Browser, folder: Path) -> None:
    """The sweep's report: desktop in light and dark, a phone, and the first printed page."""
    dl_lab(folder, "report", str(sweep_folder(folder).relative_to(folder)))
    address = (sweep_folder(folder) / "report.html").as_uri()
    for name, width, height, is_dark in (
        ("report_light", 1280, 1400, False),
        ("report_dark", 1280, 900, True),
        ("report_phone", 390, 844, False),
    ):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if is_dark else "light"
        )
        page = context.new_page()
        page.goto(address)
        save(page, name)
    page = browser.new_page(viewport={"width": A4_WIDTH, "height": A4_HEIGHT})
    page.goto(address)
    page.emulate_media(media="print")
    save(page, "report_print")


def site(browser: Browser, folder: Path) -> None:
    """The documentation site: desktop in light and dark, and a phone."""
    target = folder / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    for name, path, width, height, is_dark in (
        ("site_light", "index.html", 1280, 800, False),
        ("site_dark", "reference/configs/optimizer.html", 1280, 800, True),
        ("site_phone", "concepts.html", 390, 844, False),
    ):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if is_dark else "light"
        )
        page = context.new_page()
        page.goto((target / path).as_uri())
        page.wait_for_timeout(500)
        save(page, name)


# -- what the parts share -----------------------------------------------------------------------------------------


def dl_lab(folder: Path, *words: str) -> None:
    """Run dl-lab in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "dl_lab", *words], cwd=folder, env=environment, check=True, capture_output=True
    )


def sweep_folder(folder: Path) -> Path:
    """Return the folder of the sweep."""
    return next((folder / "outputs" / "sweeps").glob("*/*"))


def save(page: Page, name: str) -> None:
    """Take the picture and close the page."""
    path = FIGURES / f"{name}.png"
    page.screenshot(path=path)
    page.close()
    compress(Image.open(path), path)


def compress(picture: Image.Image, path: Path) -> None:
    """Write a picture with at most 128 colours, which a page of text never needs more of."""
    picture.convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Make the pictures of the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} (all)")
    chosen = parser.parse_args().parts or PARTS
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        if {"tensorboard", "report"} & set(chosen) and "terminal" not in chosen:
            dl_lab(folder, *SWEEP)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for part in chosen:
            globals()[part](browser, folder)
        browser.close()


if __name__ == "__main__":
    main()
