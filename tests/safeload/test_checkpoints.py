"""The safe door: what it lets in equals what was saved; what could run code is refused and did not run."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pickle
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.errors import UserError
from nrccr.safeload import unpickle
from nrccr.safeload.unpickle import load_array, load_checkpoint, load_weights, save_weights


def one_line(path: Path) -> str:
    """The refusal of `path`, which must be one line that names the file."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def checkpoint_of(pickled: bytes, path: Path) -> Path:
    """A torch zip file around pickle bytes of our choice."""
    whole = io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
    return path


class Reduced:
    """Pickles as a call of `function` with `arguments`: the usual attack."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_plain_data_and_tensors_come_back_equal(tmp_path: Path) -> None:
    inner = argparse.Namespace(layers=[0, 1536], scale=1.5)
    model = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), bias=torch.nn.Parameter(torch.ones(3)))
    torch.save(
        {
            "epoch": 3,
            "opt": argparse.Namespace(name="x", flag=False, nested=inner, many=[{"inner": inner}]),
            "model": [model, (torch.tensor(2), None)],
            "state": (1 << 100, b"raw", {"a"}, Counter("aab")),
        },
        tmp_path / "c.pt",
    )
    loaded = load_checkpoint(tmp_path / "c.pt")
    plain = {"layers": [0, 1536], "scale": 1.5}
    assert loaded["opt"] == {"name": "x", "flag": False, "nested": plain, "many": [{"inner": plain}]}
    assert loaded["epoch"] == 3 and loaded["state"] == (1 << 100, b"raw", {"a"}, {"a": 2, "b": 1})
    weights, (two, nothing) = loaded["model"]
    assert type(weights) is dict and type(loaded["opt"]) is dict and type(loaded["opt"]["nested"]) is dict
    assert torch.equal(weights["weight"], model["weight"]) and two.item() == 2 and nothing is None
    assert type(weights["bias"]) is torch.Tensor and not weights["bias"].requires_grad


def test_older_format(tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    saved = {"opt": argparse.Namespace(a=1), "model": torch.arange(4), "best": np.float64(0.5)}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    loaded = load_checkpoint(path)
    assert loaded["opt"] == {"a": 1} and loaded["best"] == 0.5 and torch.equal(loaded["model"], torch.arange(4))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize(
    "value", [np.float64(224.33), np.float32(0.1), np.int64(-7), np.uint8(200), np.bool_(True), np.dtype(">f4").type(3)]
)
def test_numpy_numbers_under_both_module_names(module: str, value: Any, tmp_path: Path) -> None:
    pickled = pickle.dumps({"best": value}, protocol=2)
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert any(name in pickled for name in names)
    for name in names:
        pickled = pickled.replace(name, f"c{module}\n".encode())
    best = load_checkpoint(checkpoint_of(pickled, tmp_path / "n.pt"))["best"]
    assert best == value.item() and type(best) is type(value.item())


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_arrays_under_both_module_names(core: str, zipped: bool, tmp_path: Path) -> None:
    arrays = {
        "floats": np.arange(6.0).reshape(2, 3),
        "by column": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4), np.float32),
        "one": np.array(3.5),
    }
    path = tmp_path / "a.pt"
    if zipped:
        pickled = pickle.dumps({"extra": [arrays]}, protocol=2)
        for name in (b"numpy._core", b"numpy.core"):
            pickled = pickled.replace(b"c" + name + b".", f"c{core}.".encode())
        checkpoint_of(pickled, path)
    else:
        torch.save({"extra": [arrays]}, path, _use_new_zipfile_serialization=False)
    (found,) = load_checkpoint(path)["extra"]
    for name, array in arrays.items():
        assert type(found[name]) is np.ndarray and found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape and np.array_equal(found[name], array), name


def numpy_array(shape: bytes, dtype: bytes = b"f4", content: bytes = b"") -> bytes:
    """A checkpoint's pickle with an array that says what it likes."""
    made = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85X\x01\x00\x00\x00btR"
    kind = b"cnumpy\ndtype\n(X" + len(dtype).to_bytes(4, "little") + dtype + b"\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNJ"
    kind += b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = b"c_codecs\nencode\n(X" + len(content).to_bytes(4, "little") + content + b"X\x06\x00\x00\x00latin1tR"
    return b"\x80\x02}X\x01\x00\x00\x00a" + made + b"(K\x01" + shape + kind + b"\x89" + raw + b"tbs."


def test_the_array_that_a_test_writes_is_one(tmp_path: Path) -> None:
    whole = checkpoint_of(numpy_array(b"K\x02\x85", content=b"abcdefgh"), tmp_path / "a.pt")
    assert load_checkpoint(whole)["a"].tobytes() == b"abcdefgh"


