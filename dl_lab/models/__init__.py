"""Models: one file for each architecture, in plain torch."""
