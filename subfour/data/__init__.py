"""Images from disk to batches: sources (an option string) -> images (splits) -> loader (batches: preprocess, augment)."""
