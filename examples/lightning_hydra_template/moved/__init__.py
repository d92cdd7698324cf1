"""The net and the data of the moved project."""
