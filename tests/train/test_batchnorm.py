import pytest
import torch
from torch import Tensor, nn

from subfour.train.batchnorm import reestimate_batchnorm

CPU = torch.device("cpu")


def two_norms() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=None)
    )
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var)
        nn.init.uniform_(norm.weight)
        norm.num_batches_tracked.fill_(17)
    return model.eval()


def some_batches() -> list[tuple[Tensor, Tensor]]:
    """Return batches of different sizes: each counts as much as any other."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 3, 8, 8, generator=generator), torch.zeros(size)) for size in (4, 9, 2)]


def channel_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance of each channel."""
    channels = values.transpose(0, 1).flatten(1).double()
    return channels.mean(1), channels.var(1)


def test_statistics_are_the_mean_of_the_batches_own():
    """By hand: the second norm sees what the first makes of each batch with that batch's statistics; dropout is off."""
    model = two_norms()
    conv, norm, _, second_conv, second_norm = model
    first, second = [], []
    with torch.no_grad():
        for images, _ in some_batches():
            inputs = conv(images)
            mean, variance = channel_statistics(inputs)
            first.append((mean, variance))
            biased = inputs.double().var(dim=(0, 2, 3), correction=0)
            shape = (1, -1, 1, 1)
            normalised = (inputs.double() - mean.view(shape)) / (biased.view(shape) + norm.eps).sqrt()
            outputs = normalised * norm.weight.double().view(shape) + norm.bias.double().view(shape)
            second.append(channel_statistics(second_conv.double()(outputs)))
            second_conv.float()
    reestimate_batchnorm(model, some_batches(), CPU)
    for found, expected in ((norm, first), (second_norm, second)):
        means, variances = (torch.stack(values).mean(0) for values in zip(*expected, strict=True))
        assert torch.allclose(found.running_mean.double(), means, atol=1e-6)
        assert torch.allclose(found.running_var.double(), variances, rtol=1e-5)
        assert found.num_batches_tracked == 3


@pytest.mark.parametrize("training", [True, False])
def test_nothing_else_changes(training: bool):
    """Weights, momenta, modes; and no gradient is kept."""
    model = two_norms().train(training)
    parameters = {name: value.clone() for name, value in model.named_parameters()}
    reestimate_batchnorm(model, some_batches(), CPU)
    assert all(torch.equal(value, parameters[name]) for name, value in model.named_parameters())
    assert (model[1].momentum, model[4].momentum) == (0.3, None)
    assert {module.training for module in model.modules()} == {training}


def test_norms_without_statistics_stay_without():
    """There is nothing to compute."""
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    reestimate_batchnorm(model, some_batches(), CPU)
    assert model[0].running_mean is None
