"""Options that several commands share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from flowmbpo.cli import streams
from flowmbpo.cli.completion import experiment_names, names_and_run_ids, registry_path, spec_keys
from flowmbpo.errors import UserError

RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        envvar="FLOWMBPO_REGISTRY",
        is_eager=True,  # the names that other arguments hold are read with it
        help="Registry file. Default: ./experiments.toml, else the one shipped with flowmbpo.",
    ),
]
TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow store. Default: the sqlite file mlflow.db in the working directory.",
    ),
]


DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the spec.", autocompletion=spec_keys),
]
CheckpointOption = Annotated[str, typer.Option("--checkpoint", metavar="best|last|EPOCH", help="Whose policy.")]


def _without_aliases(context: typer.Context, given: Any) -> Any:
    """Selectors of runs, an experiment's alias replaced by its name. Of a registry with mistakes nothing is known: to
    look at runs needs none."""
    if not given or context.resilient_parsing:
        return given
    from flowmbpo.spec.registry import load_registry

    try:
        registry = load_registry(registry_path(context))
    except UserError:
        return given
    if isinstance(given, str):
        return registry.without_alias(given)
    return [registry.without_alias(selector) for selector in given]


# What every argument has that selects runs.
SELECTS_RUNS: dict[str, Any] = {"autocompletion": names_and_run_ids, "callback": _without_aliases}
NameArgument = Annotated[str, typer.Argument(help="Experiment or alias.", autocompletion=experiment_names)]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Run id, its beginning, NAME/seed-N, or an experiment: its newest run.",
        **SELECTS_RUNS,
    ),
]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(help="Experiments or aliases.", autocompletion=experiment_names)
]


def _json_alone(context: typer.Context, given: bool) -> bool:
    if given:
        context.with_resource(streams.json_alone())
    return given


JsonOption = Annotated[
    bool, typer.Option("--json", callback=_json_alone, help="Print one JSON document on stdout and nothing else there.")
]


def with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, accepting `--registry` and `--tracking-uri` also where it needs neither.

    A script can then give the same options to every command.
    """
    given = inspect.signature(command, eval_str=True)
    common = {"registry": RegistryOption, "tracking_uri": TrackingOption}
    missing = [name for name in common if name not in given.parameters]
    if not missing:
        return command

    @wraps(command)
    def accepting(**arguments: Any) -> None:
        if "registry" in missing and (path := arguments["registry"]):
            from flowmbpo.spec import document

            document.read(path)  # a path that leads nowhere is a mistake wherever it stands
        command(**{name: value for name, value in arguments.items() if name not in missing})

    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=common[name])
        for name in missing
    ]
    return with_parameters(accepting, [*given.parameters.values(), *extra])


def with_parameters(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """`command`, shown with these parameters."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def parse_list(option: str, text: str, pattern: str, what: str) -> list[str]:
    """The parts of a list with commas. Raises UserError unless each is `what`, which `pattern` describes."""
    parts = [part.strip() for part in text.split(",")]
    if wrong := [part for part in parts if not re.fullmatch(pattern, part)]:
        raise UserError(f"{option} {text!r}: {wrong[0]!r} is not {what}")
    return parts


def parse_pairs(option: str, texts: Sequence[str], what: str) -> dict[str, str]:
    """`KEY=VALUE` of an option that may be repeated. Raises UserError; `what` says what to write."""
    for text in texts:
        if not re.fullmatch(r"[^=]+=.*", text, re.DOTALL):
            raise UserError(f"{option}{text!r}: write {what}")
    return dict(text.split("=", 1) for text in texts)


def refuse_with_resume(given: Mapping[str, object]) -> None:
    """Raises UserError for options that would make another run of the one to be continued."""
    if wrong := [option for option, value in given.items() if value]:
        raise UserError(f"--resume continues a run as it was started; leave out {', '.join(wrong)}")


_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `1h30m`, `2d` or `H:MM:SS`. Raises UserError."""
    if match := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", text):
        hours, minutes, seconds = map(int, match.groups())
        total = 3600.0 * hours + 60.0 * minutes + seconds
    elif re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", text))
    else:
        raise UserError(f"time limit {text!r} is not understood; write 90s, 30m, 1h30m, 2d or 1:30:00")
    if total <= 0:
        raise UserError(f"time limit {text!r} must be longer than nothing")
    return total


def slurm_time(text: str | None) -> str | None:
    """A duration as Slurm writes it."""
    if text is None or "-" in text:
        return text
    seconds = int(parse_duration(text))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def parse_seeds(seed: int | None, seeds: str | None) -> list[int]:
    """The seeds of `--seed N` or `--seeds 0,1,2`; [0] when neither is given. Raises UserError."""
    from flowmbpo.spec.identity import check_seeds  # looks for extensions, which --help does not need

    if seed is not None and seeds is not None:
        raise UserError("give --seed or --seeds, not both")
    if seeds is None:
        found = [0 if seed is None else seed]
    else:
        found = [int(part) for part in parse_list("--seeds", seeds, r"\d{1,9}", "a seed, as in --seeds 0,1,2")]
    return check_seeds(found)
