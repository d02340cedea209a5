"""Spillover: does a narrow finetune spill over into broad misalignment?"""

__version__ = "0.1.0"
