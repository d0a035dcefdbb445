"""Vectors on disk and pre-processing, against a reading by hand; every damage in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from nrccr.config.choices import Pixels
from nrccr.data.images import PictureFiles, Pictures, Vectors
from nrccr.data.pixels import Preprocessor, as_shown, clip_preprocessor, load_picture, load_preprocessor
from nrccr.errors import UserError

PIXELS: tuple[Pixels, ...] = ("stored", "shown")
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])
VALUES = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path, values: object = VALUES, ids: str = "a\nb.jpg\nc\nd\n") -> tuple[Path, Path]:
    np.save(folder / "v.npy", np.asarray(values))
    (folder / "ids.txt").write_text(ids)
    return folder / "v.npy", folder / "ids.txt"


def test_rows_follow_the_ids(tmp_path: Path) -> None:
    vectors = Vectors(*files(tmp_path))
    assert (vectors.count, vectors.width, [*vectors.image_ids]) == (4, 3, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(vectors.read(["d", "b", "d"]), VALUES[[3, 1, 3]])
    assert "b" in vectors and "e" not in vectors and vectors.problem(["a", "b"]) is None


def test_other_floats_become_float32(tmp_path: Path) -> None:
    read = Vectors(*files(tmp_path, VALUES.astype(np.float64))).read(["c"])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES[[2]])


def test_a_worker_gets_names_and_no_data(tmp_path: Path) -> None:
    values = np.zeros((2000, 500), np.float32)
    vectors = Vectors(*files(tmp_path, values, " ".join(map(str, range(2000)))))
    sent = pickle.dumps(vectors)
    assert len(sent) < values.nbytes / 20
    np.testing.assert_array_equal(pickle.loads(sent).read(["7"]), values[[7]])


def test_damage_is_one_line(tmp_path: Path) -> None:
    path, ids = files(tmp_path)
    whole = path.read_bytes()
    cases: list[tuple[object, str, str]] = [
        (VALUES, "a b c", f"{ids}: 3 ids, but {path} has 4 rows"),
        (VALUES, "a b c a", f"{ids}: id 'a' is duplicated"),
        (VALUES[0], "a b c", f"{path}: must hold floats (images, width), not float32 (3,)"),
        (np.ones((4, 3), int), "a b c d", "not int64 (4, 3)"),
        (np.ones((4, 0)), "a b c d", "not float64 (4, 0)"),
    ]
    for values, names, says in cases:
        files(tmp_path, values, names)
        assert says in complaint(lambda: Vectors(path, ids))
    for content in (whole[:-8], whole[:5], b"", b"text"):
        path.write_bytes(content)
        assert complaint(lambda: Vectors(path, ids)).startswith(f"{path}: ")
    path.unlink()
    assert complaint(lambda: Vectors(path, ids)).startswith(f"{path}: ")
    files(tmp_path)
    ids.unlink()
    assert complaint(lambda: Vectors(path, ids)).startswith(f"{ids}: cannot be read")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path, ids = files(tmp_path)
    np.save(path, np.array([[{"code": 1}]], dtype=object), allow_pickle=True)
    assert complaint(lambda: Vectors(path, ids)).startswith(f"{path}: ")


def test_nan_is_told_with_its_image(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[1, 2], values[3, 0] = np.nan, np.inf
    vectors = Vectors(*files(tmp_path, values))
    assert vectors.problem(["a", "c"]) is None
    said = vectors.problem(["a", "b", "c", "d"])
    assert said is not None and "2 vectors hold a NaN or an infinity (b, d)" in said


@pytest.mark.parametrize("size", [(50, 70), (70, 50), (32, 32), (20, 24)])
def test_clip_pixels_by_hand(size: tuple[int, int]) -> None:
    """Shorter side bicubic, centre crop, mean and deviation."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    scale = 32 / min(image.size)
    wide, high = (32 if side == min(image.size) else int(side * scale) for side in image.size)
    resized = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - 32) // 2, (high - 32) // 2
    cropped = np.asarray(resized.crop((left, top, left + 32, top + 32))) / 255
    wanted = ((cropped - MEAN) / DEVIATION).transpose(2, 0, 1)
    found = clip_preprocessor(32)(image)
    assert found.shape == (3, 32, 32) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    preprocess = clip_preprocessor(16)
    wanted = preprocess(Image.new("RGB", (20, 30), (9, 9, 9)))
    for mode, colour in (("L", 9), ("RGBA", (9, 9, 9, 255))):
        np.testing.assert_array_equal(preprocess(Image.new(mode, (20, 30), colour)), wanted)


def test_settings_come_with_the_model(tmp_path: Path) -> None:
    given = CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20}, image_mean=[0, 0, 0], image_std=[1, 1, 1]
    )
    Preprocessor(given).save(tmp_path)
    found = load_preprocessor(str(tmp_path))(Image.new("RGB", (40, 40), (255, 0, 51)))
    np.testing.assert_allclose(found[:, 3, 4], [1, 0, 0.2], atol=1e-6)


