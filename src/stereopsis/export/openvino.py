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
    """The same model; fp16 storage is OpenVINO's own, so give the fp32 one and `halve_storage` the result."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.write(path)
        return OpenVinoModel(openvino.convert_model(path), model.header)


def halve_storage(model: OpenVinoModel) -> OpenVinoModel:
    """The same with weights stored in float16; the arithmetic is chosen when the file is loaded."""
    return OpenVinoModel(model.model, replace(model.header, precision="fp16"))
