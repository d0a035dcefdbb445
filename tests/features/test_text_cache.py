"""What frozen layers give of captions: computed once, found again, computed anew when what it follows from changes."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import CaptionTokenizer, TokenTable
from nrccr.distributed import Runtime, make_deterministic
from nrccr.errors import UserError
from nrccr.features import text_cache
from nrccr.features.store import Store
from nrccr.features.text_cache import TextCache
from nrccr.models.backbone import backbone_config, backbone_states, build_backbone, freeze_backbone, lower_states
from nrccr.models.lower import cut
from nrccr.systems.settings import load_config
from nrccr.systems.table import part_of
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder
from tests.conftest import Command

CPU = torch.device("cpu")
CAPTIONS = [" ".join(["a", "man", "runs", "dog", "plays"][: 1 + number % 5]) for number in range(23)]
SIZES: dict[str, int] = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
Open = Callable[..., TextCache]


@pytest.fixture
def tokenizer(tiny_bert: Path) -> CaptionTokenizer:
    return CaptionTokenizer(str(tiny_bert), 250)


@pytest.fixture
def tokens(tokenizer: CaptionTokenizer) -> TokenTable:
    return tokenizer.encode(CAPTIONS)


@pytest.fixture
def open_cache(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A function of a folder, a seed of the weights and the trained layers: a cache of blocks of five captions."""
    monkeypatch.setattr(text_cache, "BLOCK", 5)

    def open_(name: str = "cache", seed: int = 0, layers: tuple[int, ...] = (1,), batch_size: int = 3) -> TextCache:
        torch.manual_seed(seed)
        backbone = build_backbone(backbone_config(str(tiny_bert), SIZES), None)
        freeze_backbone(backbone, "frozen", layers)
        return TextCache(tmp_path / name, backbone, CPU, batch_size)

    return open_


def folders(cache: TextCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()}


