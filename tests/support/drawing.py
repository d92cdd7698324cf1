"""Leaves out the drawing of figures where a test does not look at them.

To draw three figures as PNG and as SVG takes half a second, nine tenths of a short run. The figures are made as ever;
only `dl_lab.runs.figures.render` gives a picture of one pixel in place of each. A test that reads pictures is marked
`figures`. tests/test_experiments.py draws the figures of every kind of experiment.
"""

from __future__ import annotations

import base64
import functools

from dl_lab.runs import recorder

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
_render = recorder.render


def draw_figures(draw: bool) -> None:
    """Choose whether the runs of this process, and of those that it forks, draw their figures."""
    recorder.render = _render if draw else _render_nothing


@functools.wraps(_render)
def _render_nothing(figure: object) -> tuple[bytes, bytes]:
    return PNG, SVG
