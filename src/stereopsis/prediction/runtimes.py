"""Exported files opened by the runtimes that run them: ONNX Runtime (.onnx) and OpenVINO (.xml)."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch

from stereopsis.io.files import existing_file
from stereopsis.prediction.header import (
    CONFIDENCE,
    DISPARITY,
    HEADER_KEY,
    LEFT,
    RIGHT,
    ExportHeader,
    check_seal,
)

SUFFIXES = (".onnx", ".xml")
Precision = Literal["float32", "bfloat16", "float16"]


@runtime_checkable
class Session(Protocol):
    """An opened file: its header, the runtime's name, version and arithmetic, and one run."""

    header: ExportHeader
    runtime: str

    def run(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Disparity and, where the file gives it, confidence, [b h w], of images as the header says."""
        ...


def open_session(
    path: str | Path, *, device: str = "cpu", precision: Precision = "float32", threads: int | None = None
) -> Session:
    """The file opened by its runtime, after its checksum was compared.

    precision: of the arithmetic, as far as the runtime can choose; threads: None takes PyTorch's number.
    Raises ValueError or OSError with what to do: damaged, not ours, of a newer format, runtime missing.
    """
    path = existing_file(path, "an exported")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: exported files end in {' or '.join(SUFFIXES)}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, it is {threads}")
    check_seal(path)
    count = torch.get_num_threads() if threads is None else threads
    if path.suffix == ".onnx":
        return _OnnxRuntime(path, device=device, precision=precision, threads=count)
    return _OpenVino(path, device=device, precision=precision, threads=count)


def installed(suffix: str) -> bool:
    """Whether the runtime of files that end so is installed."""
    return importlib.util.find_spec({".onnx": "onnxruntime", ".xml": "openvino"}[suffix]) is not None


def runtime_of(predictor: object) -> str | None:
    """What runs a predictor's network and its arithmetic; None where it has none, or does not tell."""
    return getattr(predictor, "runtime", None)


def installation(suffix: str) -> str:
    """The command that installs the runtime of files that end so."""
    extra = {".onnx": "export", ".xml": "openvino"}[suffix]
    return f"pip install 'stereopsis[{extra}]'"


def bfloat16_supported() -> bool:
    """Whether OpenVINO's CPU plugin computes in bfloat16 on this processor."""
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def bfloat16_computed() -> bool:
    """Whether OpenVINO's CPU plugin rounds to bfloat16 when asked to.

    Processors with AVX-512 alone do so in software: slower than float32, but as exact as those that
    compute in bfloat16, which is enough to judge what accuracy is lost there.
    """
    openvino = importlib.import_module("openvino")
    operators = importlib.import_module("openvino.opset13")
    image = operators.parameter([1, 1, 1, 1], np.float32)
    model = openvino.Model([operators.matmul(image, image, False, False)], [image])
    compiled = _openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    return compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16


@functools.cache
def _openvino_core() -> Any:
    """The one core of the process, kept to its end.

    Each core's CPU plugin gives the thread a signal stack of its own and puts back the one before it when it
    goes. Of two cores that go in the order in which they came, the second puts back a stack that is no longer
    there: the next signal, Ctrl-C say, would end the process by a segmentation fault.
    """
    return importlib.import_module("openvino").Core()


def _runtime(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"{path} needs {module}, which is not installed: {installation(path.suffix)}"
        ) from None


class _OnnxRuntime:
    def __init__(self, path: Path, *, device: str, precision: Precision, threads: int) -> None:
        onnxruntime = _runtime("onnxruntime", path)
        if precision != "float32":
            raise ValueError(
                f"{path}: ONNX Runtime computes as the file says, precision {precision} cannot be chosen: "
                f"export to OpenVINO for it"
            )
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device)
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise ValueError(
                f"{path}: this ONNX Runtime cannot run on {device}, it has {', '.join(available)}"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what goes wrong is raised
        # Threads that spin between operators would slow everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
            text = self._session.get_modelmeta().custom_metadata_map[HEADER_KEY]
        except Exception as error:  # ONNX Runtime's exceptions share no narrower class
            raise ValueError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open it "
                f"({_reason(error)}): update onnxruntime, or export again with this version"
            ) from error
        self.header = ExportHeader.from_json(text, path)
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}, {self.header.precision}"
        self._path = path
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            values = self._session.run(self._outputs, {LEFT: left, RIGHT: right})
        except Exception as error:  # as above
            raise _not_at_this_size(self._path, left, error) from error
        found = dict(zip(self._outputs, values, strict=True))
        return found[DISPARITY], found.get(CONFIDENCE)


_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_KEPT_SIZES = 4


class _OpenVino:
    """Compiled anew for each size of images, the last few kept.

    Compiled once for any size, OpenVINO 2026.4 gives wrong disparities of RT-IGEV++, without an error.
    """

    def __init__(self, path: Path, *, device: str, precision: Precision, threads: int) -> None:
        openvino = _runtime("openvino", path)
        self._core = _openvino_core()
        self._device = device.upper()
        available = self._core.available_devices
        if self._device.partition(".")[0] not in {name.partition(".")[0] for name in available}:
            raise ValueError(
                f"{path}: OpenVINO cannot run on {device}, it has {', '.join(available).lower()}"
            )
        self._settings: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self._device == "CPU":
            self._settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(path)
            text = self._model.get_rt_info([HEADER_KEY]).astype(str)
        except RuntimeError as error:
            raise ValueError(
                f"{path}: OpenVINO {openvino.get_version()} cannot open it ({_reason(error)}): "
                f"update openvino, or export again with this version"
            ) from error
        self._path = path
        self._requests: dict[tuple[int, ...], Any] = {}
        self._confident = any(CONFIDENCE in output.get_names() for output in self._model.outputs)
        self.header = ExportHeader.from_json(text, path)
        version = openvino.get_version().partition("-")[0]
        self.runtime = f"OpenVINO {version}, {self.header.precision}, computing in {precision}"

    def run(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            request = self._request(left.shape)
            request.infer({LEFT: left, RIGHT: right})
        except RuntimeError as error:
            raise _not_at_this_size(self._path, left, error) from error
        disparity = request.get_tensor(DISPARITY).data.copy()
        return disparity, request.get_tensor(CONFIDENCE).data.copy() if self._confident else None

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape({LEFT: list(shape), RIGHT: list(shape)})
            compiled = self._core.compile_model(model, self._device, self._settings)
            while len(self._requests) >= _KEPT_SIZES:
                del self._requests[next(iter(self._requests))]
            self._requests[shape] = compiled.create_infer_request()
        return self._requests[shape]


def _not_at_this_size(path: Path, images: np.ndarray, error: Exception) -> ValueError:
    shape = "x".join(map(str, images.shape))
    return ValueError(
        f"{path} cannot run on images of shape {shape} ({_reason(error)}): export the network for that size"
    )


def _reason(error: Exception) -> str:
    """What a runtime complains of, in one line, without its source's addresses."""
    text = " ".join(str(error).split())
    told = re.search(
        r"(Unsupported model IR version|Opset \d+ is|Unsupported IR version)[^.]*(\.[^.]*till opset \d+)?",
        text,
    )
    return (told.group() if told else text.rpartition("FAIL : ")[2])[:240] or type(error).__name__
