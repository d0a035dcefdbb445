"""What the fuzzer, the properties and a reading of the parsers found: each stays fixed."""

from __future__ import annotations

import json
import struct
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nrccr.config.yaml import parse_override
from nrccr.data.bigfile import BigFile
from nrccr.data.captions import read_captions
from nrccr.data.generated.collection import read_recipe
from nrccr.data.pixels import load_preprocessor
from nrccr.data.trial import MAX_SIDE
from nrccr.errors import UserError
from nrccr.evaluation.banks import read_bank
from nrccr.features.pictures import pictures_of
from nrccr.files import digest_of, read_json
from nrccr.report.noise import read_metrics
from nrccr.safeload.unpickle import load_records
from nrccr.sizes import SizeError, require_npz
from nrccr.systems.c2kd.convert import convert_c2kd
from nrccr.systems.loading import load_retriever
from nrccr.systems.settings import load_config
from nrccr.training.runfolder import RunFolder
from tests.conftest import Command
from tests.hostile import readers, samples
from tests.hostile.corpus import HEAD, nested_tuple
from tests.hostile.test_properties import limited
from tests.systems.c2kd.test_convert import frames, write


def refused(name: str, data: bytes, folder: Path, says: str = "") -> None:
    """A parser of the table refuses these bytes, soon and without memory."""
    with limited(name):
        found = readers.parse(name, data, folder / "files")
    assert isinstance(found, UserError) and says in str(found), found


def test_an_override_with_a_line_end_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^override a\\nb=\[: not valid YAML") as caught:
        parse_override("a\nb=[")
    assert "\n" not in str(caught.value)


# Twenty zeros, then the place: the scan read the zeros, the unpickler made room for 27 million values.
PLACES = [b"]p" + b"0" * 20 + b"26843545\n.", b"]p" + b"0" * 30 + b"1\n.", b"]q\x00g" + b"0" * 21 + b"\n."]


@pytest.mark.parametrize("content", PLACES)
def test_a_place_of_many_digits_is_refused(content: bytes, tmp_path: Path) -> None:
    refused("records", content, tmp_path, "digits")


@pytest.mark.parametrize("name", ["records", "array-pickle", "checkpoint-older"])
def test_a_nested_tuple_for_a_name_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """To write it out, for the message, would never end."""
    refused(name, HEAD + nested_tuple() + b"X\x01\x00\x00\x00a\x93.", tmp_path)
    refused(name, HEAD + b"X\x01\x00\x00\x00a" + nested_tuple() + b"\x93.", tmp_path)


@pytest.mark.parametrize("value", [r"\0", r"\ud800", "a" * 5000])
def test_extends_that_no_file_can_have(value: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f'extends: "{value}"\n')
    with pytest.raises(UserError, match="not valid YAML: a character|cannot read this configuration"):
        load_config(tmp_path / "c.yaml")


def test_links_in_a_circle_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(UserError, match="cannot read this configuration"):
        load_config(tmp_path / "a.yaml")


def test_a_shape_of_thousands_of_digits(tmp_path: Path) -> None:
    refused("bigfile-shape", b"9" * 4000 + b" " + b"9" * 4000, tmp_path, "two positive integers")
    with pytest.raises(UserError, match="no such feature folder"):
        BigFile(tmp_path / "none")


DAMAGED = [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 400 + b"}", b'{"a": 1e999']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="; do this"):
        read_json(path, "do this")
    (tmp_path / "run.json").write_bytes(content)
    for read in (RunFolder(tmp_path).read_record, lambda: RunFolder(tmp_path).finish(1, 1, {})):
        with pytest.raises(UserError, match=r"run\.json: .*put the file back"):
            read()
    (tmp_path / "recipe.json").write_bytes(content)
    assert read_recipe(tmp_path) is None


