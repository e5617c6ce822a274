"""Runs: training, evaluation, comparison and adaptation, and the files that they leave."""
