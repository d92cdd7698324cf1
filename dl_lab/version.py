"""The version of dl-lab."""

__version__ = "0.2.0"
