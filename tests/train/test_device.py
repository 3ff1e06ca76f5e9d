import torch

from subfour.train.device import choose_device


def test_devices():
    """The one there is, by name or by itself."""
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_float32_is_float32_on_gpus():
    """TF32, torch's choice for convolutions, has ten bits of mantissa."""
    torch.backends.cudnn.allow_tf32 = True
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
