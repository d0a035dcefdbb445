"""Pickled records: arrays and plain data come back equal, anything else is refused and did not run."""

from __future__ import annotations

import argparse
import builtins
import os
import pickle
import sys
import types
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nrccr.errors import UserError
from nrccr.safeload import standins
from nrccr.safeload.unpickle import load_checkpoint, load_records

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(4, dtype=np.float16)[::2],
    np.array([[True, False]]),
    np.arange(3, dtype=">i4"),
    np.array([1 + 2j]),
    np.zeros((0, 4), dtype=np.float32),
]


class Reduced:
    """Pickles as a call of `function` with `arguments`: the usual attack."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def one_line(path: Path) -> str:
    """The refusal of `path`, which must be one line that names the file."""
    with pytest.raises(UserError) as caught:
        load_records(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_plain_data_come_back_equal(protocol: int, tmp_path: Path) -> None:
    plain = {"id": "video0", "caption_zh": ["人在跑", ""], "n": 3, "t": (1.5, None), "b": b"\x00\xff"}
    records = [plain | {f"a{index}": array for index, array in enumerate(ARRAYS)}, {"id": "video1"}]
    loaded = load_records(write(tmp_path / "r.pkl", records, protocol))
    assert len(loaded) == 2 and {key: loaded[0][key] for key in plain} == plain and loaded[1] == {"id": "video1"}
    for index, array in enumerate(ARRAYS):
        found = loaded[0][f"a{index}"]
        assert found.dtype == array.dtype and found.shape == array.shape and np.array_equal(found, array)


def test_arrays_that_python_2_wrote(tmp_path: Path) -> None:
    """Its bytes are short text, in Latin-1."""
    raw = np.array([-1.5, 2.0], "<f4").tobytes()
    assert max(raw) > 127
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    kind = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    filled = b"(K\x01K\x02\x85" + kind + b"\x89U\x08" + raw + b"tb"
    (tmp_path / "r.pkl").write_bytes(b"\x80\x02]}U\x01a" + made + filled + b"sa.")
    (record,) = load_records(tmp_path / "r.pkl")
    np.testing.assert_array_equal(record["a"], np.array([-1.5, 2.0], np.float32), strict=True)


def test_the_module_names_of_older_and_newer_numpy(tmp_path: Path) -> None:
    pickled = pickle.dumps([{"a": ARRAYS[0], "n": np.float32(2)}], protocol=2)
    assert (b"numpy._core." in pickled) != (b"numpy.core." in pickled)
    for theirs in (b"numpy.core.", b"numpy._core."):
        path = tmp_path / "r.pkl"
        path.write_bytes(pickled.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", theirs))
        (record,) = load_records(path)
        assert np.array_equal(record["a"], ARRAYS[0]) and record["n"] == 2.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_attacks_are_refused_and_do_nothing(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attacks = {
        "system": Reduced(os.system, f"touch {marker}"),
        "eval": Reduced(builtins.eval, f"open({str(marker)!r}, 'w')"),
        "open": Reduced(builtins.open, str(marker), "w"),
        "getattr": Reduced(getattr, "x", "upper"),
        "Fraction": Fraction(1, 2),
        "Namespace": argparse.Namespace(a=1),
        "ndarray": np.array([{}], dtype=object),
    }
    for name, attack in attacks.items():
        message = one_line(write(tmp_path / "bad.pkl", [{"id": "a", "x": attack}], protocol))
        assert ("numpy type 'O8' is not a number" if name == "ndarray" else "refused") in message
    assert not marker.exists()


def test_a_function_cannot_be_changed_or_kept(tmp_path: Path) -> None:
    before = standins.scalar.__defaults__, dict(standins.scalar.__dict__)
    name = b"cnumpy.core.multiarray\nscalar\n"
    for tail in (b"N}X\x0c\x00\x00\x00__defaults__)s\x86b", b"}X\x01\x00\x00\x00aK\x01sb", b""):
        path = tmp_path / "build.pkl"
        path.write_bytes(b"\x80\x02]}X\x01\x00\x00\x00f" + name + tail + b"sa.")
        one_line(path)
    assert before == (standins.scalar.__defaults__, dict(standins.scalar.__dict__))


def test_truncated_anywhere_is_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps([{"id": "a", "2d": ARRAYS[0]}], protocol=4)
    for length in range(len(whole)):
        (tmp_path / "t.pkl").write_bytes(whole[:length])
        one_line(tmp_path / "t.pkl")


def test_another_kind_of_file(tmp_path: Path) -> None:
    for value in ([], {}, [1], [[1]], "text"):
        assert "list of dicts" in one_line(write(tmp_path / "other.pkl", value))
    (tmp_path / "text.pkl").write_text("hello\n")
    one_line(tmp_path / "text.pkl")
    assert "no such file" in one_line(tmp_path / "none.pkl")


def test_a_checkpoint_with_a_foreign_config_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("parse_config")
    foreign = type("ConfigParser", (), {"__module__": "parse_config"})
    module.ConfigParser = foreign
    monkeypatch.setitem(sys.modules, "parse_config", module)
    config = foreign()
    config.__dict__.update(_config={"arch": {"type": "M"}}, _save_dir=Path("/out/models"), args=argparse.Namespace(n=1))
    torch.save({"config": config, "relative": Path("a/b"), "epoch": 2}, tmp_path / "latest_model.pth")
    monkeypatch.delitem(sys.modules, "parse_config")
    assert load_checkpoint(tmp_path / "latest_model.pth") == {
        "config": {"_config": {"arch": {"type": "M"}}, "_save_dir": "/out/models", "args": {"n": 1}},
        "relative": "a/b",
        "epoch": 2,
    }
