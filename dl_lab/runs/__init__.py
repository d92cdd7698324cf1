"""The run folder: its recorder, its files, and how runs are found and read."""
