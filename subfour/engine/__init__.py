"""Faster ways to compute the training step of a converted network; the modules and their parameters stay the same."""