def test_without_settings_only_random_weights_do(tiny_clip: Path) -> None:
    assert "no pre-processing" in complaint(lambda: load_preprocessor(str(tiny_clip)))
    assert load_preprocessor(str(tiny_clip), pretrained=False)(Image.new("RGB", (9, 9))).shape == (3, 32, 32)


def test_what_is_no_image_is_one_line(tmp_path: Path) -> None:
    for name, content in (("a.jpg", b""), ("b.jpg", b"text"), ("c.jpg", b"\xff\xd8\xff\xe0")):
        (tmp_path / name).write_bytes(content)
        said = complaint(lambda path=tmp_path / name: load_picture(path))  # type: ignore[misc]
        assert said.startswith(f"{tmp_path / name}: cannot be read as an image")


def mean_colour(image: Image.Image) -> list[int]:
    return np.asarray(image).reshape(-1, 3).mean(axis=0).round().astype(int).tolist()


def test_an_image_is_turned_as_a_viewer_turns_it(tmp_path: Path) -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to show it
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    shown = load_picture(tmp_path / "phone.png", "shown")
    assert np.array_equal(np.asarray(shown), np.asarray(upright))
    assert load_picture(tmp_path / "phone.png").size == (6, 4), "training reads stored pixels, as published"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "1", "CMYK", "YCbCr", "PA"])
def test_transparency_is_over_white(mode: str, tmp_path: Path) -> None:
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    if mode == "P":
        red = Image.new("P", (4, 4), 0)
        red.putpalette([255, 0, 0] * 256)
        red.info["transparency"] = 0
    elif mode == "RGB":
        red = Image.new("RGB", (4, 4), (255, 0, 0))
        red.info["transparency"] = (255, 0, 0)
    elif mode not in ("RGBA", "LA", "PA"):
        red = Image.new("RGB", (4, 4), "white").convert(mode)
    else:
        red = red.convert(mode)
    assert mean_colour(as_shown(red)) == [255, 255, 255]


def test_half_transparent_is_mixed_with_white() -> None:
    assert mean_colour(as_shown(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))) == [127, 127, 127]


def test_16_bits_are_scaled_and_32_bits_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(load_picture(tmp_path / "deep.png", "shown"))[0, :, 1].tolist() == [0, 100, 255]
    for numbers in (np.ones((2, 2), dtype=np.float32), np.ones((2, 2), dtype=np.int32)):
        Image.fromarray(numbers).save(tmp_path / "wide.tiff")
        with pytest.raises(UserError, match=r"wide\.tiff: cannot be read as an image .*8 or 16 bits"):
            load_picture(tmp_path / "wide.tiff", "shown")


@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".jpeg", ".JPEG"])
def test_endings_of_files_and_ids(ending: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / f"a{ending}", format="JPEG")
    files = PictureFiles(tmp_path)
    assert "a" in files and "b" not in files and files.path("a") == tmp_path / f"a{ending}"
    assert files.unreadable(["a"]) is None
    np.save(tmp_path / "v.npy", VALUES[:2])
    (tmp_path / "ids.txt").write_text(f"a{ending} b.c")
    assert [*Vectors(tmp_path / "v.npy", tmp_path / "ids.txt").image_ids] == ["a", "b.c"]


def test_the_usual_ending_comes_first(tmp_path: Path) -> None:
    for ending in (".JPG", ".jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"a{ending}", format="JPEG")
    assert PictureFiles(tmp_path).path("a") == tmp_path / "a.jpg"


def test_training_reads_pixels_as_the_switch_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(np.rot90(upright)).save(tmp_path / "phone.jpg", format="PNG", exif=exif)
    Image.fromarray(np.zeros((40, 40, 4), dtype=np.uint8)).save(tmp_path / "glass.jpg", format="PNG")
    preprocess = clip_preprocessor(32)
    stored, shown = (Pictures(tmp_path, preprocess, pixels).read(["phone", "glass"]) for pixels in PIXELS)
    np.testing.assert_array_equal(stored[0], preprocess(Image.fromarray(np.rot90(upright))))
    np.testing.assert_array_equal(shown[0], preprocess(Image.fromarray(upright)))
    for found, colour in ((stored[1], "black"), (shown[1], "white")):
        np.testing.assert_array_equal(found, preprocess(Image.new("RGB", (40, 40), colour)))


def test_check_knows_what_the_switch_refuses(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.int32)).save(tmp_path / "a.jpg", format="TIFF")
    assert PictureFiles(tmp_path, "stored").unreadable(["a"]) is None
    assert "1 files are no images (a)" in str(PictureFiles(tmp_path, "shown").unreadable(["a"]))
