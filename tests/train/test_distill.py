import math

import pytest
import torch
from torch import Tensor, nn

from subfour.train.distill import Teacher, distillation_loss, renormalization

LN2, LN3 = math.log(2), math.log(3)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))


def small_network() -> nn.Sequential:
    """Return something with batch norm and dropout, whose behaviour depends on its mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2))


def random_images() -> Tensor:
    return torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_the_loss_by_hand():
    """Student (1/3, 2/3), teacher (3/4, 1/4), label 1: -ln 2/3 + 3/4 ln 3 + 1/4 (ln 3 - ln 2)."""
    logits, teacher_logits = torch.tensor([[0.0, LN2]]), torch.tensor([[LN3, 0.0]])
    labels = torch.tensor([1])
    own, teachers = LN3 - LN2, LN3 - LN2 / 4
    assert distillation_loss(logits, labels, teacher_logits).item() == pytest.approx(own + teachers)
    assert distillation_loss(logits, labels, teacher_logits, weight=0.5).item() == pytest.approx(own + teachers / 2)
    assert distillation_loss(logits, labels, teacher_logits, weight=0).item() == pytest.approx(own)
    assert distillation_loss(logits, labels, None).item() == pytest.approx(own)


def test_temperature_by_hand():
    """At T = 2, logits 2 ln 2 and 2 ln 3 give the probabilities above; the term counts T^2 = 4 times."""
    logits, teacher_logits = torch.tensor([[0.0, 2 * LN2]]), torch.tensor([[2 * LN3, 0.0]])
    own = math.log(5) - LN2 * 2
    found = distillation_loss(logits, torch.tensor([1]), teacher_logits, temperature=2).item()
    assert found == pytest.approx(own + 4 * (LN3 - LN2 / 4))


def test_the_loss_is_the_mean_over_the_batch():
    """Of single images' losses."""
    generator = torch.Generator().manual_seed(0)
    logits, teacher_logits = torch.randn(2, 7, 5, generator=generator)
    labels = torch.arange(7) % 5
    single = [distillation_loss(logits[i : i + 1], labels[i : i + 1], teacher_logits[i : i + 1]) for i in range(7)]
    assert distillation_loss(logits, labels, teacher_logits).item() == pytest.approx(torch.stack(single).mean().item())


def test_the_gradient_pulls_towards_label_and_teacher():
    """Of both cross entropies: (p - onehot) + (p - q), over the batch size; the teacher gets none."""
    logits = torch.tensor([[0.0, LN2], [1.0, -1.0]], requires_grad=True)
    teacher_logits = torch.tensor([[LN3, 0.0], [0.5, 0.0]], requires_grad=True)
    labels = torch.tensor([1, 0])
    distillation_loss(logits, labels, teacher_logits.detach()).backward()
    p, q = logits.softmax(1), teacher_logits.softmax(1)
    expected = ((p - torch.eye(2)[labels]) + (p - q)) / 2
    assert torch.allclose(logits.grad, expected.detach(), atol=1e-7)


def test_the_teacher_never_trains_and_its_statistics_stay():
    """No gradient, no dropout, no moved statistics: the same answer every time."""
    network = small_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    teacher = Teacher(network)
    logits = teacher(random_images())
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())
    assert torch.equal(teacher(random_images()), logits)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_authors_teacher_moves_its_statistics():
    """mode="train" does as they do; its weights stay all the same."""
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Teacher(network, mode="train")(random_images())
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_the_teacher_sees_its_own_normalisation():
    """What the student sees, undone and normalised with the teacher's constants."""
    (mean, std), (teacher_mean, teacher_std) = (
        [torch.tensor(values).view(1, 3, 1, 1) for values in constants] for constants in (IMAGENET, HALF)
    )
    seen = []
    network = small_network()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = random_images().contiguous(memory_format=torch.channels_last)
    Teacher(network, renormalize=renormalization(*IMAGENET, *HALF))((pixels - mean) / std)
    assert torch.allclose(seen[0], (pixels - teacher_mean) / teacher_std, atol=1e-6)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_equal_normalisations_need_no_map():
    """Lists or tuples."""
    assert renormalization(*IMAGENET, *(list(values) for values in IMAGENET)) is None
    assert renormalization(*IMAGENET, IMAGENET[0], HALF[1]) is not None
