"""Finetuning: bases, chat formats, fleets of LoRA adapters, checkpoints."""
