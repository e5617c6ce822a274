"""The members of the MAML family side by side: methods, problems, ceilings, trainings, and the table of all."""
