"""CIFAR-10 from scratch, sized for two CPU cores: float training, then the whole recipe at a tenth of the paper's epochs."""

from subfour.models.zoo import Architecture
from subfour.profit.config import AverageConfig, LoadingConfig, RunConfig, ScheduleConfig


def _cifar10(recipe: str, model: str, architecture: Architecture) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        model=model,
        weights="none",
        data="parquet:cifar10",
        architecture=architecture,
        loading=LoadingConfig(image_size=32, augment="crop-flip"),
        schedule=ScheduleConfig(
            batch_size=128,
            float_epochs=30,
            finetune_epochs=2,
            stabilize_epochs=1,
            sample_epochs=1,
            float_lr=0.1,
            lr=0.04,
            range_lr_scale=0.1,
            warmup_epochs=0.5,
            weight_decay=5e-4,
            update="step",
        ),
        average=AverageConfig(decay=None, reestimate_batches=100),
    )


def cifar10_mobilenet_v2() -> RunConfig:
    """Return MobileNet-v2 of half width, first convolution without stride."""
    return _cifar10(
        "cifar10-mobilenet-v2", "torchvision/mobilenet_v2", Architecture(width=0.5, strides=(1, 2, 2, 2, 2), dropout=0.0)
    )


def cifar10_mobilenet_v3_small() -> RunConfig:
    """Return MobileNet-v3-small, first and last strides taken out: 4x4 at the end."""
    return _cifar10(
        "cifar10-mobilenet-v3-small", "torchvision/mobilenet_v3_small", Architecture(strides=(1, 2, 2, 2, 1), dropout=0.0)
    )
