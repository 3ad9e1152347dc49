"""What `bench train` counts and reports; no time is asserted."""

import torch

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
