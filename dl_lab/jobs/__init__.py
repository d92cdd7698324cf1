"""Run one execution of an experiment, in one process or in several."""
