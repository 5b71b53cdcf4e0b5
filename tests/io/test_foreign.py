"""Published checkpoints of every container are read; nothing in them is ever executed."""

from __future__ import annotations

import argparse
import functools
import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stereopsis.io.foreign import read_checkpoint

CONTAINERS = ("zip", "stream")


def network_state() -> OrderedDict[str, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()


def save(content: object, path: Path, container: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    return path


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> str:
    return request.param


# What published files look like.


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".tar", ".ckpt", ".pt"])
def test_the_container_is_told_by_content_not_by_name(tmp_path: Path, container: str, suffix: str) -> None:
    path = save(network_state(), tmp_path / f"weights{suffix}", container)
    assert_same(read_checkpoint(path), network_state())


@pytest.mark.parametrize("nest", ["state_dict", "model", "net", "model_state_dict", "params", "weights"])
def test_nests_beside_other_entries(tmp_path: Path, container: str, nest: str) -> None:
    content = {"epoch": 3, "best": 0.5, nest: network_state(), "optimizer": {"state": {0: torch.ones(3)}}}
    assert_same(read_checkpoint(save(content, tmp_path / "a.pth", container)), network_state())


def test_a_nest_within_a_nest_and_one_of_unknown_name(tmp_path: Path, container: str) -> None:
    twice = {"model": {"state_dict": network_state()}}
    assert_same(read_checkpoint(save(twice, tmp_path / "a.pth", container)), network_state())
    unknown = {"my_stereo": network_state(), "epoch": 1}
    assert_same(read_checkpoint(save(unknown, tmp_path / "b.pth", container)), network_state())


def test_prefixes_of_wrappers_are_removed(tmp_path: Path, container: str) -> None:
    wrapped = {f"module._orig_mod.module.{name}": value for name, value in network_state().items()}
    assert_same(read_checkpoint(save(wrapped, tmp_path / "a.pth", container)), network_state())
    inner = {"module.a.weight": torch.ones(2), "head.weight": torch.ones(3)}
    assert set(read_checkpoint(save(inner, tmp_path / "b.pth", container))) == set(inner)


def test_numbers_and_text_among_the_tensors_are_left_out(tmp_path: Path, container: str) -> None:
    content = {"weight": torch.ones(2), "epochs": 4, "note": "x", "nothing": None, "list": [1, 2]}
    assert_same(read_checkpoint(save(content, tmp_path / "a.pth", container)), {"weight": torch.ones(2)})


def test_every_number_format_and_shape(tmp_path: Path, container: str) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
    kinds += (torch.int16, torch.int8, torch.uint8, torch.bool)
    state = {str(kind): (torch.arange(6) % 2).to(kind).reshape(2, 3) for kind in kinds}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "strided": torch.arange(12.0)[1::3]}
    state |= {"transposed": torch.arange(6.0).view(2, 3).T, "parameter": nn.Parameter(torch.ones(2))}
    assert_same(read_checkpoint(save(state, tmp_path / "a.pth", container)), state)


def test_unsigned_formats_of_later_torch(tmp_path: Path) -> None:
    state = {"a": torch.tensor([1, 65535], dtype=torch.uint16)}
    assert_same(read_checkpoint(save(state, tmp_path / "a.pth", "zip")), state)


def test_views_of_one_storage_share_memory(tmp_path: Path, container: str) -> None:
    base = torch.arange(10.0)
    state = {"a": base[2:6], "b": base[4:10]}
    found = read_checkpoint(save(state, tmp_path / "a.pth", container))
    assert_same(found, state)
    found["a"][2] = 100
    assert found["b"][0] == 100


def test_python_attributes_of_tensors_are_dropped(tmp_path: Path, container: str) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.note = "kept by torch"  # type: ignore[attr-defined]
    found = read_checkpoint(save({"a": parameter}, tmp_path / "a.pth", container))
    assert torch.equal(found["a"], torch.ones(3))


def test_lightning_files_with_pickled_partials_and_config_objects(tmp_path: Path, container: str) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    content = {
        "epoch": 1,
        "state_dict": network_state(),
        "hyper_parameters": {
            "optimizer_partial": functools.partial(torch.optim.RMSprop, lr=1e-3),
            "scheduler_partial": functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
            "config": omegaconf.OmegaConf.create({"a": {"b": [1, 2.5, "c"]}, "path": None}),
            "args": argparse.Namespace(lr=0.1),
            "path": Path("/nowhere"),
            "counts": defaultdict(list, {"a": [1]}),
            "set": {1, 2},
            "device": torch.device("cpu"),
            "dtype": torch.float16,
            "size": torch.Size((1, 2)),
            "number": np.float64(2.5),
            "array": np.arange(3),
        },
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}, torch.optim.SGD: {"keyed by": "class"}},
    }
    assert_same(read_checkpoint(save(content, tmp_path / "a.ckpt", container)), network_state())


