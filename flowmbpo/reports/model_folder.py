"""Writes a run's policy as the folder of a Hugging Face model: card with results, configuration, weights, pictures.

The folder is complete by itself: `policy.py` computes the actions without flowmbpo. Not here: uploading it.
"""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import flowmbpo
from flowmbpo.errors import UserError, WorkFailed
from flowmbpo.reports.formats import reward
from flowmbpo.runs.checkpoint import TENSORS, verify
from flowmbpo.runs.files import BrokenFile, atomic_folder
from flowmbpo.runs.layout import RunFiles
from flowmbpo.tracking.records import CheckpointRecord, RunRecord

CONFIG, WEIGHTS, POLICY = "config.json", "model.safetensors", "policy.py"
_PICTURES = ("learning_curve.png", "replay.html")
_FIGURES = ("mean_reward", "std_reward", "median_reward", "mean_length", "fall_share", "forward_speed")
_CARD = """{front}
# {title}

{description}

The deterministic policy of epoch {epoch:,} ({env_steps:,} environment steps), trained by flowmbpo on a model with
{model} dynamics, seed {seed}. R is the undiscounted return of full episodes in the real simulator.

{evaluation}

## Use

```python
from pathlib import Path

from policy import Policy  # {policy} of this folder; needs torch, safetensors and numpy

policy = Policy(Path("."), "{config}", "{weights}")
actions = policy.predict(observations)  # (N, observations) -> (N, actions) in [-1, 1]
```

## Training again

```sh
{command}
flowmbpo reproduce {run_id} --check
```

Code: version {version}, commit `{commit}`. The whole specification is in `{config}`. Licence: MIT (`LICENSE`).
"""


def write_model_folder(run: RunRecord, found: CheckpointRecord, checkpoint: Path, out: Path) -> list[str]:
    """Write the checkpoint in the folder `checkpoint` and its card to the new folder `out`; returns the files' names.

    Raises UserError when `out` exists or huggingface_hub is missing, WorkFailed when it cannot be written.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        raise UserError("the model card needs huggingface_hub: pip install 'flowmbpo[share]'") from None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; name a new folder")
    try:
        manifest = verify(checkpoint, "checkpoint").manifest
    except BrokenFile as error:
        raise WorkFailed(f"the checkpoint cannot be exported: {error}") from None
    spec: dict[str, Any] = manifest["experiment"]
    figures = {name: found.metrics[f"eval/{name}"] for name in _FIGURES if f"eval/{name}" in found.metrics}
    env = spec["env"]["kind"]
    results = [
        EvalResult("reinforcement-learning", f"flowmbpo-{env}", env, name, value, metric_name=name)
        for name, value in figures.items()
    ]
    card = ModelCardData(
        model_name=run.run_name.replace("/", "-"),
        license="mit",
        library_name="flowmbpo",
        pipeline_tag="reinforcement-learning",
        tags=["reinforcement-learning", "world-model", env, spec["world_model"]["kind"]],
        eval_results=results or None,
    )
    lines = ["| figure | value |", "|---|---:|", *(f"| {name} | {reward(value)} |" for name, value in figures.items())]
    text = _CARD.format(
        front=f"---\n{card.to_yaml()}\n---",
        title=run.run_name,
        description=spec["description"],
        epoch=int(manifest["epoch"]),
        env_steps=int(manifest["env_steps"]),
        model=spec["world_model"]["kind"],
        seed=manifest["seed"],
        evaluation="\n".join(lines) if figures else "It was not evaluated.",
        command=f"flowmbpo run {run.name} --seed {manifest['seed']}"
        + "".join(f" --set {item}" for item in manifest.get("overrides", ())),
        run_id=run.run_id,
        version=run.tags.get("flowmbpo.version", "unknown"),
        commit=run.tags.get("flowmbpo.git_commit", "unknown"),
        policy=POLICY,
        config=CONFIG,
        weights=WEIGHTS,
    )
    try:
        if out.is_dir():
            out.rmdir()
        with atomic_folder(out.absolute()) as folder:
            shutil.copyfile(checkpoint / TENSORS, folder / WEIGHTS)
            config = {key: value for key, value in manifest.items() if key != "files"}
            (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
            policy = resources.files("flowmbpo.models") / "standalone_policy.py"
            (folder / POLICY).write_text(policy.read_text(encoding="utf-8"), encoding="utf-8")
            (folder / "README.md").write_text(text, encoding="utf-8")
            (folder / "LICENSE").write_text(_licence(), encoding="utf-8")
            for name in _PICTURES:
                source = RunFiles.of(run.run_id).artifacts / name
                if source.is_file():
                    shutil.copyfile(source, folder / name)
            return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise WorkFailed(f"{out} cannot be written: {error.strerror or error}") from None


def _licence() -> str:
    """Ours, of `policy.py`: a wheel has it in the package, a checkout beside it."""
    package = Path(flowmbpo.__file__).parent
    places = (package / "LICENSE", package.parent / "LICENSE")
    return next(place for place in places if place.is_file()).read_text(encoding="utf-8")
