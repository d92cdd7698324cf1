"""Tasks: what a training optimises and what it measures."""
