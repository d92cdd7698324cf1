"""Code that the image data sets share."""
