"""What happened: metrics, provenance, checkpoints and the status of runs, written to and read from MLflow. No torch."""
