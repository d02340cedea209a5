"""What is in a dataset, before anyone pays for training on it."""
