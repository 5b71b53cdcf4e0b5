"""A network as an ONNX model, images in and maps out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.onnx.errors import OnnxExporterError

from stereopsis.export.original import Original
from stereopsis.models.base import Padding, StereoModel
from stereopsis.prediction.graph import TensorGraph
from stereopsis.prediction.header import (
    CONFIDENCE,
    DISPARITY,
    EMPTY_SEAL,
    HEADER_KEY,
    LEFT,
    RIGHT,
    SEAL_KEY,
    ExportHeader,
    Images,
    seal,
)

if TYPE_CHECKING:
    import onnx

OPSET = 20
_SMALLEST = 32
_REFUSALS = (UserError, OnnxExporterError, RuntimeError, ValueError)
LARGEST_SIDE = 8192
_EXAMPLE = (128, 256)
"""The smallest size at which a graph of any size is traced."""


@dataclass(frozen=True)
class OnnxModel:
    """A model in memory, and the header of the file that it becomes."""

    proto: onnx.ModelProto
    header: ExportHeader

    def write(self, path: Path, header: ExportHeader | None = None) -> None:
        """Write and seal an `.onnx` file."""
        import onnx

        text = (header or self.header).to_json()
        onnx.helper.set_model_props(self.proto, {HEADER_KEY: text, SEAL_KEY: EMPTY_SEAL})
        onnx.save_model(self.proto, path)
        seal(path)


def to_onnx(
    original: Original,
    *,
    size: tuple[int, int] | None = None,
    any_batch: bool = True,
    images: Images = "float32",
) -> OnnxModel:
    """The model with its preprocessing inside.

    size: the (height, width) of images, padded and cropped inside the graph; None: any size, padded by the
    caller. any_batch: for any number of pairs where the network allows it, else one. images: what goes in
    (see `ExportHeader`).
    Raises ValueError with the exporter's reason where the network's operators do not allow it.
    """
    graph = ImagesToMaps(original.model, images=images, size=size).eval()
    if any_batch:
        with suppress(*_REFUSALS):
            return _exported(graph, _header(original, size, None, images))
    try:
        return _exported(graph, _header(original, size, 1, images))
    except _REFUSALS as error:
        raise ValueError(
            f"{original.network} cannot be exported for {_size_text(size)}: {_cause(error)}"
        ) from error


def _exported(graph: ImagesToMaps, header: ExportHeader) -> OnnxModel:
    """Traced once, strictly: what is to be free must not be frozen on the way."""
    example = _example(header)
    axes = _dynamic_axes(header)
    with _quiet(), torch.no_grad():
        count = len(graph(*example))
        traced = torch.export.export(
            graph,
            example,
            dynamic_shapes=(axes, axes),
            strict=False,
            # What cannot be proven of a size becomes a condition at run time, not a refusal.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced,
            (),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[LEFT, RIGHT],
            output_names=[DISPARITY, CONFIDENCE][:count],
            optimize=False,
        )
        assert program is not None
        return OnnxModel(_simplified(program), header)


def _simplified(program: torch.onnx.ONNXProgram) -> onnx.ModelProto:
    """Constants folded, norms and empty biases absorbed, twins joined, what nothing uses left out.

    The exporter's own optimiser does so, too, but one of its rules, which joins slices, goes over the whole
    graph at every node: ten minutes where a loop is unrolled.
    """
    from onnx_ir import passes
    from onnx_ir.passes import common
    from onnxscript import rewriter
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter.rules import common as rules

    fold_constants(program.model, onnx_shape_inference=True)
    wanted = (
        rules.fuse_batchnorm_into_conv_rule,
        rules.fuse_batchnorm_into_conv_transpose_rule,
        rules.remove_optional_bias_from_conv_rule,
        rules.remove_optional_bias_from_conv_transpose_rule,
        rules.no_op_dynamic_scatter_nd_rule,
        rules.no_op_static_scatter_nd_rule,
        rules.no_op_expand_rule,
        rules.no_op_cast_rule,
        rules.collapse_slice_rule,
        rules.collapse_slice2_rule,
        rules.reshape_reshape_rule,
        rules.transpose_transpose_rule,
    )
    passes.Sequential(
        rewriter.RewritePass(wanted),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
    )(program.model)
    return program.model_proto


class ImagesToMaps(nn.Module):
    """Images as a file takes them -> disparity and confidence of their size."""

    def __init__(
        self, model: StereoModel[Any, Any], *, images: Images = "float32", size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.maps = TensorGraph(model)
        self._images = images
        self._size = size
        self._padding = model.padding

    def forward(self, left_image: Tensor, right_image: Tensor) -> tuple[Tensor, ...]:
        left, right = self._prepared(left_image), self._prepared(right_image)
        maps = self.maps(left, right)
        if self._size is None:
            return maps
        height, width = self._size
        top, _, start, _ = self._padding.amounts(height, width)
        return tuple(m[..., top : top + height, start : start + width] for m in maps)

    def _prepared(self, image: Tensor) -> Tensor:
        if self._images == "uint8":
            image = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        return image if self._size is None else self._padding.pad(image)


def halve_storage(model: OnnxModel) -> OnnxModel:
    """The same with large weights stored in float16 and widened when the file is loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    casts = []
    for stored in proto.graph.initializer:
        if stored.data_type != TensorProto.FLOAT or _elements(stored) < 256:
            continue
        name = stored.name
        half = numpy_helper.from_array(numpy_helper.to_array(stored).astype("float16"), f"{name}_half")
        stored.CopyFrom(half)
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_widened", to=TensorProto.FLOAT)
        )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return OnnxModel(proto, replace(model.header, precision="fp16"))