@pytest.mark.parametrize(
    ("shape", "dtype", "content"),
    [
        (b"J\xff\xff\xff\x7f\x85", b"f4", b"abcdefgh"),  # two billion entries in eight bytes
        (b"K\x00J\xff\xff\xff\x7f\x86", b"f4", b""),  # none, of two billion columns
        (b"K\x02\x85", b"O8", b"abcdefghabcdefgh"),  # pointers
        (b"K\x02\x85", b"V4", b"abcdefgh"),
        (b"K\x01\x85", b"f4,f4", b"abcdefgh"),  # two numbers an entry
        (b"X\x01\x00\x00\x00x", b"f4", b"abcdefgh"),
    ],
)
def test_arrays_that_are_none_are_one_line(shape: bytes, dtype: bytes, content: bytes, tmp_path: Path) -> None:
    one_line(checkpoint_of(numpy_array(shape, dtype, content), tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "value",
    [
        b"cnumpy\nndarray\n",
        b"cnumpy\nndarray\n)R",
        b"cnumpy\nndarray\nK\x05\x85R",
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"cnumpy._core.multiarray\n_reconstruct\n(NNNtR",
    ],
)
def test_arrays_that_are_never_filled_are_one_line(value: bytes, tmp_path: Path) -> None:
    one_line(checkpoint_of(b"\x80\x02}X\x01\x00\x00\x00a" + value + b"s.", tmp_path / "a.pt"))


def test_numpy_dtype_with_byte_order(tmp_path: Path) -> None:
    pickled = pickle.dumps({"native": np.dtype("f4"), "big": np.dtype(">i8")}, protocol=2)
    assert load_checkpoint(checkpoint_of(pickled, tmp_path / "d.pt")) == {"native": "float32", "big": ">i8"}


def test_numpy_object_number_is_refused(tmp_path: Path) -> None:
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR"
    one_line(checkpoint_of(b"\x80\x02cnumpy.core.multiarray\nscalar\n(" + dtype + b"K\x01tR.", tmp_path / "o.pt"))


def hostile(marker: Path) -> dict[str, tuple[Any, str]]:
    """Attacks that would make `marker`, each with the name its refusal must give."""
    shell = Reduced(os.system, f"touch {marker}")
    return {
        "reduce": ({"model": [shell]}, "posix.system"),
        "in namespace": ({"opt": argparse.Namespace(a=1, b=argparse.Namespace(c=shell))}, "posix.system"),
        "eval": ({"a": Reduced(builtins.eval, f"open({str(marker)!r}, 'w')")}, "eval"),
        "exec": ({"a": Reduced(builtins.exec, f"open({str(marker)!r}, 'w')")}, "exec"),
        "open": ({"a": Reduced(builtins.open, str(marker), "w")}, "open"),
        "getattr": ({"a": Reduced(getattr, "x", "upper")}, "getattr"),
        "class": ({"a": Fraction(1, 2)}, "fractions.Fraction"),
    }


@pytest.mark.parametrize("kind", list(hostile(Path())))
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_attacks_are_refused_and_do_nothing(kind: str, zipped: bool, protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "bad.pt"
    content, name = hostile(marker)[kind]
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing beside the one line
        message = one_line(path)
    assert not marker.exists()
    if protocol == 2:  # torch's restricted unpickler reads no later protocol's names
        assert name in message and "refused" in message


@pytest.mark.parametrize("module", [b"posix", b"os", b"subprocess", b"nt"])
def test_bare_pickle_with_a_global(module: bytes, tmp_path: Path) -> None:
    path, marker = tmp_path / "bare.pth.tar", tmp_path / "ran"
    path.write_bytes(b"c" + module + b"\nsystem\n(S'touch " + bytes(marker) + b"'\ntR.")
    assert "refused" in one_line(path) and not marker.exists()


def test_the_attack_would_have_worked(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Reduced(os.system, f"touch {marker}"), protocol=2))
    assert marker.exists()


def test_functions_as_values_are_refused(tmp_path: Path) -> None:
    path = checkpoint_of(b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\ns.", tmp_path / "f.pt")
    assert "_rebuild_tensor_v2" in one_line(path)


def test_what_others_marked_as_safe_stays_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": Fraction(1, 2)}, tmp_path / "p.pt")
    torch.save({"a": argparse.Namespace(b=1)}, tmp_path / "own.pt")
    marked = torch.serialization.get_safe_globals()
    assert load_checkpoint(tmp_path / "own.pt") == {"a": {"b": 1}}
    assert set(torch.serialization.get_safe_globals()) == set(marked), "ours stay inside"
    with torch.serialization.safe_globals([Fraction]):
        assert torch.load(tmp_path / "p.pt", weights_only=True) == {"a": Fraction(1, 2)}
        within = torch.serialization.get_safe_globals()
        assert load_checkpoint(tmp_path / "own.pt") == {"a": {"b": 1}}
        assert set(torch.serialization.get_safe_globals()) == set(within)
        one_line(tmp_path / "p.pt")
        monkeypatch.setattr(unpickle, "scan_checkpoint", lambda *_: None)  # the second wall alone
        one_line(tmp_path / "p.pt")
        assert set(torch.serialization.get_safe_globals()) == set(within)
    assert set(torch.serialization.get_safe_globals()) == set(marked)


def test_shared_values_stay_shared(tmp_path: Path) -> None:
    for inner in ([torch.ones(2)], {"c": torch.ones(2)}, (torch.ones(2),)):
        torch.save({"a": inner, "b": [inner, inner]}, tmp_path / "l.pt")
        loaded = load_checkpoint(tmp_path / "l.pt")
        assert loaded["a"] is loaded["b"][0] is loaded["b"][1]
        assert type(loaded["a"]) is type(inner)


def test_loops_and_endless_sharing_are_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    values: dict[str, Any] = {"loop": loop}
    twice: dict[str, Callable[[Any], Any]] = {
        "lists": lambda inner: [inner, inner],
        "tuples": lambda inner: (inner, inner),
        "dicts": lambda inner: {"a": inner, "b": inner},
    }
    for name, made in twice.items():
        values[name] = made([])
        for _ in range(60):  # 2**60 leaves if each were walked
            values[name] = made(values[name])
    for name, value in values.items():
        torch.save({"opt": value}, tmp_path / f"{name}.pt")
        assert "values that hold" in one_line(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_anywhere_is_one_line(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.pt"
    torch.save({"w": torch.zeros(50), "o": argparse.Namespace(a=1)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        one_line(path)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello\n")
    (tmp_path / "code.pt").write_text("import os\n")
    torch.save([1, 2], tmp_path / "list.pt")
    one_line(tmp_path / "text.pt")
    one_line(tmp_path / "code.pt")
    assert "list" in one_line(tmp_path / "list.pt")
    assert "no such file" in one_line(tmp_path / "missing.pt")
    assert "not a file" in one_line(tmp_path)


def test_golden_checkpoint(shared: Path) -> None:
    loaded = load_checkpoint(shared / "golden/nrccr_video/runs_0/model_best.pth.tar")
    assert type(loaded["opt"]) is dict and loaded["opt"]["model_type"] == "video"
    assert [type(part) for part in loaded["model"]] == [dict] * 5
    assert all(isinstance(tensor, torch.Tensor) for part in loaded["model"] for tensor in part.values())


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    table = torch.randn(4, 3)
    state = {"a": table, "tied": table, "column": table.T, "half": torch.ones(2).bfloat16(), "steps": torch.tensor(5)}
    path = tmp_path / "deep" / "model.safetensors"
    save_weights(state, path)
    loaded = load_weights(path)
    assert loaded.keys() == state.keys() and os.listdir(path.parent) == ["model.safetensors"]
    assert all(torch.equal(loaded[name], state[name]) and loaded[name].dtype == state[name].dtype for name in state)


def test_damaged_weights_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights({"a": torch.zeros(100)}, path)
    whole = path.read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="safetensors") as caught:
            load_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        load_weights(tmp_path / "none.safetensors")


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.array([[True, False]]),
    np.arange(3, dtype=">i4"),
    np.arange(4, dtype=np.float16)[::2],
    np.array([1 + 2j]),
    np.zeros((0, 4)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_equal(array: Any, tmp_path: Path) -> None:
    files = [tmp_path / "a.npy", tmp_path / "one.npz", tmp_path / "many.npz", tmp_path / "last.npz"]
    np.save(files[0], array)
    np.savez(files[1], anything=array)
    np.savez(files[2], scores=array, ids=np.array(["a"]))
    np.savez(files[3], ids=np.array(["a"]), scores=array)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        files.append(tmp_path / f"protocol{protocol}.pkl")
        files[-1].write_bytes(pickle.dumps(array, protocol=protocol))
        files.append(tmp_path / f"numpy1_protocol{protocol}.pkl")
        old = pickle.dumps(array, protocol=0).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        files[-1].write_bytes(old)
    for file in files:
        found = load_array(file)
        assert np.array_equal(found, array) and found.shape == array.shape and found.flags.writeable
        assert found.dtype == array.dtype.newbyteorder("=")  # torch takes no other order of bytes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Reduced(os.system, "touch HACKED")), "refused"),
        (pickle.dumps(Reduced(builtins.eval, "open('HACKED', 'w')")), "refused"),
        (pickle.dumps(np.array([Reduced(os.system, "touch HACKED")], dtype=object)), "refused"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(I0\ntS'b'\ntR.", "refused"),
        (b"cnumpy\nload\n(S'x'\ntR.", "refused"),
        (pickle.dumps([np.zeros(2)]), "holds a list"),
        (pickle.dumps({"a": 1}), "holds a dict"),
        (pickle.dumps(np.array(["text"])), "cannot be read"),
        (pickle.dumps(ARRAYS[0])[:-30], "cannot be read"),
        (b"cnumpy\nndarray\n(tR.", "cannot be read"),  # never filled
        (b"cnumpy\nndarray\n.", "holds a Call"),
        (b"", "cannot be read"),
        (b"garbage", "cannot be read"),
    ],
)
def test_what_is_no_array_is_refused(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        load_array(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.pkl"]


def test_numpy_files_of_other_things_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    for name, words in (
        ("object.npy", "cannot be read"),
        ("text.npy", "holds an array of <U1"),
        ("two.npz", "arrays a, b; keep one, or name it scores"),
        ("missing.npy", "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            load_array(tmp_path / name)
