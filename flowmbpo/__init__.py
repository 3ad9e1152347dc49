"""flowmbpo: model-based reinforcement-learning experiments that can be trusted, repeated and compared."""

__version__ = "0.1.0"
