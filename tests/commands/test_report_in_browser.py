"""The report in a real browser: desktop and phone width, light and dark, accessibility, print. Skipped without one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: no such program here")
GRID = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25, 0.75) for seed in (0, 1, 2)}
REFERENCE = {"test/accuracy": {"value": 0.7, "source": "a book"}}

# Opens the page in frames of three widths and writes what it finds into the harness itself.
HARNESS = """<!doctype html><body><pre id="found"></pre><script>
const source = SOURCE;
const luminance = (c) => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 :
  Math.pow((v + 0.055) / 1.055, 2.4); }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (node) => { for (; node; node = node.parentElement) {
  const colour = rgb(getComputedStyle(node).backgroundColor);
  if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3); } return [255, 255, 255]; };
const ink = (node) => rgb(getComputedStyle(node)[node.closest('svg') ? 'fill' : 'color']).slice(0, 3);
const contrast = (node) => { const [a, b] = [ink(node), behind(node)].map(luminance).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05); };
const look = (frame) => { const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll('details').forEach(d => d.open = true);
  const texts = [...page.querySelectorAll('h1,h2,p,li,th,td,caption,summary,pre,figcaption,span,text')];
  return { wide: root.scrollWidth - root.clientWidth, h1: page.querySelectorAll('h1').length,
    least: Math.min(...texts.filter(t => t.textContent.trim()).map(contrast)), texts: texts.length,
    dark: luminance(rgb(getComputedStyle(page.body).backgroundColor)) < 0.2, lang: root.lang, title: page.title,
    unnamed: [...page.querySelectorAll('svg[role=img], [role=region]')]
      .filter(n => !n.getAttribute('aria-label')).length,
    cut: [...page.querySelectorAll('svg[role=img] text')].filter(t => { const b = t.getBBox();
      const v = t.ownerSVGElement.viewBox.baseVal;
      return b.x < -1 || b.x + b.width > v.width + 1 || b.y < -8; }).length,
    scrolled: [...page.querySelectorAll('.scroll')]
      .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth + 1).length,
    order: [...page.querySelectorAll('h1,h2,h3')].map(n => n.tagName).join(' ') }; };
let left = 3; const found = {};
for (const width of [390, 768, 1280]) { const frame = document.createElement('iframe');
  frame.style.cssText = `width:${width}px;height:900px;border:0`; frame.srcdoc = source;
  frame.onload = () => { found[width] = look(frame); if (--left === 0)
    document.getElementById('found').textContent = JSON.stringify(found); };
  document.body.append(frame); }
</script></body>"""


def browse(tmp_path, *arguments: str) -> str:
    profile = tmp_path / "profile"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=5000"]
    done = subprocess.run([BROWSER, *flags, *arguments], capture_output=True, text=True, timeout=90, check=True)
    return done.stdout


@pytest.fixture
def page(command, make_sweep):
    folder = make_sweep(GRID, REFERENCE)
    assert command("report", "last", "--baseline", "lr=0.5")[0] == 0
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_contrast_and_names(page, tmp_path, scheme):
    source = json.dumps(page.read_text()).replace("</", "<\\/")
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.replace("SOURCE", source, 1))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    dom = browse(tmp_path, *dark, "--dump-dom", f"file://{harness}")
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1]))
    assert set(found) == {"390", "768", "1280"}
    for width, seen in found.items():
        assert seen["dark"] == (scheme == "dark")
        assert seen["wide"] <= 0, f"the page is wider than {width} px"
        assert seen["least"] >= 4.5, f"contrast {seen['least']:.2f} (WCAG AA asks for 4.5)"
        assert seen["texts"] > 50
        assert (seen["h1"], seen["lang"], seen["unnamed"], seen["cut"]) == (1, "en", 0, 0)
        assert seen["order"].startswith("H1 H2")
        assert seen["title"] == "mlp on digits: which lr is best?"
        assert seen["scrolled"] == 0, f"a table is cut at {width} px"


def test_the_report_prints_on_a_few_pages(page, tmp_path):
    target = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={target}", "--no-pdf-header-footer", f"file://{page}")
    printed = target.read_bytes()
    assert printed.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 4
