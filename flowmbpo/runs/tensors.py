"""Tensors on disk: safetensors files, never a pickle.

Knows nothing of checkpoints' meaning. The writer streams one tensor at a time, so that saving a replay buffer needs
no second copy of it; the reader is the safetensors library, which maps the file and validates its header.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flowmbpo.data_types import Document
from flowmbpo.runs.files import BrokenFile

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_CHUNK = 16 << 20  # bytes hashed and written at once


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], words: Mapping[str, str] | None = None) -> str:
    """Write `tensors` as one safetensors file, fsync it, and return its SHA-256. `words` go into its metadata."""
    header: Document = {"__metadata__": dict(words)} if words else {}
    offset = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format wants its data aligned
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in (struct.pack("<Q", len(encoded)), encoded):
            digest.update(block)
            file.write(block)
        for tensor in tensors.values():
            flat = tensor.detach().contiguous().cpu().reshape(-1)
            if flat.numel() == 0:
                continue
            data = flat.view(torch.uint8).numpy()
            for start in range(0, len(data), _CHUNK):
                chunk = data[start : start + _CHUNK].data
                digest.update(chunk)
                file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextmanager
def open_tensors(path: Path, device: str = "cpu") -> Iterator[Any]:
    """The open safetensors file (`keys()`, `get_tensor(name)`), read lazily through a memory map."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BrokenFile(f"{path}: {error}") from error


def read_tensors(path: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """All tensors of a file, on `device`."""
    with open_tensors(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
