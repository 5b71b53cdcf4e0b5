"""A tiny exported file: disparity is the mean difference of the views, confidence (if any) the left's red."""

from __future__ import annotations

from pathlib import Path

import onnx
import openvino
from onnx import TensorProto, helper

from stereopsis.prediction.header import (
    CONFIDENCE,
    DISPARITY,
    EMPTY_SEAL,
    EMPTY_WEIGHTS,
    HEADER_KEY,
    LEFT,
    RIGHT,
    SEAL_KEY,
    WEIGHTS_KEY,
    ExportHeader,
    seal,
)


def write_export(
    path: Path, header: ExportHeader, *, confident: bool = True, model: onnx.ModelProto | None = None
) -> Path:
    """`path` ends in .onnx or .xml; metadata are the header's; model: another than the header's own."""
    model = model or fake_model(header, confident=confident)
    if path.suffix == ".onnx":
        helper.set_model_props(model, {HEADER_KEY: header.to_json(), SEAL_KEY: EMPTY_SEAL})
        onnx.save(model, path)
    else:
        plain = path.with_suffix(".plain.onnx")
        onnx.save(model, plain)
        converted = openvino.convert_model(plain)
        for key, text in (
            (HEADER_KEY, header.to_json()),
            (WEIGHTS_KEY, EMPTY_WEIGHTS),
            (SEAL_KEY, EMPTY_SEAL),
        ):
            converted.set_rt_info(text, [key])
        openvino.save_model(converted, path, compress_to_fp16=False)
    seal(path)
    return path


def fake_model(
    header: ExportHeader, *, confident: bool = True, opset: int = 20, ir_version: int = 10
) -> onnx.ModelProto:
    if header.images == "uint8":
        kind, shape, axis = TensorProto.UINT8, [header.batch or "b", "h", "w", 3], 3
    else:
        kind, shape, axis = TensorProto.FLOAT, [header.batch or "b", 3, "h", "w"], 1
    if header.size is not None:
        shape = [{"h": header.size[0], "w": header.size[1]}.get(str(side), side) for side in shape]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [axis]),
        helper.make_tensor("red", TensorProto.INT64, [], [0]),
    ]
    nodes = [
        helper.make_node("Cast", [LEFT], ["left"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [RIGHT], ["right"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["left", "right"], ["difference"]),
        helper.make_node("ReduceMean", ["difference", "axis"], [DISPARITY], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info(DISPARITY, TensorProto.FLOAT, ["b", "h", "w"])]
    if confident:
        nodes.append(helper.make_node("Gather", ["left", "red"], [CONFIDENCE], axis=axis))
        outputs.append(helper.make_tensor_value_info(CONFIDENCE, TensorProto.FLOAT, ["b", "h", "w"]))
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in (LEFT, RIGHT)]
    graph = helper.make_graph(nodes, "fake", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