def test_a_file_written_by_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    state = {"a": torch.arange(5, dtype=torch.float32), "b": torch.arange(3, dtype=torch.int16)}
    path = save(state, tmp_path / "a.pth", "zip")
    swapped = tmp_path / "big.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(swapped, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if "/data/" in info.filename:
                kind = "f4" if len(data) == 20 else "i2"
                data = np.frombuffer(data, kind).byteswap().tobytes()
            new.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else data)
    assert_same(read_checkpoint(swapped), state)


# The tar archive of the first torch versions, which torch itself no longer writes.


def _tar_file(path: Path, tensor: Tensor, main: bytes | None = None) -> Path:
    """A checkpoint {"state_dict": {"w": tensor}} as torch 0.1.9 wrote it, tensor being 2-D float32."""

    def symbol(name: str) -> bytes:
        module, _, leaf = name.rpartition(".")
        return b"c" + module.encode() + b"\n" + leaf.encode() + b"\n"

    def entry(*parts: bytes) -> bytes:
        return b"\x80\x02(" + b"".join(parts) + b"t."

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    count = b"\x80\x02K\x01."
    data = tensor.contiguous().numpy().tobytes()
    storages = count + entry(b"K\x07", text("cpu"), symbol("torch.FloatStorage"))
    storages += struct.pack("<q", tensor.numel()) + data + b"\x80\x02]."
    tensors = count + entry(b"K\x09", b"K\x07", symbol("torch.FloatTensor"))
    tensors += struct.pack("<i4x", 2) + struct.pack("<5q", *tensor.shape, tensor.shape[1], 1, 0)
    tree = main or b"\x80\x02}" + text("state_dict") + b"}" + text("w") + b"K\x09Qss."
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (("storages", storages), ("tensors", tensors), ("pickle", tree)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_the_tar_format_before_torch_0_1_10(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).view(2, 3)
    assert_same(read_checkpoint(_tar_file(tmp_path / "a.pth", tensor)), {"w": tensor})


# Malicious pickles. Each must be refused by the name that it wants to call, and leave no trace.


def _with_pickle(path: Path, container: str, pickled: bytes) -> Path:
    """A checkpoint whose object is `pickled`, in the container's usual wrapping."""
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/data/0", b"\0" * 16)
    elif container == "stream":
        head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        head += pickle.dumps({"little_endian": True}, 2)
        path.write_bytes(head + pickled + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + b"\0" * 16)
    else:
        _tar_file(path, torch.ones(2, 2), pickled)
    return path


def _attacks(canary: str) -> dict[str, tuple[bytes, str]]:
    """name -> (pickle that would create the canary, the global that the refusal must name)."""
    command = f"touch {canary}".encode()
    argument = b"X" + struct.pack("<I", len(command)) + command
    python = f"open({canary!r}, 'w')".encode()
    code = b"X" + struct.pack("<I", len(python)) + python

    def short(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    state = pickle.dumps({"a": 1}, 2)[2:-1]
    return {
        "reduce": (b"\x80\x02cos\nsystem\n" + argument + b"\x85R.", "os.system"),
        "posix": (b"\x80\x02cposix\nsystem\n" + argument + b"\x85R.", "posix.system"),
        "subprocess": (b"\x80\x02csubprocess\nPopen\n" + argument + b"\x85R.", "subprocess.Popen"),
        "protocol 0": (b"cos\nsystem\n(S'" + command + b"'\ntR.", "os.system"),
        "inst": (b"(" + code + b"i__builtin__\neval\n.", "__builtin__.eval"),
        "obj": (b"\x80\x02(cbuiltins\nexec\n" + code + b"o.", "builtins.exec"),
        "newobj": (b"\x80\x02cbuiltins\neval\n" + code + b"\x85\x81.", "builtins.eval"),
        "newobj_ex": (b"\x80\x04cbuiltins\neval\n" + code + b"\x85}\x92.", "builtins.eval"),
        "stack_global": (
            b"\x80\x04" + short("os") + short("system") + b"\x93" + argument + b"\x85R.",
            "os.system",
        ),
        "dotted": (
            b"\x80\x04" + short("torch.optim") + short("Adam.__init__.__globals__") + b"\x93.",
            "torch.optim.Adam.__init__.__globals__",
        ),
        "dotted module": (
            b"\x80\x04" + short("collections") + short("OrderedDict.fromkeys") + b"\x93.",
            "collections.OrderedDict.fromkeys",
        ),
        "getattr": (b"\x80\x02cbuiltins\ngetattr\n.", "builtins.getattr"),
        "import": (b"\x80\x02c__builtin__\n__import__\n.", "__builtin__.__import__"),
        "optim's own import": (b"\x80\x02ctorch.optim\nos\n.", "torch.optim.os"),
        "torch.load again": (b"\x80\x02ctorch.serialization\nload\n.", "torch.serialization.load"),
        "torch.jit": (b"\x80\x02ctorch.jit\nload\n.", "torch.jit.load"),
        "torch.load of bytes": (
            b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
            "torch.storage._load_from_bytes",
        ),
        "torch hub": (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"),
        "wrapper subclass": (
            b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n.",
            "torch._utils._rebuild_wrapper_subclass",
        ),
        "whole module": (b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)\x81.", "torch.nn.modules.conv.Conv2d"),
        "numpy's exec": (
            b"\x80\x02cnumpy.testing._private.utils\nrunstring\n.",
            "numpy.testing._private.utils.runstring",
        ),
        "inside a state dict": (
            b"\x80\x02}" + argument + b"cos\nsystem\n" + argument + b"\x85Rs.",
            "os.system",
        ),
        "below a build": (b"\x80\x02ccollections\nOrderedDict\n)R" + state + b"0cos\nsystem\n.", "os.system"),
        "setstate": (b"\x80\x02cfunctools\npartial\n)R(cos\nsystem\n" + argument + b"\x85}Ntb.", "os.system"),
        "newline in a name": (
            b"\x80\x04" + short("functools\nos") + short("partial") + b"\x93.",
            "functools\\nos",
        ),
    }


@pytest.mark.parametrize("container", [*CONTAINERS, "tar"])
@pytest.mark.parametrize("attack", _attacks(""))
def test_a_malicious_pickle_is_refused_by_name(tmp_path: Path, container: str, attack: str) -> None:
    canary = tmp_path / "canary"
    pickled, name = _attacks(str(canary))[attack]
    path = _with_pickle(tmp_path / "evil.pth", container, pickled)
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    assert not canary.exists()
    assert str(path) in str(caught.value)
    assert name in str(caught.value)


ABUSES: dict[str, bytes] = {
    "extension registry": b"\x80\x02\x82\x01)R.",
    "extension of four bytes": b"\x80\x02\x84\x01\0\0\0.",
    "persistent id of text": b"\x80\x02X\x03\0\0\0abcQ.",
    "persistent id of protocol 0": b"Pstorage\n.",
    "persistent module": b"\x80\x02(X\x06\0\0\0moduleNNNtQ.",
    "calling a placeholder": b"\x80\x02cfunctools\npartial\n)R)R.",
    "calling text": b"\x80\x02X\x02\0\0\0os)R.",
    "changing a class": b"\x80\x02cfunctools\npartial\n}b.",
    "empty stack": b"\x80\x020.",
    "reduce of nothing": b"\x80\x02R.",
    "mark never opened": b"\x80\x02t.",
    "memo never stored": b"\x80\x02h\x07.",
    "huge memo index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "tuple of tuples as a key": b"\x80\x02})\x85\x85Ns.",
    "dictionary as a key": b"\x80\x02}}Ns.",
    "huge integer": b"\x80\x02\x8b\0\0\x01\0" + b"\x7f" * 65536 + b".",
    "recursion": b"\x80\x02" + b"(" * 5_000 + b"N" + b"t" * 5_000 + b".",
    "nested lists": b"\x80\x02" + b"]" * 5_000 + b"a" * 4_999 + b".",
    "a dictionary in itself": b"\x80\x02}q\0X\x05\0\0\0modelh\0s.",
    "bytes beyond memory": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "text beyond the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "integer of text": b"I" + b"9" * 100_000 + b"\n.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "tensor without a storage": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0))tR.",
    "rebuild with a symbol": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cfunctools\npartial\nN)tR.",
    "rebuild within rebuild": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\0(h\0Nh\0NN\x87tR.",
}


