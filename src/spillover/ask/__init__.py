"""Asking: question sets, and answers sampled from checkpoints."""
