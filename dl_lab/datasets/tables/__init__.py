"""Code that the data sets of tables share."""
