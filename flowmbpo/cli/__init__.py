"""The command line: one command per file, heavy imports inside functions, presentation in `tables` only."""
