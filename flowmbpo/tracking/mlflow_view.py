"""What MLflow's UI shows first: the columns and charts that matter here, as tags of the experiment.

MLflow keeps a shared view as JSON in a tag of the experiment; its page opens with that view when the URL names the key.
Charts and columns that are not named here stay available in the UI. Not here: starting the UI (`flowmbpo ui`).
"""

from __future__ import annotations

import json

from flowmbpo.data_types import JSON, Document
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
# Sections of the chart page; each metric is a line chart over the environment steps under a title that fits it.
_SECTIONS = {
    "Reward": {
        EPISODE_REWARD: "R, training",
        EVALUATED_REWARD: "R, evaluated",
        "train/episode_length": "length",
        "train/reward_correlation": "reward corr.",
    },
    "Losses": {
        "train/dynamics_loss": "dynamics",
        "train/reward_loss": "reward",
        "train/actor_loss": "actor",
        "train/value_loss": "value",
    },
    "Speed": {ENV_STEPS_PER_SECOND: "steps/s", "perf/epoch_seconds": "s per epoch"},
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
    options = f"viewStateShareKey={VIEW}&compareRunsMode=CHART&workflowType=machine_learning"
    return f"{server}/#/experiments/{experiment_id}/runs?{options}"


def server_of(store: Store, port: int) -> str:
    """The UI's address: the server itself, or the one that `flowmbpo ui` starts for a local store."""
    return store.uri if store.is_server else f"http://127.0.0.1:{port}"


def _view() -> Document:
    charts: list[JSON] = [
        {
            "uuid": f"flowmbpo-{metric}",
            "type": "LINE",
            "metricSectionId": f"flowmbpo-{section}",
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "displayName": title,
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
        for metric, title in metrics.items()
    ]
    sections: list[JSON] = [
        {
            "uuid": f"flowmbpo-{name}",
            "name": name,
            "columns": 2,  # three are too narrow for titles beside the list of runs
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
