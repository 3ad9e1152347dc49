"""What a run leaves on disk: every file name, how files are written and locked, the journal, checkpoints, episodes."""
