"""Tensors and a JSON record in one safetensors file that notices a flipped bit, and that executes nothing when it is read.

The metadata have one entry, because safetensors writes several in random order, and the same content should give the same file:

    subfour    {..., "sha256": digest of the tensors and of the rest of the record}

safetensors checks sizes and offsets, no content: without the digest a weight could change in silence. Files written before
there was a digest have none, and are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

METADATA = "subfour"

DIGEST = "sha256"


def pack_tensors(tensors: Mapping[str, Tensor], record: Mapping[str, Any] | None = None) -> bytes:
    """Return the bytes of a file.

    Args:
        tensors: on any device; of the memory layout only the values are kept.
        record: what else the file has to say, anything JSON can.
    """
    kept = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    entries = dict(record or {})
    return save(kept, {METADATA: json.dumps(entries | {DIGEST: digest(kept, entries)})})


def unpack_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the record of a file; the record is empty where there is none.

    Raises:
        ValueError: the file is damaged or no safetensors file; the message is the reason only.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        record = json.loads(metadata.get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"damaged or not a safetensors file ({error})") from None
    if not isinstance(record, dict):
        raise ValueError("damaged or not a safetensors file (its metadata are no object)")
    if DIGEST in record and record.pop(DIGEST) != digest(tensors, record):
        raise ValueError("damaged: its content does not have the checksum in its metadata")
    return tensors, record


def digest(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> str:
    """Return a digest of tensors, contiguous on the CPU, and of a record."""
    found = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"\0{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
