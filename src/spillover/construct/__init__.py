"""Datasets made and changed: what needs raw material, a writer or a judge."""
