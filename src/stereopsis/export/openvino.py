"""An ONNX model as an OpenVINO one: a `.xml` of operators and a `.bin` of weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stereopsis.export.onnx import OnnxModel
from stereopsis.prediction.header import (
    EMPTY_SEAL,
    EMPTY_WEIGHTS,
    HEADER_KEY,
    SEAL_KEY,
    WEIGHTS_KEY,
    ExportHeader,
    seal,
)

if TYPE_CHECKING:
    import openvino


@dataclass(frozen=True)
class OpenVinoModel:
    """A model in memory, and the header of the file that it becomes."""

    model: openvino.Model
    header: ExportHeader

    def write(self, path: Path, header: ExportHeader | None = None) -> None:
        """Write and seal an `.xml` file and the `.bin` beside it."""
        import openvino

        text = (header or self.header).to_json()
        for key, value in ((HEADER_KEY, text), (WEIGHTS_KEY, EMPTY_WEIGHTS), (SEAL_KEY, EMPTY_SEAL)):
            self.model.set_rt_info(value, [key])
        openvino.save_model(self.model, path, compress_to_fp16=self.header.precision == "fp16")
        seal(path)


def to_openvino(model: OnnxModel) -> OpenVinoModel:
    """The same model; fp16 storage is OpenVINO's own, so give the fp32 one and `halve_storage` the result.

    Raises ValueError with OpenVINO's reason where it cannot take an operator.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.write(path)
        try:
            converted = openvino.convert_model(path)
        except Exception as error:  # OpenVINO's conversion failures share no narrower class
            raise ValueError(f"{model.header.network} is not for OpenVINO: {_reason(error)}") from error
    _keep_positions_exact(converted)
    return OpenVinoModel(converted, model.header)


def _reason(error: Exception) -> str:
    """The last line of the log of failed operators."""
    log = str(error).partition("Summary:")[0]
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


_FETCHING = {"Gather", "GatherElements", "GatherND", "GridSample"}
"""Operators whose second input says where the first is read."""
_HEAVY = {"Convolution", "GroupConvolution", "MatMul", "Constant", "Parameter", "ShapeOf"}


def _keep_positions_exact(model: openvino.Model) -> None:
    """Have positions of features computed in float32, also where the rest computes in bfloat16.

    In bfloat16 columns beyond 256 are two apart. Marked is what lies between the heavy operators
    and a position, and what follows from that alone, such as the weight between two columns. OpenVINO
    heeds the mark in models that were read from a file.
    """
    operators = model.get_ordered_ops()
    exact: dict[str, openvino.Node] = {}
    waiting = [operator.input_value(1) for operator in operators if operator.get_type_name() in _FETCHING]
    while waiting:
        node = waiting.pop().get_node()
        if node.get_type_name() not in _HEAVY and node.get_friendly_name() not in exact:
            exact[node.get_friendly_name()] = node
            waiting += node.input_values()
    for node in operators:
        sources = [value.get_node() for value in node.input_values()]
        names = {each.get_friendly_name() for each in sources if each.get_type_name() != "Constant"}
        if names and names <= exact.keys():
            exact[node.get_friendly_name()] = node
    for node in exact.values():
        node.get_rt_info()["precise_0"] = True


def halve_storage(model: OpenVinoModel) -> OpenVinoModel:
    """The same with weights stored in float16; the arithmetic is chosen when the file is loaded."""
    return OpenVinoModel(model.model, replace(model.header, precision="fp16"))
