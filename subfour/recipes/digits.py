"""The demo: handwritten digits that ship with scikit-learn, a small MobileNet-v3, minutes on a laptop."""

from subfour.profit.config import AverageConfig, LoadingConfig, ProfitConfig, RunConfig, ScheduleConfig


def digits() -> RunConfig:
    """Return the whole recipe in small: 23 phases on 1,442 images."""
    return RunConfig(
        recipe="digits",
        model="subfour/tiny_mobilenet_v3",
        weights="none",
        data="digits",
        snap=True,
        loading=LoadingConfig(image_size=32, augment="crop"),
        schedule=ScheduleConfig(
            batch_size=64,
            float_epochs=20,
            finetune_epochs=3,
            stabilize_epochs=1,
            sample_epochs=2,
            float_lr=0.1,
            lr=0.04,
            range_lr_scale=0.1,
            warmup_epochs=1,
            weight_decay=1e-4,
            update="step",
        ),
        profit=ProfitConfig(sample_stride=2),
        average=AverageConfig(decay=None, reestimate_batches=20),
    )