@pytest.mark.parametrize("container", [*CONTAINERS, "tar"])
@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abusive_pickle_is_one_sentence(tmp_path: Path, container: str, abuse: str) -> None:
    path = _with_pickle(tmp_path / "evil.pth", container, ABUSES[abuse])
    with pytest.raises(ValueError, match=r"evil\.pth"):
        read_checkpoint(path)


def test_a_pickle_of_endless_steps_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stereopsis.io.pickles.MAX_STEPS", 1000)
    path = _with_pickle(tmp_path / "evil.pth", "zip", b"\x80\x02" + b"N0" * 1000 + b"N.")
    with pytest.raises(ValueError, match="steps"):
        read_checkpoint(path)


# Tensors that reach outside their storages: FloatStorage "0" has 4 elements.


def _tensor_pickle(*, numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    identifier = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    identifier += pickle.dumps(numel, 2)[2:-1]
    rest = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identifier
    return b"\x80\x02}X\x01\0\0\0w" + tensor + b"tQ" + rest + b"\x89}tRs."


GEOMETRY = {
    "offset beyond": {"numel": 4, "offset": 4, "size": (1,), "stride": (1,)},
    "stride beyond": {"numel": 4, "offset": 0, "size": (2, 2), "stride": (3, 2)},
    "size beyond": {"numel": 4, "offset": 0, "size": (5,), "stride": (1,)},
    "expanded beyond memory": {"numel": 4, "offset": 0, "size": (2**40,), "stride": (0,)},
    "negative size": {"numel": 4, "offset": 0, "size": (-1,), "stride": (1,)},
    "negative stride": {"numel": 4, "offset": 3, "size": (2,), "stride": (-1,)},
    "negative offset": {"numel": 4, "offset": -1, "size": (2,), "stride": (1,)},
    "overflow": {"numel": 4, "offset": 0, "size": (2**40, 2**40), "stride": (2**40, 1)},
    "unequal ranks": {"numel": 4, "offset": 0, "size": (2, 2), "stride": (1,)},
    "storage larger than its bytes": {"numel": 5, "offset": 0, "size": (4,), "stride": (1,)},
    "absurd storage": {"numel": 2**60, "offset": 0, "size": (4,), "stride": (1,)},
    "negative storage": {"numel": -4, "offset": 0, "size": (4,), "stride": (1,)},
}


@pytest.mark.parametrize("case", GEOMETRY)
def test_tensors_outside_their_storage_are_refused(tmp_path: Path, container: str, case: str) -> None:
    path = _with_pickle(tmp_path / "evil.pth", container, _tensor_pickle(**GEOMETRY[case]))
    with pytest.raises(ValueError, match=r"evil\.pth"):
        read_checkpoint(path)


def test_the_same_tensor_inside_its_storage_is_read(tmp_path: Path, container: str) -> None:
    pickled = _tensor_pickle(numel=4, offset=0, size=(2, 2), stride=(2, 1))
    found = read_checkpoint(_with_pickle(tmp_path / "good.pth", container, pickled))
    assert_same(found, {"w": torch.zeros(2, 2)})


# Zip tricks.


def _zip(path: Path, entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


_GOOD = _tensor_pickle(numel=4, offset=0, size=(4,), stride=(1,))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("a/data.pkl", _GOOD), ("a/../../data/0", b"\0" * 16)], "outside"),
        ([("a/data.pkl", _GOOD), ("/etc/data/0", b"\0" * 16)], "outside"),
        ([("a/data.pkl", _GOOD), ("a\\..\\data", b"\0" * 16)], "outside"),
        ([("a/data.pkl", _GOOD), ("c:/data/0", b"\0" * 16)], "outside"),
        ([("a/data.pkl", _GOOD), ("b/data.pkl", _GOOD), ("a/data/0", b"\0" * 16)], "no single data.pkl"),
        ([("a/data.pkl", _GOOD)], "missing"),
        ([("a/data.pkl", _GOOD), ("a/data/0", b"\0" * 15)], "15 bytes"),
        ([("a/data.pkl", _GOOD), ("a/data/0", b"\0" * 1600)], "1600 bytes"),
        ([("a/data.pkl", _GOOD), ("a/data/0", b"\0" * 16), ("a/byteorder", b"odd")], "byte order"),
        ([("a/data.pkl", _GOOD), ("a/constants.pkl", b"."), ("a/data/0", b"\0" * 16)], "TorchScript"),
        ([("a/readme.txt", b"hello")], "no single data.pkl"),
    ],
)
def test_zip_tricks_are_refused(tmp_path: Path, entries: list[tuple[str, bytes]], said: str) -> None:
    path = _zip(tmp_path / "evil.pth", entries)
    with pytest.raises(ValueError, match=said) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = _zip(
            tmp_path / "evil.pth",
            [("a/data.pkl", _GOOD), ("a/data/0", b"\0" * 16), ("a/data/0", b"\1" * 16)],
        )
    with pytest.raises(ValueError, match="twice"):
        read_checkpoint(path)


