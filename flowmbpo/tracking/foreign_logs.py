"""Reads learning curves that other programs logged: CSV, W&B (offline runs and exported histories), TensorBoard.

Here a log is a list of rows, each a logger's step, a Unix time (None where unknown) and numbers by their foreign names.
Not here: what the names mean and where runs go (`mlflow_import`, which also reads MLflow stores).
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flowmbpo.errors import UserError

_STEPS = ("_step", "step", "Step")
_TIMES = ("_timestamp", "timestamp", "Wall time")
_WANDB_BLOCK = 32_768
_LARGEST = 1 << 30  # bytes of a text file


@dataclass(frozen=True)
class Row:
    """What was logged at once."""

    step: int
    time: float | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class ForeignLog:
    """One run of another program; `kind` names the format."""

    kind: str
    rows: list[Row]

    @property
    def names(self) -> list[str]:
        """What was logged, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.values))


def read_log(path: Path, run: str | None = None) -> ForeignLog:
    """The log in a file or folder; `run` names one of several in an MLflow folder.

    Raises UserError for one that is missing, broken or of no known format.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        if stored := sorted(file.parent for file in path.rglob("meta.yaml") if (file.parent / "metrics").is_dir()):
            return _read_mlruns(path, stored, run)
        wandb, events = sorted(path.glob("*.wandb")), sorted(path.rglob("*tfevents*"))
        if len(wandb) == 1:
            return _read_wandb(wandb[0])
        folders = {file.parent for file in events}
        if len(folders) == 1:
            return _read_tensorboard(folders.pop())
        raise UserError(
            f"{path} holds {len(wandb)} W&B runs and {len(folders)} of TensorBoard; name the folder of one run"
        )
    if "tfevents" in path.name:
        return _read_tensorboard(path)
    if path.suffix == ".wandb":
        return _read_wandb(path)
    readers = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_rows}
    if path.suffix not in readers:
        raise UserError(
            f"{path}: format unknown; allowed are .csv, .json, .jsonl, W&B offline runs, TensorBoard files and "
            "MLflow stores (sqlite:///FILE or a server)"
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path} is larger than {_LARGEST >> 20} MB")
        found = list(readers[path.suffix](path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return _checked(path, ForeignLog(path.suffix[1:], _rows(found)))


def require(module: str) -> ModuleType:
    """A library of the extra `import`. Raises UserError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise UserError(f"reading this needs {name}: pip install 'flowmbpo[import]'") from None


def _checked(path: Path, log: ForeignLog) -> ForeignLog:
    if not log.rows:
        raise UserError(f"{path} holds no numbers; is it complete?")
    return log


def _csv_rows(text: str) -> Iterable[Mapping[str, object]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    if not reader.fieldnames:
        raise ValueError("it is empty")
    for number, row in enumerate(reader, start=2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} has another number of columns than the header")
        yield row


def _json_rows(text: str) -> Iterable[Mapping[str, object]]:
    try:
        document = json.loads(text)
    except ValueError:
        document = [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = document if isinstance(document, list) else [document]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is no list of JSON objects, one per logged step")
    return rows


def _rows(found: Iterable[Mapping[str, object]]) -> list[Row]:
    rows = []
    for index, row in enumerate(found):
        values = {name: value for name, text in row.items() if (value := _number(text)) is not None}
        step = next((values[name] for name in _STEPS if math.isfinite(values.get(name, math.nan))), index)
        time = next((values[name] for name in _TIMES if name in values), None)
        if values:
            rows.append(Row(int(step), time, values))
    return rows


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def choose_run(where: str, runs: Mapping[str, str], run: str | None) -> str:
    """The id that begins with `run`, or has that name, of `runs` (id -> name). Raises UserError when it is not one."""
    chosen = [each for each, name in runs.items() if run is None or each.startswith(run) or name == run]
    if len(chosen) != 1:
        listed = ", ".join(f"{each[:8]} ({runs[each]})" for each in (chosen or list(runs))[:20])
        raise UserError(f"{where} has {len(chosen)} such runs; name one with --run: {listed or 'there are none'}")
    return chosen[0]


def _read_mlruns(path: Path, stored: Iterable[Path], run: str | None) -> ForeignLog:
    """One run of an MLflow file store, which MLflow 3 no longer opens: a file per metric, lines of ms, value, step."""
    rows: dict[tuple[int, int], dict[str, float]] = {}
    try:
        names = {folder: folder / "tags" / "mlflow.runName" for folder in stored}
        ids = {folder.name: file.read_text(encoding="utf-8") if file.exists() else "" for folder, file in names.items()}
        chosen = choose_run(str(path), ids, run)
        metrics = next(folder for folder in names if folder.name == chosen) / "metrics"
        for file in sorted(file for file in metrics.rglob("*") if file.is_file()):
            for line in file.read_text(encoding="utf-8").splitlines():
                at, value, step = line.split()[:3]
                rows.setdefault((int(step), int(at)), {})[str(file.relative_to(metrics))] = float(value)
    except (OSError, ValueError) as error:
        raise (
            error if isinstance(error, UserError) else UserError(f"{path} is no intact MLflow store: {error}")
        ) from None
    return _checked(path, ForeignLog("mlflow", [Row(step, at / 1000, row) for (step, at), row in sorted(rows.items())]))


def _read_tensorboard(path: Path) -> ForeignLog:
    accumulators = require("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util import tensor_util

    accumulator = accumulators.EventAccumulator(str(path), {"scalars": 0, "tensors": 0})
    try:
        accumulator.Reload()
    except Exception as error:  # the library passes on whatever its parsers raise
        raise UserError(f"{path} is no intact TensorBoard file: {error}") from None
    rows = [
        Row(event.step, event.wall_time, {name: float(event.value)})
        for name in accumulator.Tags()["scalars"]
        for event in accumulator.Scalars(name)
    ]
    for name in accumulator.Tags()["tensors"]:  # what TensorFlow 2 writes
        for event in accumulator.Tensors(name):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if value.size == 1 and value.dtype.kind in "fiu":
                rows.append(Row(event.step, event.wall_time, {name: float(value.item())}))
    return _checked(path, ForeignLog("tensorboard", sorted(rows, key=lambda row: row.step)))


def _read_wandb(path: Path) -> ForeignLog:
    messages, found = require("wandb.proto.wandb_internal_pb2"), []
    from google.protobuf.message import DecodeError

    try:
        for data in _wandb_records(path.read_bytes()):
            record = messages.Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                found.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    except (OSError, ValueError, DecodeError) as error:
        raise UserError(f"{path} is no intact W&B run: {error}") from None
    return _checked(path, ForeignLog("wandb", _rows(found)))


def _wandb_records(data: bytes) -> Iterator[bytes]:
    """Records of a `.wandb` file: LevelDB's log format (blocks of 32 KiB; each part has CRC, length and kind) behind
    seven bytes of W&B's own. wandb itself reads it in Go since 0.20. The end of a run that was killed is left out."""
    if data[:4] != b":W&B":
        raise ValueError("it does not begin as one")
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = _WANDB_BLOCK - place % _WANDB_BLOCK
        if left < 7:
            place += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        part = data[place + 7 : place + 7 + length]
        if len(part) < length or not kind:
            return
        if zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"checksum of the record at byte {place} differs")
        place += 7 + length
        parts += part
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""
