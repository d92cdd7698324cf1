"""The training loop, the learners, and the callbacks that watch a training."""
