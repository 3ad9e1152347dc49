"""The complete report as one self-contained HTML page: collected, rendered, written.

What stands on the page is in `sections`, how it looks in `templates/`. The template escapes everything that comes from
the store or the registry; the page loads nothing and runs no script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from flowmbpo.errors import UserError
from flowmbpo.reports import formats
from flowmbpo.reports.comparison import compare
from flowmbpo.reports.known import known_experiments
from flowmbpo.reports.sections import CORRELATION, GpuHours, collect
from flowmbpo.runs.files import check_output, output_file
from flowmbpo.spec.registry import Registry
from flowmbpo.tracking.metrics import GRADIENT_COSINE
from flowmbpo.tracking.reader import Reader, open_reader

SUFFIXES = (".html", ".htm")
_LATENT_ERROR = re.compile(r"model/latent_error_(\d+)")


def build_report(
    names: Sequence[str], *, reader: Reader | str | None, registry: Registry, gpu_hours: GpuHours | None = None
) -> str:
    """The page about the named experiments; without names about all that have finished runs.

    `gpu_hours`: asked for and used by the jobs of each experiment.

    Raises:
        UserError: an unknown name, or no finished run at all.
    """
    source = open_reader(reader) if reader is None or isinstance(reader, str) else reader
    known = known_experiments(registry)
    records = source.runs()
    ran = {run.name for run in records if run.status == "FINISHED"}
    order = [*known, *sorted(ran - set(known))]
    chosen = [registry.aliases.get(name, name) for name in names] or [name for name in order if name in ran]
    if not chosen:
        raise UserError(
            f"there are no finished runs in {source.store} to report on; `flowmbpo run quickstart` makes one, "
            "`flowmbpo runs` shows what there is"
        )
    errors = sorted({int(m[1]) for run in records for key in run.metrics if (m := _LATENT_ERROR.fullmatch(key))})
    latent = {horizon: f"model/latent_error_{horizon}" for horizon in errors}
    curves = [CORRELATION, GRADIENT_COSINE, *latent.values()]
    comparison = compare(chosen, tracking_uri=source, registry=registry, curves=curves)
    hours = {name: hours for name, hours in (gpu_hours or {}).items() if name in chosen}
    store = str(source.store)
    return render(
        collect(comparison, known, registry, store=store, latent=latent, everything=not names, gpu_hours=hours)
    )


def render(page: Mapping[str, object]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("flowmbpo.reports") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    environment.filters["reward"] = formats.reward
    environment.globals["interval"] = formats.interval
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    return template.render(page=page, style=Markup(style))


def write_report(page: str, path: Path) -> Path:
    """Write the page all at once. Raises UserError or WorkFailed where it cannot be written."""
    check_output(path, SUFFIXES)
    with output_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path
