"""Supervised MAML, Algorithm 2 of Finn, Abbeel, Levine 2017: regression and few-shot classification."""
