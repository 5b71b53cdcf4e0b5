"""Networks through the whole way: exported, written, run beside the original. Tiny networks only."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx.parser
import openvino
import pytest
import torch

from fakes.exports import fake_model
from stereopsis.export.main import Calibration, convert, prove, with_precision, write_proven
from stereopsis.export.onnx import OnnxModel, to_onnx
from stereopsis.export.openvino import to_openvino
from stereopsis.export.original import Original, random_original
from stereopsis.export.parity import rendered_samples
from stereopsis.models.base import count_parameters
from stereopsis.prediction.exported import ExportedPredictor
from stereopsis.prediction.header import ExportHeader
from stereopsis.prediction.loading import load
from stereopsis.prediction.network import Compile, NetworkPredictor
from stereopsis.prediction.runtimes import bfloat16_computed
from stereopsis.structures import StereoPair

_SIZES = ((64, 96), (77, 131), (96, 64))


@functools.cache
def _tiny() -> Original:
    # Random weights may amplify rounding: of seed 0's, PyTorch's own convolutions in another order keep 98 %
    # of the pixels within 0.001 px.
    return random_original("fast", seed=2, width=8, depth=1)


@functools.cache
def _any_size() -> OnnxModel:
    return to_onnx(_tiny())


def test_a_fixed_size_needs_no_padding_outside(tmp_path: Path) -> None:
    """And bytes with channels last go in."""
    model = to_onnx(_tiny(), size=(70, 90), any_batch=False, images="uint8")
    samples = list(rendered_samples([(70, 90)], each=1, seed=0))
    proofs = write_proven(model, _tiny(), tmp_path / "fast.onnx", samples)
    assert [proof.failures for proof in proofs] == [()]
    assert proofs[0].parity.close >= 0.999
    loaded = load(tmp_path / "fast.onnx")
    assert isinstance(loaded, ExportedPredictor)
    header = loaded.header
    assert (header.network, header.size, header.batch, header.images) == ("fast", (70, 90), 1, "uint8")
    assert header.config == _tiny().config
    assert not header.trained
    assert header.parity["fp32"]["pairs"] == 1  # pyright: ignore[reportIndexIssue]


def test_what_fails_is_not_written(tmp_path: Path) -> None:
    header = ExportHeader(network="fast", padding=_tiny().model.padding)
    model = OnnxModel(fake_model(header), header)
    samples = list(rendered_samples([(32, 64)], each=1, seed=0))
    proofs = write_proven(model, _tiny(), tmp_path / "fast.onnx", samples)
    assert "of pixels are within" in proofs[0].failures[0]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"written as \.onnx"):
        write_proven(model, _tiny(), tmp_path / "fast.xml", samples)


@pytest.mark.compile
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_any_size_and_batch_are_the_original(target: str, tmp_path: Path) -> None:
    model = _any_size() if target == "onnx" else to_openvino(_any_size())
    path = tmp_path / ("fast.onnx" if target == "onnx" else "fast.xml")
    proofs = write_proven(model, _tiny(), path, rendered_samples(_SIZES, each=1, seed=0))
    assert all(proof.failures == () for proof in proofs)
    assert proofs[0].judged
    assert proofs[0].parity.sizes == ("96x64", "131x77", "64x96")
    pairs = StereoPair.stack([sample.pair for sample in rendered_samples([(77, 131)], each=3, seed=0)])
    together = ExportedPredictor(path, batch_size=3)(pairs)
    torch.testing.assert_close(
        together.disparity, NetworkPredictor(_tiny().model)(pairs).disparity, atol=1e-2, rtol=0
    )


@pytest.mark.compile
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_eight_bits_are_made_but_not_judged_on_random_weights(target: str, tmp_path: Path) -> None:
    model = _any_size() if target == "onnx" else to_openvino(_any_size())
    int8 = with_precision(model, "int8", Calibration(pairs=2, size=(64, 96)))
    path = tmp_path / ("fast.onnx" if target == "onnx" else "fast.xml")
    samples = list(rendered_samples([(64, 96)], each=1, seed=0))
    with pytest.raises(ValueError, match="random weights have none"):
        write_proven(int8, _tiny(), path, samples)
    int8.write(path)
    assert not prove(path, _tiny(), samples)[0].judged
    steps = load(path)(samples[0].pair).disparity
    assert len(steps.unique()) > 0.5 * steps.numel()  # no terraces


@pytest.mark.compile
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_half_storage_halves_the_weights(target: str, tmp_path: Path) -> None:
    model = _any_size() if target == "onnx" else to_openvino(_any_size())
    suffix, weights = (".onnx", ".onnx") if target == "onnx" else (".xml", ".bin")
    sizes = []
    for precision in ("fp32", "fp16"):
        made = with_precision(model, precision)
        made.write(tmp_path / f"{precision}{suffix}")
        sizes.append((tmp_path / f"{precision}{weights}").stat().st_size)
    assert sizes[0] - sizes[1] > 1.8 * count_parameters(_tiny().model)  # of 2 bytes saved on each
    samples = list(rendered_samples([(64, 96)], each=1, seed=0))
    proofs = prove(tmp_path / f"fp16{suffix}", _tiny(), samples)
    assert proofs[0].parity.mean < 0.5
    tried = ["fp16", "bf16"] if target == "openvino" and bfloat16_computed() else ["fp16"]
    assert [proof.precision for proof in proofs] == tried


@pytest.mark.compile
def test_operators_that_cannot_be_exported_are_named() -> None:
    class Refusing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[: int(x.sum())]

    broken = random_original("fast", width=8, depth=1)
    broken.model.encoder.stem[0] = Refusing()  # pyright: ignore
    with pytest.raises(ValueError, match=r"fast cannot be exported for any size: \w+"):
        convert(broken, "onnx")


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch.compile's own imports
@pytest.mark.parametrize(
    ("kind", "device"), [("default", "cpu"), ("default", "cuda"), ("cudagraphs", "cuda")]
)
def test_compiled_networks_are_the_original(kind: Compile, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    plain = NetworkPredictor(_tiny().model, device=device)
    compiled = NetworkPredictor(_tiny().model, compile=kind, device=device)
    for sample in rendered_samples([(64, 96)], each=2, seed=0):  # graphs are recorded, then replayed
        expected, output = plain(sample.pair), compiled(sample.pair)
        torch.testing.assert_close(output.disparity, expected.disparity, atol=2e-3, rtol=0)
        torch.testing.assert_close(output.confidence, expected.confidence, atol=1e-4, rtol=0)
    assert compiled.runtime.endswith("compiled")


def test_cuda_graphs_need_cuda() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="CUDA graphs need a CUDA device, not cpu"):
        NetworkPredictor(_tiny().model, compile="cudagraphs")


_FETCH = """
<ir_version: 8, opset_import: ["": 17]>
fetch (float[1, 1, 2, 600] given, float[1, 1, 2, 600] features) => (float[1, 1, 2, 600] fetched)
<float[1, 1, 1, 1] one = {1.0}>
{
    start = Constant<value_float = 0.0>()
    stop = Constant<value_float = 600.0>()
    step = Constant<value_float = 1.0>()
    first = Constant<value_int = 0>()
    last = Constant<value_int = 599>()
    column = Range(start, stop, step)
    disparity = Conv(given, one)
    position = Sub(column, disparity)
    rounded = Floor(position)
    index = Cast<to: int = 7>(rounded)
    inside = Clip(index, first, last)
    found = GatherElements<axis: int = 3>(features, inside)
    fetched = Conv(found, one)
}
"""


def test_positions_stay_exact_where_the_rest_computes_in_bfloat16(tmp_path: Path) -> None:
    if not bfloat16_computed():
        pytest.skip("OpenVINO does not compute in bfloat16 on this processor")
    model = OnnxModel(onnx.parser.parse_model(_FETCH), ExportHeader(network="fast"))
    to_openvino(model).write(tmp_path / "fetch.xml")
    settings = {"INFERENCE_PRECISION_HINT": "bf16"}
    compiled = openvino.Core().compile_model(tmp_path / "fetch.xml", "CPU", settings)
    features = np.tile(np.arange(600, dtype=np.float32) % 2, (1, 1, 2, 1))
    fetched = compiled([np.full_like(features, 0.25), features])[0]
    np.testing.assert_array_equal(fetched[..., 1:], features[..., :-1])


def test_what_openvino_cannot_take_is_told_in_its_own_words() -> None:
    values = "float[1, 1, 2, 2, 2] volume, float[1, 2, 2, 2, 3] grid"
    graph = f'<ir_version: 9, opset_import: ["": 20]> cut ({values}) => (float[1, 1, 2, 2, 2] slice) '
    proto = onnx.parser.parse_model(graph + "{ slice = GridSample(volume, grid) }")
    with pytest.raises(ValueError, match="bgnet is not for OpenVINO: GridSample is only supported for 4D"):
        to_openvino(OnnxModel(proto, ExportHeader(network="bgnet")))
