"""What came out of a sweep: choose the best setting, compare the settings, write reports."""
