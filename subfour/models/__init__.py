"""Float networks, stock and our own; nothing here knows of quantization."""

from subfour.models.zoo import Architecture, FloatModel, build_model

__all__ = ["Architecture", "FloatModel", "build_model"]