@pytest.mark.parametrize("value", ["Infinity", "1e999", "[1]", "null"])
def test_a_recipe_of_other_numbers_is_unknown(value: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(f'{{"seed": {value}, "rates": [], "videos": [], "captions": 1}}')
    assert read_recipe(tmp_path) is None


CHANGES: list[dict[str, Any]] = [
    {"device": 1}, {"fingerprint": []}, {"versions": "x"}, {"features": []}, {"features": {"i3d/feature.bin": 3}},
    {"resumed": {}},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_with_other_types_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    refused("run", json.dumps(json.loads(samples.RUN) | change).encode(), tmp_path, "put the file back")


@pytest.mark.parametrize("key", ["device", "fingerprint", "threads", "versions"])
def test_a_run_that_lacks_a_part_is_refused(key: str, tmp_path: Path) -> None:
    run = json.loads(samples.RUN)
    del run[key]
    refused("run", json.dumps(run).encode(), tmp_path, f"lacks {key}")


def test_resume_and_table_name_a_damaged_record(trained: Path, tiny_collection: Path, tiny_config: Path,
                                                nrccr_command: Command) -> None:  # fmt: skip
    (trained / "run.json").write_text('{"device": ')
    done = nrccr_command("train", tiny_config, "--root", tiny_collection, "--out", trained, "--resume")
    assert done.code == 2 and "run.json: cannot be read" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["metrics", "metrics-by-language", "metrics-of-texts"])
def test_numbers_of_metrics_that_no_float_holds(name: str, tmp_path: Path) -> None:
    content = readers.PARSERS[name].valid().replace(b"1.5", b"1" + b"0" * 400)
    refused(name, content, tmp_path, "a number of 401 digits")
    refused(name, b'{"a": ' * 20_000, tmp_path)


@pytest.mark.parametrize("value", ["null", "[]", "NaN", '"5"'])
def test_metrics_of_a_noise_run_are_numbers(value: str, tmp_path: Path) -> None:
    whole = json.dumps(samples.METRICS)
    (tmp_path / "m.json").write_text(whole)
    assert read_metrics(tmp_path / "m.json")["SumR"] == 9.0
    (tmp_path / "m.json").write_text(whole.replace("9.0", value))
    with pytest.raises(UserError, match="lacks SumR or a recall; remove"):
        read_metrics(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("header", "flags", "name", "says"),
    [(b"PK\x01\x02", 9, 46, "no archive that can be read"), (b"PK\x03\x04", 7, 30, "cannot be read")],
    ids=["directory", "member"],
)
def test_an_archive_whose_names_are_no_utf8(header: bytes, flags: int, name: int, says: str, tmp_path: Path) -> None:
    """A flag says that they are: `zipfile` raises UnicodeDecodeError."""
    content = bytearray(readers.PARSERS["sizes-npz"].valid())
    entry = content.index(header)
    content[entry + flags] |= 8
    content[entry + name] = 0x8D
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SizeError, match=says):
        require_npz(tmp_path / "a.npz")
    for parser in ("sizes-npz", "array-npz", "bank-vectors"):
        assert isinstance(readers.parse(parser, bytes(content), tmp_path / "files"), Exception)


@pytest.mark.parametrize(
    "sides", [(12_000, 12_000), (9_000, 9_000), (5_000, 5_000)], ids=["Pillow's", "ours", "a canvas's"]
)
def test_a_frame_that_is_larger_than_its_animation(sides: tuple[int, int], tmp_path: Path) -> None:
    """Pillow makes the whole picture as large; the first frame's size says nothing."""
    frames = [Image.new("RGB", (9, 7), (90 * number, 0, 0)) for number in (0, 1)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, disposal=2)
    assert len(list(pictures_of(path, Fraction(10)))) == 2
    content = bytearray(path.read_bytes())
    second = content.rindex(b"\x2c\x00\x00\x00\x00")  # the descriptor of the last frame
    content[second + 5 : second + 9] = struct.pack("<HH", *sides)
    path.write_bytes(content)
    with pytest.raises(UserError, match="pixels"):
        list(pictures_of(path, Fraction(10)))


WRONG = [np.float32(1), np.zeros(2, np.float32), np.array([["a", "b"], ["c", "d"]]), np.zeros((2, 2), np.int64)]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bank_of_other_arrays_is_refused(wrong: Any, tmp_path: Path) -> None:
    vectors, ids = np.eye(2, dtype=np.float32), np.array(["a", "b"])
    right = {"text_source": vectors, "text_target": vectors, "visual": vectors, "query_ids": ids, "item_ids": ids}
    record = {"split": "train", "seed": 1, "transductive": False, "sha256": digest_of(Path(__file__))}
    (tmp_path / "bank.json").write_text(json.dumps(record))
    np.savez(tmp_path / "bank.npz", **right)
    assert read_bank(tmp_path, Path(__file__), torch.device("cpu")).query_ids == ["a", "b"]
    for name in ("text_target", "visual", "query_ids"):
        if name == "query_ids" and getattr(wrong, "ndim", 0) == 2:
            wrong = wrong[0]
            if wrong.dtype.kind == "U":
                continue
        np.savez(tmp_path / "bank.npz", **{**right, name: wrong})
        with pytest.raises(UserError, match="arrays do not fit together"):
            read_bank(tmp_path, Path(__file__), torch.device("cpu"))


