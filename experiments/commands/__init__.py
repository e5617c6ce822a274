"""The commands of `maml-rl`."""
