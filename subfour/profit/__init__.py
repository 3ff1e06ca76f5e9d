"""PROFIT itself: the only place where quantization and training meet."""
