"""The doctor: it reads the records of a run and says in words why the net does not learn."""
