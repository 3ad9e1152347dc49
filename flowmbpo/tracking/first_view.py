"""What MLflow's UI shows first: the columns and charts that matter here, as tags of the experiment.

MLflow keeps a shared view as JSON in a tag of the experiment; its page opens with that view when the URL names the key.
Charts and columns that are not named here stay available in the UI. Not here: starting the UI (`flowmbpo ui`).
"""

from __future__ import annotations

import json
from typing import Any

from flowmbpo.tracking.metrics import ENV_STEPS_PER_SECOND, EPISODE_REWARD, EPOCH, EVALUATED_REWARD
from flowmbpo.tracking.store import Store

VIEW = "flowmbpo"

_COLUMNS = [
    *(f"metrics.`{name}`" for name in (EPOCH, EPISODE_REWARD, EVALUATED_REWARD, ENV_STEPS_PER_SECOND)),
    *(f"params.`{name}`" for name in ("world_model.kind", "world_model.substeps", "world_model.latent_dim")),
    *(f"params.`{name}`" for name in ("train.horizon", "train.wm_batch_size")),
    "tags.`flowmbpo.seed`",
    "attributes.`Models`",
]
# Section of the chart page: metrics, each a line chart over the environment steps.
_SECTIONS = {
    "Reward": (EPISODE_REWARD, EVALUATED_REWARD, "train/episode_length", "train/reward_correlation"),
    "Losses": ("train/dynamics_loss", "train/reward_loss", "train/actor_loss", "train/value_loss"),
    "Speed": (ENV_STEPS_PER_SECOND, "perf/epoch_seconds"),
}


def experiment_tags() -> dict[str, str]:
    """Tags for the experiment `flowmbpo` in a store."""
    return {
        "mlflow.experimentKind": "custom_model_development",  # open the page of training runs, not that of LLM traces
        "mlflow.experiment.primaryMetric.name": EPISODE_REWARD,
        f"mlflow.sharedViewState.{VIEW}": json.dumps(_view(), separators=(",", ":")),
    }


def view_url(server: str, experiment_id: str) -> str:
    """Address of the run list with charts in the UI at `server`."""
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&compareRunsMode=CHART"


def run_url(server: str, experiment_id: str, mlflow_run_id: str) -> str:
    """Address of one run."""
    return f"{server}/#/experiments/{experiment_id}/runs/{mlflow_run_id}"


def server_of(store: Store, port: int) -> str:
    """The UI's address: the server itself, or the one that `flowmbpo ui` starts for a local store."""
    return store.uri if store.is_server else f"http://127.0.0.1:{port}"


def _view() -> dict[str, Any]:
    charts = [
        {
            "uuid": f"flowmbpo-{metric}",
            "type": "LINE",
            "metricSectionId": f"flowmbpo-{section}",
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "displayName": metric,
            "runsCountToCompare": 10,
            "deleted": False,
            "isGenerated": False,
            "lineSmoothness": 0,
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "selectedXAxisMetricKey": "",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "range": {},
            "ignoreOutliers": False,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
        for section, metrics in _SECTIONS.items()
        for metric in metrics
    ]
    sections = [
        {
            "uuid": f"flowmbpo-{name}",
            "name": name,
            "display": True,
            "isReordered": True,
            "deleted": False,
            "isGenerated": False,
        }
        for name in _SECTIONS
    ]
    return {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": _COLUMNS,
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
    }
