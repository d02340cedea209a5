"""Datasets: chat files read and checked, the narrow datasets of the miniature's world, and static analysis of code."""
