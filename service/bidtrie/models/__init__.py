"""Models: reading GGUF and Hugging Face checkpoints, their tokenizers, and fetching the default model."""
