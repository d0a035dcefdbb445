"""Every parser with any bytes at all: a result or a refusal in one line, soon and without memory; round trips."""

from __future__ import annotations

import json
import random
import shutil
import signal
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from nrccr.config.schema import to_yaml
from nrccr.data.bigfile import BigFile, read_video_frames, write_bigfile
from nrccr.data.captions import caption_line, is_blank, read_captions, write_captions
from nrccr.data.generated.collection import Recipe, read_recipe
from nrccr.errors import UserError, printable
from nrccr.evaluation.blocks import DenseScores
from nrccr.evaluation.compare import read_outcome
from nrccr.evaluation.outputs import write_ranks
from nrccr.evaluation.ranked import Scored
from nrccr.files import read_json, write_json
from nrccr.safeload.unpickle import load_array, load_checkpoint, load_weights, save_weights
from nrccr.systems.settings import load_config
from tests.conftest import CHECKOUT
from tests.hostile.readers import PARSERS, parse
from tests.hostile.samples import mutated

SECONDS, MEMORY = 20, 256 * 2**20  # what a parser may take for one input; far more than any needs


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples, the same ones every time."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=health)


@contextmanager
def limited(name: str) -> Iterator[None]:
    """Fail where the code takes too long, or memory that a small file does not explain."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"{name} takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    measured = Path("/proc/self/clear_refs").exists()
    if measured:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    had = _peak() if measured else 0
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not measured or _peak() - had < MEMORY, f"{name} takes {(_peak() - had) >> 20} MiB"


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_a_result_or_one_line(name: str, tmp_path: Path) -> None:
    parser, folder = PARSERS[name], tmp_path / "files"
    parse(name, parser.valid(), folder)  # imports what it needs

    @examples(15 if parser.slow else 50)
    @given(st.binary(max_size=300))
    def arbitrary(data: bytes) -> None:
        with limited(name):
            parse(name, data, folder)

    @examples(40 if parser.slow else 120)
    @given(st.integers(0, 2**32))
    def damaged(seed: int) -> None:
        data = mutated(parser.valid(), random.Random(seed))
        with limited(name):
            parse(name, data, folder)

    arbitrary()
    damaged()


REFUSED = {"checkpoint-nrccr", "checkpoint-mlcmr", "checkpoint-c2kd"}  # whole but for the encoder, which is not there


@pytest.mark.parametrize("name", PARSERS)
def test_the_valid_file_is_read(name: str, tmp_path: Path) -> None:
    """Else a damaged one would be refused for another reason."""
    found = parse(name, PARSERS[name].valid(), tmp_path / "files")
    assert isinstance(found, Exception) == (name in REFUSED), found


# What names and captions may hold; white space has its own tests.
NAMES = st.text(st.characters(codec="latin-1", exclude_categories=("Zs", "Cc", "Cf")), min_size=1, max_size=12)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).map(lambda text: " ".join(text.split()))


@examples(60)
@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["en", "zh"]), TEXTS.filter(lambda text: not is_blank(text))), min_size=1)
)
def test_captions_are_read_as_written(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    lines = [caption_line(item, tag, number, text) for number, (item, tag, text) in enumerate(rows)]
    write_captions(tmp_path / "c.txt", lines)
    found = read_captions(tmp_path / "c.txt")
    assert found.texts == [text for _, _, text in rows]
    assert found.items == [item for item, _, _ in rows] and found.numbers == [str(n) for n in range(len(rows))]


@examples(30)
@given(st.dictionaries(NAMES, st.integers(1, 3), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 99))
def test_features_are_read_as_written(tmp_path: Path, counts: dict[str, int], width: int, seed: int) -> None:
    folder, values = tmp_path / "f", np.random.default_rng(seed)
    shutil.rmtree(folder, ignore_errors=True)
    videos = {name: values.standard_normal((count, width)).astype(np.float32) for name, count in counts.items()}
    try:
        write_bigfile(folder, videos.items())
        features = BigFile(folder)
    except UserError as error:  # `a_0` with frames beside `a`: two frames of one name
        assert "duplicated" in str(error) and any(f"{a}_" in b for a in videos for b in videos if a != b)
        return
    assert list(features.video_ids) == list(videos) and features.width == width
    assert all(np.array_equal(features.read([features.rows(name)])[0][0], videos[name]) for name in videos)


@examples(60)
@given(st.dictionaries(st.text(max_size=8), st.lists(st.text(max_size=8), min_size=1, max_size=3), min_size=1))
def test_any_names_of_frames_are_read_as_python_writes_them(tmp_path: Path, videos: dict[str, list[str]]) -> None:
    path = tmp_path / "video2frames.txt"
    path.write_bytes(ascii(videos).encode())
    assert read_video_frames(path) == videos


@examples(40)
@given(arrays_of.arrays(st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]), arrays_of.array_shapes(max_dims=3)))
def test_arrays_are_read_as_written(tmp_path: Path, values: Any) -> None:
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", scores=values)
    for name in ("a.npy", "a.npz"):
        found = load_array(tmp_path / name)
        assert found.dtype == values.dtype and np.array_equal(found, values, equal_nan=values.dtype.kind == "f")


WEIGHTS = st.dictionaries(
    st.text(string.ascii_letters + "._0", min_size=1, max_size=9),
    arrays_of.arrays(np.float32, arrays_of.array_shapes(max_dims=2, max_side=4), elements=st.floats(width=32)),
    min_size=1,
    max_size=4,
)


@examples(40)
@given(WEIGHTS)
def test_weights_and_states_are_read_as_written(tmp_path: Path, values: dict[str, Any]) -> None:
    state = {name: torch.from_numpy(value) for name, value in values.items()}
    save_weights(state, tmp_path / "w.safetensors")
    torch.save({"model": state, "epoch": 1}, tmp_path / "w.pt")
    for found in (load_weights(tmp_path / "w.safetensors"), load_checkpoint(tmp_path / "w.pt")["model"]):
        assert found.keys() == state.keys()
        assert all(torch.equal(torch.nan_to_num(found[name]), torch.nan_to_num(state[name])) for name in state)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**200), 10**200) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@examples(60)
@given(st.dictionaries(st.text(max_size=9), JSON))
def test_records_are_read_as_written(tmp_path: Path, record: dict[str, Any]) -> None:
    write_json(tmp_path / "r.json", record)
    assert read_json(tmp_path / "r.json", "") == record


@examples(25)
@given(
    st.sampled_from(["nrccr/vatex.yaml", "mlcmr/vatex-small.yaml", "c2kd/multi30k-small-translate-train.yaml"]),
    st.integers(0, 2**31), st.integers(2, 999), st.floats(1e-9, 1), NAMES.filter(lambda name: "${" not in name),
)  # fmt: skip
def test_configurations_are_read_as_written(
    tmp_path: Path, file: str, seed: int, size: int, rate: float, name: str
) -> None:
    values = [f"seed={seed}", f"train.batch_size={size}", f"train.learning_rate={rate!r}"]
    config = load_config(CHECKOUT / "configs" / file, [*values, f"text.model={json.dumps(name)}"])
    (tmp_path / "c.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == config
    found = config.seed, config.train.batch_size, config.train.learning_rate, config.text.model
    assert found == (seed, size, rate, name)


@examples(25)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_ranks_are_read_as_written(tmp_path: Path, items: int, each: int, seed: int) -> None:
    values = np.random.default_rng(seed)
    count = items * each
    scores = torch.from_numpy(values.standard_normal((count, items)))
    ids, names = [f"v{n // each}#en#{n % each}" for n in range(count)], [f"v{n}" for n in range(items)]
    item_of = np.arange(count) // each
    scored = Scored.of((DenseScores(scores), DenseScores(scores.T.contiguous())), item_of)
    ranked = scored.ranked()
    write_ranks(tmp_path, ranked, scored, ids, names, 64.0)
    found = read_outcome(tmp_path, "test")
    (best, *_), (back, precision, _) = ranked.text_to_visual, ranked.visual_to_text
    assert found.query_ids == ids and found.item_ids == names and found.item_of.tolist() == item_of.tolist()
    assert found.ranks.tolist() == best.tolist()
    assert found.item_ranks.tolist() == back.tolist() and found.precisions.tolist() == precision.tolist()


@examples(30)
@given(st.integers(), st.lists(st.floats(0, 1), min_size=1), st.tuples(*[st.integers(1, 999)] * 3), st.integers(1, 9))
def test_recipes_are_read_as_written(
    tmp_path: Path, seed: int, rates: list[float], videos: tuple[int, int, int], captions: int
) -> None:
    recipe = Recipe(seed, tuple(rates), videos, captions)
    write_json(tmp_path / "recipe.json", vars(recipe))
    assert read_recipe(tmp_path) == recipe


@examples(80)
@given(st.text(max_size=3000))
def test_every_message_is_one_short_line_that_a_terminal_shows(text: str) -> None:
    message = str(UserError(text))
    assert "\n" not in message and printable(message) == message and len(message) < 2100


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_the_fuzzer_runs_and_finds_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs the extra fuzz")
    command = [sys.executable, "-m", "tests.hostile.fuzz", name, "--seconds=2", f"--findings={tmp_path}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "nothing found" in done.stdout, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.split(": ")[1].split()[0]) > 20  # seeds alone
