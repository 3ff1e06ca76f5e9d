"""Networks that nobody trained: for speed, size and form, which do not depend on the weights."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subfour.convert.calibrate import calibrate_for
from subfour.convert.rewrite import convert
from subfour.data.preprocess import Preprocessing, normalize
from subfour.models.zoo import STOCK, Architecture, build_model
from subfour.seeding import derive_seed

CALIBRATION_IMAGES = 4


@torch.no_grad()
def untrained_network(
    name: str,
    preprocessing: Preprocessing,
    *,
    classes: int = 1000,
    architecture: Architecture = STOCK,
    weight_bits: int = 4,
    activation_bits: int = 4,
) -> nn.Module:
    """Return a network with random weights, converted and calibrated on random pixels, in evaluation mode.

    Batch norms take their statistics from the same pixels, so that values stay near 1 all the way.

    Args:
        name: as `build_model` takes it.
        preprocessing: of its images.
        classes: size of the head.
        architecture: changes to the network.
        weight_bits: width of the weights.
        activation_bits: width of the activations.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("untrained", name))
        model = build_model(name, num_classes=classes, architecture=architecture).model
        images = normalize(random_pixels(CALIBRATION_IMAGES, preprocessing.image_size), preprocessing)
        momenta = {norm: norm.momentum for norm in model.modules() if isinstance(norm, _BatchNorm)}
        for norm in momenta:
            norm.momentum = 1.0
        model.train()(images)
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    convert(model.eval(), quantizer="duq", padding="negative", mean=preprocessing.mean, std=preprocessing.std)
    calibrate_for(model, weight_bits, activation_bits, [(images, torch.zeros(len(images)))])
    return model.eval()


def random_pixels(count: int, size: int) -> Tensor:
    """Return uint8 pixels [N, 3, size, size], the same ones every time."""
    generator = torch.Generator().manual_seed(derive_seed("pixels", size))
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