def _elements(stored: Any) -> int:
    count = 1
    for side in stored.dims:
        count *= side
    return count


def _example(header: ExportHeader) -> tuple[Tensor, Tensor]:
    """Images to trace with; where sizes are free not a square, and a multiple of the padding's."""
    batch = header.batch or 2
    if header.size is not None:
        rows, columns = header.size
    else:
        rows, columns = (
            -(-max(side, floor) // multiple) * multiple
            for side, floor, multiple in zip(
                _EXAMPLE, header.padding.minimum, header.padding.multiple, strict=True
            )
        )
    if header.images == "uint8":
        left, right = (torch.randint(0, 256, (batch, rows, columns, 3), dtype=torch.uint8) for _ in range(2))
    else:
        left, right = (torch.rand(batch, 3, rows, columns) for _ in range(2))
    return left, right


def _dynamic_axes(header: ExportHeader) -> dict[int, Any]:
    axes: dict[int, Any] = {}
    if header.batch is None:
        axes[0] = torch.export.Dim("batch", min=1, max=64)
    if header.size is None:
        first = 1 if header.images == "uint8" else 2
        padding = header.padding
        for k, name in enumerate(("rows", "columns")):
            multiple = padding.multiple[k]
            steps = torch.export.Dim(
                name, min=-(-padding.minimum[k] // multiple), max=LARGEST_SIDE // multiple
            )
            axes[first + k] = steps if multiple == 1 else multiple * steps
    return axes


def _header(
    original: Original, size: tuple[int, int] | None, batch: int | None, images: Images
) -> ExportHeader:
    from stereopsis import __version__

    return ExportHeader(
        network=original.network,
        config=original.config,
        licence=original.licence,
        provenance=original.provenance,
        trained=original.trained,
        images=images,
        size=size,
        batch=batch,
        padding=_free(original.model.padding) if size is None else Padding(),
        least_pixels=original.model.least_pixels,
        opset=OPSET,
        certainty={} if original.certainty is None else original.certainty.plain(),
        version=__version__,
    )


def _free(padding: Padding) -> Padding:
    """The padding of a graph of any size: at least two multiples, as one would be taken for a constant."""
    rows, columns = (
        max(floor, 2 * multiple, _SMALLEST)
        for floor, multiple in zip(padding.minimum, padding.multiple, strict=True)
    )
    return replace(padding, minimum=(rows, columns))


def _size_text(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[1]}x{size[0]}"


def _cause(error: BaseException) -> str:
    """The first line of the innermost reason."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own insides and of packages that nobody needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
