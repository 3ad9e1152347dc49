"""Makes the folder of a checkpoint an MLflow model: what `mlflow.pyfunc.load_model` and `mlflow models serve` need.

A model from code: MLflow imports a copy of `models/standalone_policy.py`, which reads the safetensors; nothing is
pickled. Not here: uploading (`mlflow_writer`) and the policy itself.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata, resources
from pathlib import Path

from flowmbpo.runs.checkpoint import TENSORS
from flowmbpo.runs.files import BrokenFile

MODULE = "flowmbpo_policy"
_PACKAGES = ("mlflow", "numpy", "safetensors", "torch")


def add_model_files(folder: Path, run_id: str, model_id: str) -> None:
    """Write `MLmodel`, the code, the requirements and an input example into `folder`, a deployable checkpoint.

    Raises BrokenFile when its weights cannot be read.
    """
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    observations, actions = _sizes(folder / TENSORS)
    code = folder / "code"
    code.mkdir(exist_ok=True)
    source = resources.files("flowmbpo.models") / "standalone_policy.py"
    (code / f"{MODULE}.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    # Columns and not a tensor: MLflow then takes arrays of either precision, lists and data frames.
    inputs, outputs = (Schema([ColSpec("double")] * size) for size in (observations, actions))
    example = {"dataframe_split": {"columns": list(range(observations)), "data": [[0.0] * observations]}}
    requirements = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in _PACKAGES]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    _json(folder / "input_example.json", example["dataframe_split"])
    _json(folder / "serving_input_example.json", example)
    model = Model(
        artifact_path=folder.name,
        run_id=run_id,
        model_id=model_id,
        signature=ModelSignature(inputs, outputs),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        },
    )
    pyfunc.add_to_model(model, loader_module=MODULE, code="code", python_env="python_env.yaml")
    _json(folder / "python_env.yaml", {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]})
    model.save(str(folder / "MLmodel"))


def _sizes(tensors: Path) -> tuple[int, int]:
    """Numbers in an observation and in an action, from the shapes that the file's header names."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(tensors), framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in ("observations/mean", "actor/mean.bias")]
    except (SafetensorError, OSError) as error:
        raise BrokenFile(f"{tensors}: {error}") from error
    return shapes[0][0], shapes[1][0]


def _json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
