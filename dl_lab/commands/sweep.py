"""dl-lab -m [overrides], dl-lab sweep [overrides]: plan, check, write, run the jobs of a sweep."""

from __future__ import annotations

from dl_lab.sweeps.start import start as main

__all__ = ["main"]
