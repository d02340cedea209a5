"""The embedded base model: how it is built. Its checkpoint lies beside, in the Hugging Face format."""
