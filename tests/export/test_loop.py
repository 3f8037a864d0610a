"""A loop in an ONNX model: so many steps, of what changes and of what stays the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn

from crossalign.export.graphs import Steps
from crossalign.export.loop import with_count, with_steps
from crossalign.onnx_runtime.session import open_session

SHAPE = (2, 3, 4)
SIZES: list[str | int | None] = ["batch", 1, *SHAPE]


def model(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    given, made = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SIZES) for name in names] for names in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "graph", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def looped(count: int) -> bytes:
    """Make y -> y + speed, speed -> speed + b, from y = a and speed = 0."""
    first = model(
        [
            helper.make_node("Identity", ["a"], ["x0"]),
            helper.make_node("Sub", ["a", "a"], ["x1"]),
            helper.make_node("Identity", ["b"], ["x2"]),
        ],
        ["a", "b"],
        ["x0", "x1", "x2"],
    )
    # The same names as in the other model, which must not be confused.
    step = model(
        [helper.make_node("Add", ["x1", "b"], ["a"]), helper.make_node("Add", ["x0", "a"], ["y"])],
        ["x0", "x1", "b"],
        ["y", "a"],
    )
    return bytes(with_steps(first, step, Steps(nn.Identity(), count, SHAPE), "fused").SerializeToString())


@pytest.mark.parametrize("batch", [1, 3])
def test_the_steps_are_so_many(batch: int) -> None:
    a, b = np.random.default_rng(4).random((2, batch, 1, *SHAPE), dtype=np.float32)
    content = looped(5)
    for made, count in ((content, 5), (with_count(content, 2), 2), (with_count(content, 0), 0)):
        (fused,) = open_session(made).run(["fused"], {"a": a, "b": b})
        np.testing.assert_allclose(fused, a + b * count * (count + 1) / 2, rtol=1e-5)
