"""What is shown of runs: tables, statistics, verdicts, plots."""
