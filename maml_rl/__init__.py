"""Meta-reinforcement learning with MAML (Finn, Abbeel, Levine 2017)."""
