"""What is run: the typed, frozen description of an experiment and the registry that holds them. No torch, no MLflow."""
