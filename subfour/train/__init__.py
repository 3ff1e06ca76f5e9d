"""Training that knows nothing of quantization: schedule, loop, teacher, averaged weights, checkpoints."""
