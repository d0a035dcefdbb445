"""`nrccr extract`: the same bytes after kills and from shards, every kind of model, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nrccr.data.bigfile import BigFile
from nrccr.data.generated.media import film_frames
from nrccr.data.generated.scenes import Actor, Scene, draw, handwriting
from nrccr.features.prefetch import prefetch
from nrccr.features.store import Store
from nrccr.models.vision import KINDS, load_vision
from tests.conftest import CHECKOUT, Command
from tests.features import media

TINY = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8, "num_channels": 3,
}  # fmt: skip
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
# Sizes of a tiny model of every kind, beside its kind, and the width of its vectors.
SIZES: dict[str, tuple[dict[str, object], int]] = {
    "clip": ({"vision_config": {**TINY, "projection_dim": 24}}, 24),
    "clip_vision_model": ({**TINY, "projection_dim": 24}, 24),
    "siglip": ({"vision_config": TINY}, 32),
    "siglip_vision_model": (TINY, 32),
    "siglip2": ({"vision_config": {**TINY, "num_patches": 16}}, 32),
    "siglip2_vision_model": ({**TINY, "num_patches": 16}, 32),
    "dinov2": (TINY, 32),
    "dinov2_with_registers": (TINY, 32),
    "dinov3_vit": (TINY, 32),
    "dinov3_convnext": ({"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}, 16),
    "vit": (TINY, 32),
    "deit": (TINY, 32),
    "beit": (TINY, 32),
    "swin": ({"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4, "image_size": 32}, 16),
    "resnet": ({"embedding_size": 8, **STAGES, "layer_type": "basic"}, 16),
    "convnext": (STAGES, 16),
    "convnextv2": (STAGES, 16),
    "videomae": ({**TINY, "num_frames": 4, "tubelet_size": 2}, 32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three films, one of them damaged, and five images in a folder of their own."""
    made = tmp_path / "media"
    (made / "stills").mkdir(parents=True)
    for number in range(2):
        media.film(made / f"film{number}.mp4", frames=45 + 30 * number)
    media.cut(made / "damaged.mp4", 0.5)
    for number in range(5):
        Image.fromarray(media.picture(number, (40, 30))).save(made / "stills" / f"image{number}.png")
    return made


def tiny(folder: Path, kind: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **SIZES[kind][0]}))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_list_of_tiny_models_is_whole() -> None:
    assert SIZES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", SIZES)
