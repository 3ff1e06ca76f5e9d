"""The device that a run computes on."""

import torch


def choose_device(name: str) -> torch.device:
    """Return a device by name; `auto` is cuda where there is one. With a GPU, float32 is float32 from then on, not TF32.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        return choose_device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    if name.startswith("mps"):
        raise ValueError(f"device: {name} has no float64, in which accuracy and AIWQ are computed; use auto or cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device: {name!r} is not possible; use auto, cpu or cuda")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} is not available here ({error}); use auto or cpu") from None
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # else convolutions round what enters them to ten bits of mantissa
    return device