def test_a_feature_beside_a_key_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "train.pkl", [{"id": "a", "2d": [1], 7: frames(2), "caption_en": ["x"]}])
    with pytest.raises(UserError, match="it has 7"):
        convert_c2kd({"train": path}, tmp_path / "out", "msrvtt", feature="2d")


def test_a_caption_that_shows_nothing_is_none(tmp_path: Path) -> None:
    """It was written, and the file could not be read again."""
    path = write(tmp_path / "train.pkl", [{"id": "a", "2d": frames(2), "caption_en": ["x", "\u200b \u200b"]}])
    folder = convert_c2kd({"train": path}, tmp_path / "out", "msrvtt").folder
    assert read_captions(folder / "TextData" / "multi_msrvtttrain_en.caption.txt").texts == ["x"]


@pytest.mark.parametrize("value", [torch.ones(3), [torch.ones(3)], 10**400, "9" * 5000, {"a": {"b": torch.ones(1)}}])
@pytest.mark.parametrize("key", ["layer_list", "model_type", "collection", "data_type", "frozen", "tri_alpha"])
def test_options_of_a_checkpoint_of_any_type(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "model_best.pth.tar"
    path.write_bytes(readers.PARSERS["checkpoint-nrccr"].valid())
    whole = torch.load(path)
    whole["opt"][key] = value
    torch.save(whole, path)
    with pytest.raises(UserError) as caught:
        load_retriever(path, [], "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"shortest_edge": 10**6}},
        {"size": {"shortest_edge": 0}},
        {"crop_size": {"height": 8, "width": MAX_SIDE + 1}},
        {"crop_size": {"height": float("nan"), "width": 8}},
        {"image_mean": {"a": 1}},
        {"image_std": [[1], 2]},
    ],
)
def test_pre_processing_that_does_not_work_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(samples.PREPROCESSOR))
    assert load_preprocessor(str(tmp_path))(Image.new("RGB", (9, 7))).shape == (3, 8, 8)
    refused("preprocessor", json.dumps(samples.PREPROCESSOR | change).encode(), tmp_path, "no pre-processing of images")


def test_a_tokeniser_that_fails_at_its_first_caption(tmp_path: Path) -> None:
    refused("tokenizer-vocabulary", "\n".join(samples.WORDS).replace("[UNK]", "[NK]").encode(), tmp_path, "tokeniser")
    changed = json.loads(samples.ENCODER["tokenizer_config.json"]) | {"model_max_length": ""}
    refused("tokenizer-config", json.dumps(changed).encode(), tmp_path, "tokeniser")


ENCODERS: list[dict[str, Any]] = [
    {"model_type": "xlm-roberta", "pad_token_id": None},
    {"max_position_embeddings": 2},
    {"max_position_embeddings": -5},
]


@pytest.mark.parametrize("change", ENCODERS)
def test_an_encoder_without_padding_or_positions(change: dict[str, Any], tmp_path: Path) -> None:
    refused("tokenizer-encoder", json.dumps({**samples.BERT, **change}).encode(), tmp_path, "text.model=")


def test_an_archive_of_another_version_or_place(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scores.npy", b"x")
    whole = path.read_bytes()
    at = whole.index(b"PK\x01\x02")
    path.write_bytes(whole[: at + 6] + b"\x5b" + whole[at + 7 :])  # the version that it takes to read it: 9.1
    with pytest.raises(SizeError):
        require_npz(path)


def test_records_of_any_protocol_are_still_read(tmp_path: Path) -> None:
    for protocol in (0, 2, 4, 5):
        (tmp_path / "r.pkl").write_bytes(samples.records(protocol))
        assert [record["id"] for record in load_records(tmp_path / "r.pkl")] == ["v1", "v2"]
