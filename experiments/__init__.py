"""Training, evaluation and pictures: the one place that knows both the method and the environments."""
