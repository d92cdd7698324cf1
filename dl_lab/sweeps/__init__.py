"""Plan, check and run sweeps: many jobs that differ in a few values."""
