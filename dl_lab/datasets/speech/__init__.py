"""Code that the data sets of sounds share."""
