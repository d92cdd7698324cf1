"""Run the jobs of a sweep on this machine, through SLURM, or through Ray."""