def test_states_are_those_of_the_lower_layers_and_computed_once(
    open_cache: Open, tokens: TokenTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    found = cache.read("toys-train-source", tokens)
    (name,) = folders(cache)
    assert name.startswith("toys-train-source-") and found.content() == tokens.content()
    assert (cache.folder / name / "states.bin").stat().st_size == 4 * 32 * tokens.lengths.sum()
    chosen = [22, 0, 3, 3, 9]
    text = found.batch(chosen)
    plain = tokens.batch(chosen)
    assert text.lower is not None and plain.lower is None and torch.equal(text.tokens, plain.tokens)
    (wanted,) = lower_states(cache.lower, [plain])
    torch.testing.assert_close(text.lower.padded()[text.mask], wanted[text.mask], rtol=1e-5, atol=1e-5)

    def compute(*_: object) -> None:
        raise AssertionError("states were computed again")

    monkeypatch.setattr(text_cache, "lower_states", compute)
    again = open_cache(batch_size=7).read("toys-train-source", tokens).batch(chosen)
    assert again.lower is not None and torch.equal(again.lower.states, text.lower.states)
    pickled = pickle.dumps(found)  # the loader's workers map the file anew
    of_worker = pickle.loads(pickled).batch(chosen)
    assert len(pickled) < 10_000 and torch.equal(of_worker.lower.states, text.lower.states)


def test_states_are_found_under_another_systems_name(open_cache: Open, tokens: TokenTable) -> None:
    first = open_cache().read("toys-train-source", tokens).batch([3, 9])
    second = open_cache().read("toys-train-en", tokens).batch([3, 9])
    assert len(folders(open_cache())) == 1
    assert first.lower is not None and second.lower is not None
    assert torch.equal(first.lower.states, second.lower.states)


def test_padding_among_others_brings_no_states(open_cache: Open, tokens: TokenTable) -> None:
    found = open_cache().read("toys", tokens)
    text = found.batch([0, 1], among=[0, 1, 4])
    assert text.lower is not None and text.tokens.shape[1] == tokens.lengths[4]
    assert len(text.lower.states) == tokens.lengths[:2].sum() and not text.lower.places[~text.mask].any()


def test_what_states_follow_from_is_in_the_folders_name(
    open_cache: Open, tokens: TokenTable, tokenizer: CaptionTokenizer, tiny_bert: Path
) -> None:
    open_cache().read("toys", tokens)
    open_cache().read("toys", tokenizer.encode(CAPTIONS))
    assert len(folders(open_cache())) == 1
    open_cache(seed=1).read("toys", tokens)  # other weights
    open_cache(layers=(0, 1)).read("toys", tokens)  # other layers
    open_cache().read("toys", tokenizer.encode([*CAPTIONS[:-1], "dog"]))  # another caption
    open_cache().read("toys", CaptionTokenizer(str(tiny_bert), 4).encode(CAPTIONS))  # shorter ones
    open_cache().read("toys", CaptionTokenizer(str(tiny_bert), 250, prefix="dog ").encode(CAPTIONS))
    assert len(folders(open_cache())) == 6


def test_upper_layers_are_not_in_the_name(open_cache: Open, tokens: TokenTable) -> None:
    cache = open_cache()
    cache.read("toys", tokens)
    assert cache.describe() == open_cache().describe() != open_cache(seed=1).describe()
    other = open_cache()
    whole: Any = other.lower
    assert len(whole.encoder.layer) == 1 and "encoder.layer.1" not in "".join(whole.state_dict())


@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "nan", "cut later"])
def test_damaged_states_are_one_line(open_cache: Open, tokens: TokenTable, damage: str) -> None:
    cache = open_cache()
    found = cache.read("toys", tokens)
    (folder,) = cache.folder.iterdir()
    path = folder / "states.bin"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "longer":
        path.write_bytes(data + b"1234")
    elif damage == "nan":
        path.write_bytes(np.full(len(data) // 4, np.nan, "<f4").tobytes())
    else:
        with path.open("r+b") as file:
            file.truncate(8)
    with pytest.raises(UserError) as caught:
        (found if damage == "cut later" else cache.read("toys", tokens)).batch([22])
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert said.endswith(f"remove {folder}, it is then computed anew")


def test_weights_with_a_nan_leave_nothing(open_cache: Open, tokens: TokenTable) -> None:
    cache = open_cache()
    with torch.no_grad():
        cache.lower.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match="text.cache: the backbone gives a NaN or an infinity for captions of toys"):
        cache.read("toys", tokens)
    assert not cache.folder.exists() or not folders(cache)


def test_a_folder_that_cannot_be_written_is_one_line(open_cache: Open, tokens: TokenTable, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError) as caught:
        open_cache().read("toys", tokens)
    said = str(caught.value)
    assert "\n" not in said and said.endswith("give another folder as text.cache=FOLDER")


def test_a_stopped_computation_goes_on(open_cache: Open, tokens: TokenTable, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_cache("whole")
    whole.read("toys", tokens)
    calls: list[int] = []
    real = lower_states

    def stopped(lower: Any, texts: Any) -> list[Tensor]:
        if len(calls) == 5:  # two batches a block: in the third block
            raise KeyboardInterrupt
        calls.append(len(texts[0].tokens))
        return real(lower, texts)

    monkeypatch.setattr(text_cache, "lower_states", stopped)
    cache = open_cache()
    with pytest.raises(KeyboardInterrupt):
        cache.read("toys", tokens)
    (name,) = folders(cache)
    assert name.endswith(".partial")
    calls.clear()
    monkeypatch.setattr(text_cache, "lower_states", lambda *given: (calls.append(1), real(*given))[1])
    cache.read("toys", tokens)
    assert len(calls) == 5 and folders(cache) == folders(whole) == {name.removesuffix(".partial")}
    for file in (whole.folder / name.removesuffix(".partial")).iterdir():
        assert (cache.folder / name.removesuffix(".partial") / file.name).read_bytes() == file.read_bytes()


def test_two_processes_compute_half_of_the_blocks_each(
    open_cache: Open, tokens: TokenTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_cache("whole").read("toys", tokens).batch(range(len(tokens)))
    cache = open_cache()

    def other_process(listed: list[int]) -> list[int]:
        """What this process has to do; another one does its half meanwhile."""
        monkeypatch.setattr(text_cache, "own_part", lambda rest: rest[1::2])
        (partial,) = (path for path in cache.folder.iterdir() if path.name.endswith(".partial"))
        fingerprint = json.loads((partial / "fingerprint.json").read_text())
        blocks = [np.arange(start, min(start + 5, len(tokens))) for start in range(0, len(tokens), 5)]
        cache._encode(Store(partial.with_suffix(""), fingerprint), "toys", tokens, blocks)
        assert len(list(partial.glob("*.bin"))) == 1
        return listed[0::2]

    monkeypatch.setattr(text_cache, "own_part", other_process)
    found = cache.read("toys", tokens).batch(range(len(tokens)))
    assert whole.lower is not None and found.lower is not None
    assert torch.equal(found.lower.states, whole.lower.states)


# Of whole trainings

SYSTEMS = {  # system, fixtures of configuration and collection, overrides
    "nrccr": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected"]),
    "nrccr-all-frozen": ("nrccr", "tiny_config", "tiny_collection", ["reading=paper", "text.freeze=all_frozen"]),
    "mlcmr": ("mlcmr", "mlcmr_config", "both_languages", ["reading=corrected"]),
    "c2kd": ("c2kd", "c2kd_config", "tiny_languages", ["reading=corrected"]),
    "quartet": ("quartet", "quartet_config", "tiny_collection", []),
    "quartet-attention": (
        "quartet", "quartet_config", "tiny_collection",
        ["quartet.pooling=attention", "loss.cycle=0.5", "loss.adversary=0.1", "quartet.views=false"],
    ),
}  # fmt: skip


def trainer_of(case: tuple[str, Path, Path, list[str]], *overrides: str) -> Trainer:
    """A trainer in which the layers below the first that trains have no dropout, the others theirs."""
    system, config, root, own = case
    make_deterministic(0)
    frozen = [] if _all_frozen(case) else ["text.freeze=frozen", "text.trainable_layers=[1]"]
    found = load_config(config, [*own, *frozen, *overrides])
    task = part_of(system, "system").task(found, root, CPU, test=False)
    trainer = Trainer(found, task, Runtime(CPU), RunFolder(Path("unused")))
    encoder: Any = trainer.network.text
    for module in cut(encoder.backbone).lower.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    trainer.network.train()
    return trainer


@pytest.fixture(params=SYSTEMS)
def case(request: pytest.FixtureRequest) -> tuple[str, Path, Path, list[str]]:
    system, config, root, overrides = SYSTEMS[request.param]
    return system, request.getfixturevalue(config), request.getfixturevalue(root), overrides


def test_a_step_is_the_step_without_dropout_below(case: tuple[str, Path, Path, list[str]], tmp_path: Path) -> None:
    plain, cached = trainer_of(case), trainer_of(case, f"text.cache={tmp_path / 'cache'}")
    assert (tmp_path / "cache").is_dir()
    order = epoch_batches(len(plain.pairs), 8, 0, 0)[0]
    reports = []
    for trainer in (plain, cached):
        torch.manual_seed(3)
        reports.append(trainer.step(trainer.pairs.at_epoch(0)[order]))
    assert reports[0].keys() == reports[1].keys()
    for name, value in reports[0].items():
        torch.testing.assert_close(reports[1][name], value, rtol=1e-5, atol=1e-6, msg=name)
    gradients = {name: own.grad for name, own in cached.network.named_parameters() if own.grad is not None}
    wanted = {name: own.grad for name, own in plain.network.named_parameters() if own.grad is not None}
    assert gradients.keys() == wanted.keys() and any("backbone" in name for name in gradients) != _all_frozen(case)
    for name, value in wanted.items():
        atol = 1e-5 * max(float(value.abs().max()), 1e-2)
        torch.testing.assert_close(gradients[name], value, rtol=1e-5, atol=atol, msg=name)


def _all_frozen(case: tuple[str, Path, Path, list[str]]) -> bool:
    return "text.freeze=all_frozen" in case[3]


def test_validation_is_the_validation_of_the_whole_backbone(
    case: tuple[str, Path, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cached = trainer_of(case), trainer_of(case, f"text.cache={tmp_path / 'cache'}")
    assert plain.validate is not None and cached.validate is not None
    wanted = plain.validate().metrics
    monkeypatch.setattr("nrccr.models.backbone.lower_states", None)  # nothing below is computed
    found = cached.validate().metrics
    assert found.keys() == wanted.keys()
    assert float(found["SumR"]) == pytest.approx(float(wanted["SumR"])) if "SumR" in wanted else found == wanted


def test_training_test_and_resume(
    start: Command, nrccr_command: Command, tmp_path: Path, tiny_collection: Path
) -> None:
    cache = tmp_path / "cache"
    options = ("reading=corrected", "text.freeze=frozen", "text.trainable_layers=[1]", f"text.cache={cache}")
    run = tmp_path / "run"
    done = start("--out", run, *options, "--test", "train.epochs=1")
    assert done.code == 0, done.err
    assert {path.name.rpartition("-")[0] for path in cache.iterdir()} == {
        "vatex-train-source", "vatex-train-target", "vatex-train-back", "vatex-val-zh", "vatex-val-zh-translated"
    }  # fmt: skip
    made = {path: path.stat().st_mtime_ns for path in cache.rglob("states.bin")}
    assert start("--out", run, *options, "--resume", "train.epochs=2").code == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("states.bin")} == made
    record = json.loads((run / "run.json").read_text())
    assert record["frozen_layers"]["layers"] == 1
    (run / "run.json").write_text(json.dumps(record | {"frozen_layers": {"layers": 1, "weights": "others"}}))
    refused = start("--out", run, *options, "--resume", "train.epochs=3")
    assert refused.code == 2 and "the frozen_layers changed since" in refused.err
    shutil.rmtree(cache)  # a test does without, and does not write where a run says
    assert nrccr_command("test", run, "--root", tiny_collection, "--device", "cpu").code == 0
    assert not cache.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("reading=released", "text.freeze=frozen"),
            "text.cache keeps no states of padding, which counts in this reading; set reading=",
        ),
        (("reading=corrected", "text.freeze=none"), "text.cache keeps what frozen layers give"),
    ],
)
def test_what_a_cache_does_not_go_with(options: tuple[str, ...], says: str, tiny_config: Path) -> None:
    with pytest.raises(UserError, match=says):
        load_config(tiny_config, ["text.cache=cache", *options])


def test_padding_of_c2kd(c2kd_config: Path) -> None:
    frozen = ("text.freeze=frozen", "text.cache=cache")
    with pytest.raises(UserError, match="set reading=corrected, or switches.pool_mask=own"):
        load_config(c2kd_config, ["reading=released", *frozen])


def test_padding_of_mlcmr(mlcmr_config: Path) -> None:
    frozen = ("text.freeze=frozen", "text.cache=cache")
    with pytest.raises(UserError, match="set reading=corrected, or switches.pooling=masked"):
        load_config(mlcmr_config, ["reading=released", *frozen])
    assert load_config(mlcmr_config, ["reading=corrected", *frozen]).text.cache == "cache"


def test_the_states_of_a_whole_frozen_backbone(tiny_bert: Path, tokens: TokenTable, tmp_path: Path) -> None:
    backbone = build_backbone(backbone_config(str(tiny_bert), SIZES), None)
    freeze_backbone(backbone, "all_frozen", [])
    cache = TextCache(tmp_path / "cache", backbone, CPU, 4)
    text = cache.read("toys", tokens).batch([7, 4])
    backbone.eval()
    (wanted,), (found,) = backbone_states(backbone, [tokens.batch([7, 4])]), backbone_states(backbone, [text])
    torch.testing.assert_close(found[text.mask], wanted[text.mask], rtol=1e-5, atol=1e-5)
