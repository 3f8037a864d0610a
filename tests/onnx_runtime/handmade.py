"""A network file without an exporter: it answers the same six parameters to every pair of crops."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from crossalign.models.stage_settings import StageSettings
from crossalign.onnx_runtime.description import Description

SETTINGS = StageSettings("attention-reg", (16, 16, 16), 4.0)


def description(stage: int = 1, stages: int = 1, **changed: object) -> Description:
    values: dict[str, object] = {
        "name": "handmade",
        "task": "registration",
        "network": "attention-reg",
        "licence": "not stated",
        "settings": asdict(SETTINGS),
        "sizes": dict.fromkeys(("fixed", "moving"), "batch x 1 x 16 x 16 x 16"),
        "sha256": tuple(f"{number:064d}" for number in range(1, stages + 1)),
        "stage": stage,
        "arrangement": 1 if stages == 1 else {"ensemble": list(range(1, stages + 1))},
    }
    return Description(**(values | changed))  # type: ignore[arg-type]


def write_network(path: Path, parameters: Sequence[float], of: Description | None = None) -> Path:
    """Write a network whose answer is `parameters`, mm and degrees, plus nothing of the crops."""
    crop = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1, 16, 16, 16]) for n in ("fixed", "moving")]
    answer = helper.make_tensor_value_info("parameters", TensorProto.FLOAT, ["batch", 6])
    constants = {"answer": np.array([parameters], np.float32), "nothing": np.zeros((1, 6), np.float32)}
    nodes = [
        helper.make_node("Sub", ["fixed", "moving"], ["difference"]),
        helper.make_node("ReduceMean", ["difference"], ["mean"], axes=[2, 3, 4], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "answer"], ["parameters"]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "handmade", crop, [answer], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for name, text in (of or description()).metadata().items():
        model.metadata_props.add(key=name, value=text)
    onnx.save(model, path)
    return path
