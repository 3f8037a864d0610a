"""A module that is applied again and again, as a loop in an ONNX model: written out, its nodes would be thousands."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossalign.export.graphs import Steps

PREFIX = "step/"


def with_steps(first: Any, step: Any, steps: Steps, output: str) -> Any:
    """Return an ONNX model that runs `first` and then `step` so many times on its first two outputs.

    The other outputs of `first` are the other inputs of `step`, in the same order; the result is called `output`.
    """
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    begun = [value.name for value in first.graph.output]
    step = compose.add_prefix(step, PREFIX)
    body = step.graph
    inputs = [value.name for value in body.input]
    _renamed(body, dict(zip(inputs[2:], begun[2:], strict=True)))
    carried = list(body.input)[:2]
    number, go_on, going_on = f"{PREFIX}number", f"{PREFIX}go_on", f"{PREFIX}going_on"
    body.node.append(helper.make_node("Identity", [go_on], [going_on], name=going_on))
    results = list(body.output)
    del body.input[:], body.output[:], body.value_info[:]
    body.input.extend(
        [
            helper.make_tensor_value_info(number, TensorProto.INT64, []),
            helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
            *carried,
        ]
    )
    body.output.extend([helper.make_tensor_value_info(going_on, TensorProto.BOOL, []), *results])
    graph, count, shape = first.graph, f"{PREFIX}count", f"{PREFIX}shape"
    sizes = np.array([-1, 1, *steps.shape], dtype=np.int64)
    graph.initializer.extend(
        [numpy_helper.from_array(np.array(steps.count, dtype=np.int64), count), numpy_helper.from_array(sizes, shape)]
    )
    last, rest = f"{PREFIX}last", f"{PREFIX}rest"
    graph.node.extend(
        [
            helper.make_node("Loop", [count, "", *begun[:2]], [last, rest], name=f"{PREFIX}loop", body=body),
            helper.make_node("Reshape", [last, shape], [output], name=f"{PREFIX}reshape"),
        ]
    )
    batch = first.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, 1, *steps.shape]))
    onnx.checker.check_model(first, full_check=True)
    return first


def _renamed(graph: Any, names: dict[str, str]) -> None:
    """Rename the inputs of nodes."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
