import torch

from subfour.train.device import choose_device


def test_devices():
    """The one there is, by name or by itself."""
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
