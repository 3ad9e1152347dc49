"""Names for nested data that many rooms pass on; the rooms import nothing else from here, and it imports no room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What JSON can hold."""

Document: TypeAlias = dict[str, JSON]
"""A JSON object that is made here, as `--json` prints it."""

State: TypeAlias = dict[str, Any]
"""A nested `state_dict`: tensors, numbers and texts by name, which `runs.state_tree` writes and reads."""
