"""The only room that sees all others: builds an experiment, trains it, evaluates it, keeps its checkpoints."""
