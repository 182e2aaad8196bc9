"""Everything that needs PyTorch: the AllMem model, conversion, training, export and verification."""
