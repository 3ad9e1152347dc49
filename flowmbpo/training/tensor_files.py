"""Tensors and JSON on disk: streamed safetensors, checksums, atomic folders. Never a pickle.

Knows nothing of checkpoints' meaning. The writer streams one tensor at a time, so that saving a replay buffer needs
no second copy of it; the reader is the safetensors library, which maps the file and validates its header.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

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


class BrokenFile(ValueError):
    """A file that is truncated, changed, foreign or malicious; nothing of it was executed or trusted."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write `tensors` as one safetensors file, fsync it, and return its SHA-256."""
    header: dict[str, Any] = {}
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


def write_json(path: Path, document: Any) -> None:
    """Write JSON under a temporary name, fsync and rename: readers see the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path, limit: int = 64 << 20) -> Any:
    """Read JSON of at most `limit` bytes."""
    try:
        if path.stat().st_size > limit:
            raise BrokenFile(f"{path}: larger than {limit} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenFile(f"{path}: {error}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is complete; on any error nothing is left behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _sync_folder(temporary)
        if target.exists():  # the same epoch again, after a resume: the new one replaces it
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
