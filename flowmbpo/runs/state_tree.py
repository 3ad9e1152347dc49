"""Nested states (`state_dict`s) as named tensors plus plain JSON, and back; no files here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flowmbpo.data_types import JSON

_TENSOR, _ITEMS, _TUPLE = "$tensor", "$items", "$tuple"


def split(state: object, prefix: str = "") -> tuple[JSON, dict[str, torch.Tensor]]:
    """The JSON skeleton of `state` and its tensors by path.

    Dictionaries (keys of any JSON type), lists, tuples, numbers, strings, None and tensors are understood;
    anything else is a mistake of ours and raises TypeError.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _split(state, prefix, tensors), tensors


def _split(value: object, path: str, tensors: dict[str, torch.Tensor]) -> JSON:
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {_TENSOR: path}
    if isinstance(value, dict):
        items = [[key, _split(item, f"{path}/{key}" if path else str(key), tensors)] for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {_ITEMS: items}  # optimiser states are keyed by integers, which JSON objects cannot be
    if isinstance(value, list | tuple):
        parts = [_split(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return {_TUPLE: parts} if isinstance(value, tuple) else parts
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be part of a checkpoint")


def join(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `split`. Raises KeyError for a tensor that is missing."""
    if isinstance(skeleton, dict):
        if _TENSOR in skeleton:
            return tensors[skeleton[_TENSOR]]
        if _ITEMS in skeleton:
            return {key: join(item, tensors) for key, item in skeleton[_ITEMS]}
        if _TUPLE in skeleton:
            return tuple(join(item, tensors) for item in skeleton[_TUPLE])
        return {key: join(item, tensors) for key, item in skeleton.items()}
    if isinstance(skeleton, list):
        return [join(item, tensors) for item in skeleton]
    return skeleton
