"""What an experiment may run: training in its forms, and analyses without training."""
