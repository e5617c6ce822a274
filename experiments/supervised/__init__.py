"""Runs of supervised meta-learning: settings, training, evaluation and pictures."""
