"""ImageNet with the paper's schedule: 22 phases, 200 epochs, batch 256, ResNet-101 teacher, pretrained weights.

Source: PROFIT, arXiv:2008.04693; the authors' train_ts.py, and their README's command for v2. These
recipes are promises: no finding of ours changes them.
"""

from subfour.profit.config import AverageConfig, ProfitConfig, RunConfig, ScheduleConfig


def _imagenet(recipe: str, model: str, schedule: ScheduleConfig) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        model=model,
        weights="pretrained",
        data="folder:imagenet",
        teacher="torchvision/resnet101",
        schedule=schedule,
        profit=ProfitConfig(corrected=False),
        average=AverageConfig(decay=0.9997, restart=False, reestimate_batches=0),
    )


def imagenet_mobilenet_v1() -> RunConfig:
    """Return MobileNet-v1 (timm has pretrained weights of it), with the defaults of the authors' script."""
    return _imagenet("imagenet-mobilenet-v1", "timm/mobilenetv1_100", ScheduleConfig(lr=0.04, weight_decay=2e-5))


def imagenet_mobilenet_v2() -> RunConfig:
    """Return MobileNet-v2, with the authors' README command."""
    return _imagenet("imagenet-mobilenet-v2", "torchvision/mobilenet_v2", ScheduleConfig(lr=0.005, weight_decay=4e-5))


def imagenet_mobilenet_v3_large() -> RunConfig:
    """Return MobileNet-v3-large; its float phase also adapts the weights to negative padding."""
    return _imagenet("imagenet-mobilenet-v3-large", "torchvision/mobilenet_v3_large", ScheduleConfig(lr=0.04, weight_decay=2e-5))
