"""Code that the data sets of time series share."""
