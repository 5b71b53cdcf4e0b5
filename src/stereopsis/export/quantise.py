"""Eight-bit arithmetic after training: ranges from rendered pairs, the regression's tail left in float.

Convolutions and products alone compute in eight bits: sums, norms and costs between them would lose more
than they save. A disparity in 256 steps would be a staircase. So everything from the last convolutions
(included) to the outputs stays in float, through every sum that adds a residual to a disparity, and so does
whatever computes the positions that features are fetched from.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stereopsis.export.onnx import OnnxModel
from stereopsis.export.openvino import OpenVinoModel
from stereopsis.prediction.header import LEFT, RIGHT, ExportHeader
from stereopsis.structures import StereoPair
from stereopsis.synthesis.stream import SyntheticStream

if TYPE_CHECKING:
    import onnx

MOST_PAIRS = 32
Feeds = list[dict[str, np.ndarray]]

_PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "DeformConv"}
_INDEXED = {
    "GatherElements": 1,
    "GatherND": 1,
    "Gather": 1,
    "GridSample": 1,
    "ScatterElements": 1,
    "ScatterND": 1,
}
_OPENVINO_PRODUCTS = {
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "DeformableConvolution",
    "MatMul",
    "Einsum",
}
_OPENVINO_PASSING = {"Relu", "Clamp", "Concat", "Interpolate"}
"""What eight bits may pass through on their way to a product."""
_OPENVINO_ENDS = {"Parameter", "Constant", "Result"}


def calibration_feeds(header: ExportHeader, *, pairs: int, seed: int, size: tuple[int, int]) -> Feeds:
    """Rendered pairs as the file takes them; size (height, width) of a file of any size."""
    if not 1 <= pairs <= MOST_PAIRS:
        raise ValueError(f"calibration takes 1 to {MOST_PAIRS} pairs, not {pairs}")
    stream = SyntheticStream(seed, size=header.size or size)
    return [_feed(header, stream[index].pair) for index in range(pairs)]


def _feed(header: ExportHeader, pair: StereoPair) -> dict[str, np.ndarray]:
    def taken(image: torch.Tensor) -> np.ndarray:
        padded = header.padding.pad(image[None])
        if header.images == "uint8":
            padded = (padded * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return np.ascontiguousarray(padded.numpy())

    return {LEFT: taken(pair.left), RIGHT: taken(pair.right)}


def quantise_onnx(model: OnnxModel, feeds: Feeds) -> OnnxModel:
    """Convolutions in eight bits (weights per channel), by ONNX Runtime's quantiser."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, folded, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "folded", "int8"))
        model.write(plain)
        quant_pre_process(str(plain), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded),
            str(quantised),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(onnx_tail(onnx.load(str(folded)))),
        )
        proto = onnx.load(str(quantised))
    return OnnxModel(proto, replace(model.header, precision="int8"))


def quantise_openvino(model: OpenVinoModel, feeds: Feeds) -> OpenVinoModel:
    """Convolutions and products in eight bits (weights per channel), by NNCF."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    quantised = nncf.quantize(
        model.model,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=sorted(_in_float(model)), validate=False),
    )
    return OpenVinoModel(quantised, replace(model.header, precision="int8"))


def onnx_tail(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that must stay in float."""
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    starts = [output.name for output in graph.output]
    for node in graph.node:
        place = _INDEXED.get(node.op_type)
        if place is not None:
            starts.append(node.input[place])

    def before(tensor: str) -> Iterable[str]:
        node = makers.get(tensor)
        return () if node is None or node.op_type in _PRODUCTS else node.input

    return {makers[tensor].name for tensor in _reached(starts, before) if tensor in makers}


def _in_float(model: OpenVinoModel) -> set[str]:
    """Names of the operators that NNCF is to leave alone: the tail, and what is no product."""
    others = {
        operator.get_friendly_name()
        for operator in model.model.get_ordered_ops()
        if operator.get_type_name() not in _OPENVINO_PRODUCTS | _OPENVINO_PASSING | _OPENVINO_ENDS
    }
    return others | openvino_tail(model)


def openvino_tail(model: OpenVinoModel) -> set[str]:
    """Names of the operators that must stay in float."""
    operators = {op.get_friendly_name(): op for op in model.model.get_ordered_ops()}
    starts = [op.get_friendly_name() for op in model.model.get_results()]
    for op in operators.values():
        if op.get_type_name() in _INDEXED:
            starts.append(op.input_value(_INDEXED[op.get_type_name()]).get_node().get_friendly_name())

    def before(name: str) -> Iterable[str]:
        if operators[name].get_type_name() in _OPENVINO_PRODUCTS:
            return ()
        return [value.get_node().get_friendly_name() for value in operators[name].input_values()]

    return {
        name for name in _reached(starts, before) if operators[name].get_type_name() not in _OPENVINO_ENDS
    }


def _reached(starts: Iterable[str], before: Callable[[str], Iterable[str]]) -> set[str]:
    """Everything from which a start can be reached without crossing a product, starts included."""
    waiting, found = list(starts), set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(before(name))
    return found