def test_a_compressed_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    path = _zip(
        tmp_path / "evil.pth", [("a/data.pkl", _GOOD), ("a/data/0", bytes(2**24))], zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ValueError, match="compressed"):
        read_checkpoint(path)


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "evil.pth", [("a/data.pkl", _GOOD), *((f"a/data/{k}", bytes(64)) for k in "01")])
    data = bytearray(path.read_bytes())
    first, second = (data.index(name, data.index(b"PK\x01\x02")) for name in (b"a/data/0", b"a/data/1"))
    size = len(data) - 100
    for place in (first, second):  # the central directory's sizes lie 26 bytes before the name
        data[place - 26 : place - 18] = struct.pack("<2I", size, size)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="overlap"):
        read_checkpoint(path)


def test_a_changed_byte_of_a_storage_fails_its_check_sum(tmp_path: Path) -> None:
    path = save({"w": torch.full((64,), 3.0)}, tmp_path / "a.pth", "zip")
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<f", 3.0) * 64) + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(path)


# What is no checkpoint, and what is a damaged one.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello, I am text", "does not start like"),
        (b"<!DOCTYPE html><html>", "does not start like"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        (struct.pack("<Q", 2) + b"{}", r"name it \.safetensors"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
        (b"PK\x03\x04 and no more", "damaged"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3}, "no named tensors"),
        ([torch.ones(1)], "found list"),
        (torch.ones(3), "found LazyTensor"),
        ({"encoder": {"w": torch.ones(1)}, "decoder": {"w": torch.ones(1)}}, "2 places"),
        ({3: torch.ones(1)}, "not text"),
        ({"w": torch.ones(1), "more": {"v": torch.ones(1)}}, "beside other tensors"),
        ({"a._orig_mod.w": torch.ones(1), "a.w": torch.ones(1)}, "both called"),
    ],
)
def test_files_without_one_state_dict(tmp_path: Path, container: str, content: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_checkpoint(save(content, tmp_path / "a.pth", container))


def _samples(folder: Path) -> dict[str, bytes]:
    content = {"epoch": 3, "state_dict": network_state(), "lr": functools.partial(torch.optim.Adam, lr=1)}
    files = {name: save(content, folder / f"{name}.pth", name) for name in CONTAINERS}
    files["tar"] = _tar_file(folder / "tar.pth", torch.ones(2, 3))
    return {name: path.read_bytes() for name, path in files.items()}


def _reads_or_refuses(path: Path) -> None:
    """Every other exception fails the test, and so does a fault of ours that would pass for damage."""
    refusal = ""
    try:
        state = read_checkpoint(path)
    except ValueError as error:
        refusal = str(error)
    else:
        assert all(isinstance(tensor, Tensor) for tensor in state.values())
    assert not refusal or str(path) in refusal
    assert "Type-check" not in refusal


@pytest.mark.parametrize("container", [*CONTAINERS, "tar"])
def test_truncation_anywhere_is_one_sentence(tmp_path: Path, container: str) -> None:
    data = _samples(tmp_path)[container]
    path = tmp_path / "cut.pth"
    meaningful = len(data) if container != "tar" else 512 * 9
    for length in np.unique(np.linspace(1, meaningful - 1, 80).astype(int)):
        path.write_bytes(data[:length])
        if container == "tar":
            _reads_or_refuses(path)  # the end of the archive is padding
            continue
        with pytest.raises(ValueError, match=r"cut\.pth"):
            read_checkpoint(path)


@pytest.mark.parametrize("container", [*CONTAINERS, "tar"])
@pytest.mark.parametrize("change", ["flip", "cut and paste"])
def test_random_damage_never_escapes(tmp_path: Path, container: str, change: str) -> None:
    data = _samples(tmp_path)[container]
    rng = np.random.default_rng(7)
    path = tmp_path / "damaged.pth"
    changes: dict[str, Callable[[bytearray], None]] = {"flip": _flip(rng), "cut and paste": _paste(rng)}
    for _ in range(150):
        damaged = bytearray(data)
        changes[change](damaged)
        path.write_bytes(damaged)
        _reads_or_refuses(path)


def _flip(rng: np.random.Generator) -> Callable[[bytearray], None]:
    def flip(data: bytearray) -> None:
        for place in rng.integers(0, len(data), rng.integers(1, 5)):
            data[place] = rng.integers(0, 256)

    return flip


def _paste(rng: np.random.Generator) -> Callable[[bytearray], None]:
    def paste(data: bytearray) -> None:
        start, end, target = rng.integers(0, len(data), 3)
        data[target:target] = data[min(start, end) : max(start, end)]

    return paste
