"""Code that the data sets of texts share."""
