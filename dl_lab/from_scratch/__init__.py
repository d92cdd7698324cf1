"""Models in NumPy alone, with their formulas visible."""
