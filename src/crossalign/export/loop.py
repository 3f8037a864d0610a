"""A module that is applied again and again, as a loop in an ONNX model: written out, its nodes would be thousands."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossalign.export.graphs import Steps

PREFIX = "step/"
COUNT, SHAPE = f"{PREFIX}count", f"{PREFIX}shape"


def with_steps(first: Any, step: Any, steps: Steps, output: str) -> Any:
    """Return an ONNX model that runs `first` and then `step` so many times on its first two outputs.

    The other outputs of `first` are the other inputs of `step`, in the same order; the result is called `output`.
    `first` is changed and returned.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph, begun = first.graph, [value.name for value in first.graph.output]
    sizes = np.array([-1, 1, *steps.shape], dtype=np.int64)
    graph.initializer.extend([_number(steps.count), numpy_helper.from_array(sizes, SHAPE)])
    last, rest = f"{PREFIX}last", f"{PREFIX}rest"
    body = _body(step, begun)
    graph.node.extend(
        [
            helper.make_node("Loop", [COUNT, "", *begun[:2]], [last, rest], name=f"{PREFIX}loop", body=body),
            helper.make_node("Reshape", [last, SHAPE], [output], name=f"{PREFIX}reshape"),
        ]
    )
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, 1, *steps.shape]))
    onnx.checker.check_model(first, full_check=True)
    return first


def with_count(content: bytes, count: int) -> bytes:
    """Return the model that `with_steps` made, as a file's content, with another count of steps."""
    import onnx

    model = onnx.load_from_string(content)
    (stored,) = (one for one in model.graph.initializer if one.name == COUNT)
    stored.CopyFrom(_number(count))
    return bytes(model.SerializeToString())


def _number(count: int) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(count, dtype=np.int64), COUNT)


def _body(step: Any, begun: list[str]) -> Any:
    """Make the body of a loop of one step; what stays the same it takes from the graph around it, by name."""
    from onnx import TensorProto, compose, helper

    body = compose.add_prefix(step, PREFIX).graph
    carried, same = list(body.input)[:2], [value.name for value in body.input][2:]
    _renamed(body, dict(zip(same, begun[2:], strict=True)))
    number, go_on, going_on = f"{PREFIX}number", f"{PREFIX}go_on", f"{PREFIX}going_on"
    body.node.append(helper.make_node("Identity", [go_on], [going_on], name=going_on))
    of_loop = (
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
    )
    results = list(body.output)
    del body.input[:], body.output[:], body.value_info[:]
    body.input.extend([*of_loop, *carried])
    body.output.extend([helper.make_tensor_value_info(going_on, TensorProto.BOOL, []), *results])
    return body


def _renamed(graph: Any, names: dict[str, str]) -> None:
    """Rename the inputs of nodes."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
