"""Everything that needs PyTorch: the AllMem model, conversion from Qwen3, training, export and verification."""