def test_every_kind_of_model(kind: str, folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    model, out = tiny(tmp_path / "model", kind), tmp_path / "features"
    arguments = (
        "extract",
        folder,
        "--model",
        model,
        "--random-weights",
        1,
        "--fps",
        4,
        "--out",
        out,
        "--device",
        "cpu",
    )
    done = nrccr_command(*arguments)
    assert done.code == 0, done.err
    features = BigFile(out)
    per_clip = 4 if kind == "videomae" else 1
    assert features.width == SIZES[kind][1] and features.find_nan() == []
    assert len(features.rows("film1")) == -(-10 // per_clip)  # 2.47 s at 4 a second
    images = [f"image{number}" for number in range(5)]
    assert [*features.video_ids] == ["film0", "film1", *images]
    vectors = features.read([features.rows(name) for name in images])[0][:, 0]
    assert len(np.unique(vectors, axis=0)) == 5
    fingerprint = json.loads((out / "fingerprint.json").read_text())
    assert fingerprint["fps"] == "4" and fingerprint["model"] == "model" and len(fingerprint["weights"]) == 64


def test_random_weights_follow_from_their_seed(tmp_path: Path) -> None:
    model = str(tiny(tmp_path / "model", "vit"))
    pixels = {"pixel_values": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    state = torch.get_rng_state()
    one, same, other = (load_vision(model, seed=seed)(pixels) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_saved_weights_and_preprocessing_are_used(folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    from transformers import CLIPImageProcessorPil

    model = tiny(tmp_path / "model", "clip_vision_model")
    made = load_vision(str(model), seed=5)
    made.encoder.save_pretrained(model)  # type: ignore[union-attr, operator]
    out = tmp_path / "features"
    arguments = ("extract", folder / "stills", "--model", model, "--out", out, "--device", "cpu")
    refused = nrccr_command(*arguments)
    assert refused.code == 2 and refused.err.startswith(f"nrccr: --model {model}: no pre-processing of images there")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(model)
    assert nrccr_command(*arguments).code == 0
    processor = CLIPImageProcessorPil.from_pretrained(model)
    images = [Image.open(folder / "stills" / f"image{number}.png") for number in range(5)]
    pixels = torch.from_numpy(np.stack([processor(image, return_tensors="np")["pixel_values"][0] for image in images]))
    features = BigFile(out)
    found = features.read([features.rows(f"image{number}") for number in range(5)])[0][:, 0]
    np.testing.assert_allclose(found, made({"pixel_values": pixels}).numpy(), atol=1e-5)


# Children that kill themselves when they flush a file to disk, each after a number of times.
KILLED = """
import os, signal, sys
from pathlib import Path
import nrccr.features.extract
from nrccr.cli.app import main
partial, real = Path(sys.argv.pop(1)), os.fsync
for allowed in map(int, sys.argv.pop(1).split(",")):
    child = os.fork()
    if not child:
        left = [allowed]
        def fsync(descriptor):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)
        os.fsync = fsync
        main()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, sum(len(path.read_text().splitlines()) for path in partial.glob("*.jsonl")), flush=True)
"""


def test_killed_three_times_and_resumed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    model = tiny(tmp_path / "model", "vit")

    def arguments(name: str) -> list[object]:
        options = ("--model", model, "--random-weights", 0, "--fps", 4, "--batch-size", 2, "--device", "cpu")
        return ["extract", folder, *options, "--out", tmp_path / name]

    # Between a file's vectors and its line; in the next one's vectors; while the folder is put together.
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed.partial"), "4,3,12"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    whole = [*command, *map(str, arguments("killed"))]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)
    children = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [status for status, _ in children] == [-signal.SIGKILL] * 3, done.stderr
    kept = [lines for _, lines in children]
    assert 0 < kept[0] < kept[1] < kept[2] and not (tmp_path / "killed").exists()
    for name in ("killed", "whole"):  # in processes like those that were killed: settings of torch change last digits
        finish = [sys.executable, "-m", "nrccr", *map(str, arguments(name))]
        assert subprocess.run(finish, env=environment, check=False).returncode == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not (tmp_path / "killed.partial").exists()


def test_shards_give_the_same_bytes(folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    def extract(name: str, *options: object) -> str:
        usual = ("extract", folder, "--model", "pixels", "--out", tmp_path / name, "--batch-size", 2, "--device", "cpu")
        done = nrccr_command(*usual, *options)
        assert done.code == 0, done.err
        return done.out

    extract("whole")
    assert "shard 2/3 is done; " in extract("parts", "--shard", "2/3")
    refused = nrccr_command("extract", folder, "--model", "pixels", "--out", tmp_path / "parts", "--merge")
    assert refused.code == 2 and "begun with other options (batch_size, id differ)" in refused.err
    usual = ("extract", folder, "--model", "pixels", "--out", tmp_path / "parts", "--batch-size", 2)
    refused = nrccr_command(*usual, "--merge")
    assert refused.code == 2 and "files are not extracted yet" in refused.err
    extract("parts", "--shard", "1/3")
    extract("parts", "--shard", "3/3")  # the last one puts them together
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_merge_after_a_stop_before_the_end(
    folder: Path, tmp_path: Path, nrccr_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ("extract", folder, "--model", "pixels", "--out", tmp_path / "out", "--device", "cpu")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nrccr.features.extract.finish", stop)
        assert nrccr_command(*usual).code == 130
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patched:
        patched.setattr("nrccr.features.extract.Extractor.run", stop)  # nothing is computed any more
        done = nrccr_command(*usual, "--merge")
    assert done.code == 0, done.err
    assert len(BigFile(tmp_path / "out").video_ids) == 7 and not (tmp_path / "out.partial").exists()


def test_merge_puts_finished_parts_together(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "out", {"a": 1})
    store.add([("b", [1, 2], np.ones((2, 3), np.float32)), ("c", [3, 4], "damaged")])
    other = Store(tmp_path / "out", {"a": 1})
    other.add([("a", [5, 6], np.zeros((1, 3), np.float32))])
    lines = next(tmp_path.glob("out.partial/*.jsonl"))
    lines.write_bytes(lines.read_bytes() + b'{"id": "torn", "st')
    parts = Store(tmp_path / "out", {"a": 1}).parts()
    assert sorted(parts) == ["a", "b", "c"] and parts["c"].failed == "damaged" and parts["b"].stamp == [1, 2]
    data = store.partial / f"{store._name}.bin"
    data.write_bytes(data.read_bytes()[:-1])
    assert sorted(other.parts()) == ["a", "c"]  # vectors that are not on disk
    other.finish(["a"])
    assert [*BigFile(tmp_path / "out").video_ids] == ["a"] and not other.partial.exists()


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.partial").symlink_to(tmp_path / "elsewhere")
    done = nrccr_command("extract", folder, "--model", "pixels", "--out", tmp_path / "out")
    assert done.code == 2 and "out.partial: a link" in done.err and not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("entry", [{"shape": [-1, -1]}, {"start": -4, "shape": [1, 1]}, {"shape": [1, 99]}, {"id": 7}])
def test_lines_that_do_not_fit_are_left_out(entry: dict[str, object], tmp_path: Path) -> None:
    store = Store(tmp_path / "out", {})
    store.add([("a", [], np.ones((1, 2), np.float32))])
    lines = next(store.partial.glob("*.jsonl"))
    with lines.open("a") as file:
        file.write(json.dumps({"id": "b", "start": 0, "shape": [1, 1], "stamp": []} | entry) + "\n[]\n7\n")
    assert sorted(store.parts()) == (["7", "a"] if "id" in entry else ["a"])


def test_a_changed_file_is_read_again(folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    usual = ("extract", folder, "--model", "pixels", "--out", tmp_path / "out", "--device", "cpu")
    assert nrccr_command(*usual, "--shard", "1/2").code == 0
    media.film(folder / "damaged.mp4", frames=1)
    assert nrccr_command(*usual, "--shard", "2/2").code == 0
    assert nrccr_command(*usual).code == 0
    assert len(BigFile(tmp_path / "out").rows("damaged")) == 1


def test_strict_and_nothing_readable(folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    done = nrccr_command("extract", folder, "--model", "pixels", "--out", tmp_path / "out", "--strict")
    assert (
        done.code == 2
        and done.err
        == f"nrccr: {tmp_path / 'out'}: 1 of 8 files were skipped, and --strict is given; mend or remove them\n"
    )
    assert len(BigFile(tmp_path / "out").video_ids) == 7
    done = nrccr_command("extract", folder / "damaged.mp4", "--model", "pixels", "--out", tmp_path / "none")
    assert done.code == 2 and "none of 1 files can be read; first" in done.err
    assert not (tmp_path / "none").exists() and not (tmp_path / "none.partial").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fps", "0"], "--fps 0: give frames a second"),
        (["--fps", "1/0"], "--fps 1/0: give frames a second"),
        (["--shard", "3/2"], "--shard 3/2: give a part and how many there are"),
        (["--model", "/"], "--model /: no configuration there"),
        (["--out", "."], ".: exists already"),
    ],
)
def test_wrong_options(options: list[str], said: str, folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    usual = {"--model": "pixels", "--out": str(tmp_path / "out")} | dict([options])
    done = nrccr_command("extract", folder, *[word for pair in usual.items() for word in pair])
    assert done.code == 2 and done.err.startswith(f"nrccr: {said}") and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_ids_must_differ_and_be_writable(folder: Path, tmp_path: Path, nrccr_command: Command) -> None:
    usual = ("extract", folder, "--model", "pixels", "--out", tmp_path / "out")
    media.image(folder / "film1.png")
    done = nrccr_command(*usual)
    assert done.code == 2 and done.err == (
        f"nrccr: {folder / 'film1.mp4'} and {folder / 'film1.png'} have the same id, 'film1'; rename one of them\n"
    )
    (folder / "film1.png").rename(folder / "two words.png")
    done = nrccr_command(*usual)
    assert done.code == 2 and "has white space or is no Unicode; rename it" in done.err
    (tmp_path / "bare").mkdir()
    done = nrccr_command("extract", tmp_path / "bare", "--model", "pixels", "--out", tmp_path / "out")
    assert done.code == 2 and "no film or image in it" in done.err


def test_what_is_read_ahead_comes_in_order_and_errors_where_they_belong() -> None:
    def read(job: int) -> list[int]:
        if job == 3:
            raise ValueError("three")
        return [10 * job + piece for piece in range(job)]

    found: list[object] = []
    for job, pieces in prefetch(range(6), read, workers=3):
        try:
            found.append((job, list(pieces)))
        except ValueError as error:
            found.append(str(error))
    assert found == [(0, []), (1, [10]), (2, [20, 21]), "three", (4, [40, 41, 42, 43]), (5, [50, 51, 52, 53, 54])]


def test_films_of_the_generated_collection_hold_its_pixels(tmp_path: Path, nrccr_command: Command) -> None:
    options = ("--videos", "3,2,2", "--captions", "1", "--noise", "20", "--media")
    assert nrccr_command("generate", tmp_path, *options).code == 0
    made = tmp_path / "generated"
    scenes = [json.loads(line) for line in (made / "scenes.jsonl").read_text().splitlines()]
    assert {path.name for path in (made / "media").iterdir()} == {f"{scene['video']}.mp4" for scene in scenes}
    done = nrccr_command("extract", made / "media", "--model", "pixels", "--fps", 12, "--out", tmp_path / "features")
    assert done.code == 0, done.err
    features, (samples, _) = BigFile(tmp_path / "features"), handwriting()
    for row in scenes:
        scene = Scene(**row | {"actors": tuple(Actor(**actor) for actor in row["actors"])})
        found = features.read([features.rows(scene.video)])[0][0]
        assert 48 <= len(found) == film_frames(scene) <= 72  # 4 to 6 seconds
        assert np.abs(found - draw(scene, samples, len(found)).reshape(len(found), -1)).max() < 0.06


def test_extracted_images_train(image_run: Command, tiny_images: Path, tmp_path: Path, nrccr_command: Command) -> None:
    pictures, feature = (tiny_images / "multi30k" / name for name in ("flickr30k-images", "FeatureData/small"))
    assert nrccr_command("extract", pictures, "--model", "pixels", "--out", feature, "--device", "cpu").code == 0
    options = ("visual.kind=vectors", "data.feature=small")
    done = image_run("train", "--out", tmp_path / "run", "--test", *options)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["items"] == 8
