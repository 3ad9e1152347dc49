"""What `bench train` counts and reports; no time is asserted."""

import pytest
import torch

from flowmbpo.spec.estimates import estimate
from flowmbpo.spec.registry import load_registry
from flowmbpo.training.benchmark import ProductCounter, measure_training
from tests.training.tiny import tiny


def test_products_are_counted_with_their_shapes_backward_included():
    layer = torch.nn.Linear(8, 4)
    x = torch.randn(16, 8, requires_grad=True)
    with ProductCounter() as counter:
        layer(x).sum().backward()
    # forward [16, 8] x [8, 4]; backward for the input [16, 4] x [4, 8] and for the weight [4, 16] x [16, 8]
    shapes = {(a, b) for a, b, _ in counter.products}
    assert shapes == {((16, 8), (8, 4)), ((16, 4), (4, 8)), ((4, 16), (16, 8))}
    assert sum(counter.products.values()) == 3


def test_ensembles_count_as_batched_products():
    with ProductCounter() as counter:
        torch.baddbmm(torch.zeros(3, 1, 4), torch.randn(3, 16, 8), torch.randn(3, 8, 4))
    assert set(counter.products) == {((3, 16, 8), (3, 8, 4), torch.float32)}


def test_the_report_is_complete():
    found = measure_training(tiny(warmup_epochs=2), "cpu", epochs=2)
    assert set(found["phase_seconds"]) == {"rollout", "actor", "critic", "world_model"}
    assert all(seconds > 0 for seconds in found["phase_seconds"].values())
    assert found["gigaflop_per_epoch"] > 0
    assert found["gemm_efficiency"] > 0
    assert found["peak_rss_mb"] > 50
    assert found["epochs"] == 2


@pytest.mark.parametrize("name", ["latent-baseline", "latent-flow-v2", "mini-flow-v2", "noisy-ensemble"])
def test_show_estimates_the_products_that_are_made(name):
    """With what the critic adds where it learns from predicted states too."""
    small = ["train.num_envs=16", "train.wm_batch_size=32", "actor.imagined_batch_size=32", "train.warmup_epochs=1"]
    spec = load_registry(None).resolve(name, small).spec
    made = measure_training(spec, "cpu", epochs=1)
    assert estimate(spec).epoch_gflop == pytest.approx(made["gigaflop_per_epoch"], rel=0.06)
    # the gradient of a first layer's input is not asked for, but counted in the estimate
    assert estimate(spec).critic_gflop == pytest.approx(made["phase_gigaflop"]["critic"], rel=0.3)
