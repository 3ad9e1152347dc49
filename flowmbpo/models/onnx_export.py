"""Writes a policy as an ONNX file, with PyTorch's exporter: `observations` (N, O) -> `actions` (N, A), float32."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from flowmbpo.models.standalone_policy import Policy


class _Network(nn.Module):
    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor) -> Tensor:
        return self.policy.actions(observations)


def write_onnx(policy: Policy, path: Path) -> None:
    """Write `policy` to `path`, for any number of observations. Needs onnxscript."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of libraries that are not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Network(policy).eval(),
            (torch.zeros(2, policy.observation_dim),),
            input_names=["observations"],
            output_names=["actions"],
            dynamic_shapes={"observations": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
