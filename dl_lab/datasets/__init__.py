"""The data sets, and the code that they share: files, downloads, the cache, splits and batches."""
