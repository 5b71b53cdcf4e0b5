"""Which operators stay in float: on a small graph with a residual, a product in the middle and a lookup."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from stereopsis.export.openvino import OpenVinoModel
from stereopsis.export.quantise import calibration_feeds, onnx_tail, openvino_tail, quantise_openvino
from stereopsis.models.base import Padding
from stereopsis.prediction.header import LEFT, RIGHT, ExportHeader


def _graph() -> onnx.ModelProto:
    """features -> coarse -> softmax-free disparity -> rows fetched there -> residual -> sum."""
    weights = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w")
    narrow = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "n")
    two = numpy_helper.from_array(np.float32(2), "two")
    nodes = [
        helper.make_node("Conv", [LEFT, "w"], ["features"], "features"),
        helper.make_node("Relu", ["features"], ["lit"], "lit"),
        helper.make_node("Conv", ["lit", "n"], ["coarse"], "coarse"),
        helper.make_node("Mul", ["coarse", "two"], ["disparity"], "disparity"),
        helper.make_node("Cast", ["disparity"], ["position"], "position", to=TensorProto.INT64),
        helper.make_node("GatherElements", [RIGHT, "position"], ["fetched"], "fetched", axis=3),
        helper.make_node("Relu", ["fetched"], ["bright"], "bright"),
        helper.make_node("Conv", ["bright", "n"], ["residual"], "residual"),
        helper.make_node("Add", ["disparity", "residual"], ["disparity_map"], "sum"),
    ]
    inputs = [
        helper.make_tensor_value_info(LEFT, TensorProto.FLOAT, [1, 3, 4, 4]),
        helper.make_tensor_value_info(RIGHT, TensorProto.FLOAT, [1, 1, 4, 4]),
    ]
    outputs = [helper.make_tensor_value_info("disparity_map", TensorProto.FLOAT, [1, 1, 4, 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weights, narrow, two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_tail_and_the_positions_stay_in_float() -> None:
    assert onnx_tail(_graph()) == {"sum", "residual", "disparity", "coarse", "position"}


def test_openvino_keeps_the_same_operators(tmp_path: Path) -> None:
    onnx.save(_graph(), tmp_path / "g.onnx")
    model = OpenVinoModel(openvino.convert_model(tmp_path / "g.onnx"), ExportHeader(network="fast"))
    tail = openvino_tail(model)
    assert {"disparity_map", "disparity", "position"} <= tail
    assert not tail & {"lit", "bright", "features"}


def test_openvino_quantises_products_alone(tmp_path: Path) -> None:
    """NNCF by itself would also take the sum of a skip and the product of two costs."""
    weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Conv", [LEFT, "w"], ["first"], "first"),
        helper.make_node("Conv", [RIGHT, "w"], ["second"], "second"),
        helper.make_node("Add", ["first", "second"], ["skip"], "skip"),
        helper.make_node("Mul", ["first", "skip"], ["costs"], "costs"),
        helper.make_node("Relu", ["costs"], ["lit"], "lit"),
        helper.make_node("Conv", ["lit", "w"], ["third"], "third"),
        helper.make_node("ReduceSum", ["third"], ["disparity_map"], "sum", keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in (LEFT, RIGHT)]
    outputs = [helper.make_tensor_value_info("disparity_map", TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, tmp_path / "g.onnx")
    model = OpenVinoModel(openvino.convert_model(tmp_path / "g.onnx"), ExportHeader(network="fast"))
    images = np.random.default_rng(0).random((2, 1, 3, 8, 8), dtype=np.float32)
    quantised = quantise_openvino(model, [{LEFT: images[0], RIGHT: images[1]}]).model
    rounded = {
        target.get_node().get_type_name()
        for operator in quantised.get_ordered_ops()
        if operator.get_type_name() == "FakeQuantize"
        for target in operator.output(0).get_target_inputs()
    }
    assert rounded == {"Convolution"}


@pytest.mark.parametrize("images", ["float32", "uint8"])
def test_calibration_feeds_rendered_pairs_as_the_file_takes_them(images: str) -> None:
    header = ExportHeader(network="fast", images=images, padding=Padding(multiple=(16, 32)))
    feeds = calibration_feeds(header, pairs=2, seed=3, size=(24, 40))
    assert len(feeds) == 2
    shape = (1, 32, 64, 3) if images == "uint8" else (1, 3, 32, 64)
    assert all(feed[name].shape == shape for feed in feeds for name in (LEFT, RIGHT))
    assert all(feed[name].dtype == images for feed in feeds for name in (LEFT, RIGHT))
    assert not np.array_equal(feeds[0][LEFT], feeds[1][LEFT])


def test_calibration_is_small() -> None:
    with pytest.raises(ValueError, match="1 to 32 pairs, not 33"):
        calibration_feeds(ExportHeader(network="fast"), pairs=33, seed=0, size=(32, 32))
