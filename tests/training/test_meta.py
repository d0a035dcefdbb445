"""No step waits for its device: training and encoding run on torch's `meta` device, where there are no values to read.

There `.item()` and copies to the host raise; tensors of two devices in one operation are refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig

from nrccr.data.batch import TextBatch, VideoBatch
from nrccr.data.sampling import epoch_batches
from nrccr.data.tokens import TokenTable
from nrccr.distributed import Runtime
from nrccr.evaluation.encode import encode_texts
from nrccr.models.backbone import backbone_states, build_backbone
from nrccr.models.packing import packs
from nrccr.systems.c2kd import teacher_runs
from nrccr.systems.c2kd.batch import MultilingualBatch
from nrccr.systems.c2kd.teachers import PrecomputedTeachers, TeachersInLoop
from nrccr.systems.settings import load_config
from nrccr.systems.table import part_of
from nrccr.training import loop
from nrccr.training.loop import Trainer
from nrccr.training.runfolder import RunFolder

META = torch.device("meta")
CACHED = ["text.freeze=frozen", "text.trainable_layers=[1]", "text.cache=cache"]
STEPS = {  # system, fixtures of configuration and collection, overrides
    "nrccr-released": ("nrccr", "tiny_config", "tiny_collection", ["reading=released"]),
    "nrccr-paper": ("nrccr", "tiny_config", "tiny_collection", ["reading=paper"]),
    "nrccr-corrected": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected"]),
    "nrccr-frozen": ("nrccr", "tiny_config", "tiny_collection", ["text.freeze=frozen", "text.trainable_layers=[1]"]),
    "nrccr-basic": ("nrccr", "tiny_config", "tiny_collection", [f"loss.{name}=0" for name in ("cycle", "adversary")]),
    "nrccr-cached": ("nrccr", "tiny_config", "tiny_collection", ["reading=corrected", *CACHED]),
    "mlcmr-released": ("mlcmr", "mlcmr_config", "both_languages", ["reading=released"]),
    "mlcmr-corrected": ("mlcmr", "mlcmr_config", "both_languages", ["reading=corrected"]),
    "mlcmr-unparallel": ("mlcmr", "mlcmr_config", "both_languages", ["data.scenario=unparallel"]),
    "mlcmr-cached": ("mlcmr", "mlcmr_config", "both_languages", ["reading=corrected", *CACHED]),
    "c2kd-translate-train": ("c2kd", "c2kd_config", "tiny_languages", []),
    "c2kd-gaps": ("c2kd", "c2kd_config", "gaps", []),
    "c2kd-distill": ("c2kd", "c2kd_config", "gaps", ["c2kd.stage=distill", "c2kd.precompute=false"]),
    "c2kd-learned-pools": (
        "c2kd", "c2kd_config", "gaps", ["c2kd.stage=distill", "c2kd.precompute=false", "c2kd.pooling=learned_pools"],
    ),
    "nrccr-clip": ("nrccr", "clip_config", "tiny_images", ["image.trainable=true"]),
    "nrccr-clip-corrected": ("nrccr", "clip_config", "tiny_images", ["image.trainable=true", "reading=corrected"]),
    "nrccr-vectors": ("nrccr", "clip_config", "tiny_images", ["visual.kind=vectors"]),
    "c2kd-zero-shot": ("c2kd", "c2kd_config", "tiny_languages", ["c2kd.stage=zero_shot"]),
    "quartet": ("quartet", "quartet_config", "tiny_collection", []),
    "c2kd-cached": ("c2kd", "c2kd_config", "tiny_languages", ["reading=corrected", *CACHED]),
    "quartet-cached": ("quartet", "quartet_config", "tiny_collection", CACHED),
    "quartet-triplet": (
        *("quartet", "quartet_config", "tiny_collection"),
        ["quartet.ranking=triplet", "quartet.least_temperature=0.01"],
    ),
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {  # of encoders that do not pack
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"},
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2},
    "xlm-roberta-xl": {},
}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, and those that read a value or move one to the host."""

    # A packed sequence keeps its lengths on the host; they are in the batch.
    ON_HOST = ("_pack_padded_sequence", "_pad_packed_sequence", "gru")

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        given = [value for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)]
        name = str(function)
        devices = {value.device.type for value in given if value.dim()}
        if len(devices) > 1 and not any(part in name for part in self.ON_HOST):
            raise AssertionError(f"{name} of tensors on {devices}")
        if "_local_scalar_dense" in name and "meta" in {value.device.type for value in given}:
            raise AssertionError(f"{name} reads a value")
        if "_to_copy" in name and given[0].device.type == "meta" and str(options.get("device", "meta")) != "meta":
            raise AssertionError(f"{name} moves values to the host")
        return function(*arguments, **options)


@pytest.fixture(autouse=True)
def autocast_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast, which knows no meta device, does nothing there."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device_type, *more, **options: (
            nullcontext() if device_type == "meta" else autocast(device_type, *more, **options)
        ),
    )


@pytest.fixture
def clip_config(write_tiny: Callable[..., Path], tiny_clip: Path) -> Path:
    """A configuration that trains NRCCR on raw images."""
    image: dict[str, object] = {"model": str(tiny_clip), "pretrained": False}
    return write_tiny(
        "nrccr/multi30k-small.yaml", text={"width": 32, "heads": 4}, visual={"kind": "clip", "width": 32}, image=image
    )


@pytest.fixture
def gaps(tiny_languages: Path) -> Path:
    """The collection in three languages, where half of the videos lack a German caption and two an English one."""
    for language, lacking in (("de", range(6)), ("en", (2, 7)), ("en_words", (2, 7))):
        path = tiny_languages / "multi_msrvtt" / "TextData" / f"multi_msrvtttrain_{language}.caption.txt"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(tuple(f"train{video}#" for video in lacking))]
        if language == "en":  # and a caption without a word
            kept[-1] = f"{kept[-1].split()[0]} ...!\n"
        path.write_text("".join(kept if language != "en_words" else kept[:-1]), encoding="utf-8")
    return tiny_languages


@pytest.fixture(params=STEPS)
def trainer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nrccr_command: Callable[..., Any]
) -> Trainer:
    """A trainer of a system on the meta device."""
    system, config, root, overrides = STEPS[request.param]
    monkeypatch.chdir(tmp_path)
    path, folder = request.getfixturevalue(config), request.getfixturevalue(root)
    if "c2kd.stage=distill" in overrides:
        teacher = ("--root", folder, "--device", "cpu", "--out", tmp_path / "teacher", "train.epochs=1")
        assert nrccr_command("train", path, *teacher).code == 0
        overrides = [*overrides, f"c2kd.teachers=[{tmp_path / 'teacher'}]"]
    found = load_config(path, [*overrides, "text.pretrained=false"])
    monkeypatch.setattr(
        teacher_runs, "TeachersInLoop", lambda networks: TeachersInLoop([own.to(META) for own in networks])
    )
    task = part_of(system, "system").task(found, folder, torch.device("cpu"), test=False)
    # The fused kernel is not made for meta tensors; it reads no values either.
    monkeypatch.setattr(
        loop, "adam", lambda module, rate, apart=None: torch.optim.Adam(loop.trainable(module), rate, foreach=True)
    )
    runtime = Runtime(torch.device("cpu"))
    runtime.device = META
    made = Trainer(found, task, runtime, RunFolder(Path("unused")))
    made.network.train()
    return made


def batches(trainer: Trainer) -> list[Any]:
    """Two batches."""
    size = trainer.config.train.batch_size
    return [trainer.pairs.at_epoch(0)[chosen] for chosen in epoch_batches(len(trainer.pairs), size, 0, 0)[:2]]


def test_a_training_step_reads_no_value(trainer: Trainer) -> None:
    for batch in batches(trainer):
        moved = batch.to(META)
        with OneDevice():
            trainer.progress.window.add(trainer.step(moved))
    sums = trainer.progress.window.sums
    assert {"total", "gradient_norm"} < sums.keys() and {value.device for value in sums.values()} == {META}


def test_encoding_reads_no_value(trainer: Trainer) -> None:
    network: Any = trainer.network
    for part in batches(trainer)[0].to(META).parts:
        texts = part.texts if hasattr(part, "texts") else [part.source]
        texts = [own.text for own in texts.values()] if isinstance(texts, dict) else texts
        with OneDevice():
            found = [*(network.embed_text(text) for text in texts), network.embed_visual(part.visual)]
        assert {vectors.device for vectors in found} == {META} and all(vectors.dim() == 2 for vectors in found)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_that_does_not_pack_reads_no_value(kind: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model(kind, vocab_size=50, pad_token_id=0, **sizes, **KINDS[kind])
    backbone = build_backbone(config, None).to(META).train()
    text = TextBatch(torch.ones(3, 5, dtype=torch.long, device=META), torch.ones(3, 5, dtype=torch.bool, device=META))
    with OneDevice():
        states = backbone_states(backbone, [text, text])
        torch.cat(states).sum().backward()
    assert not packs(backbone) and [own.shape for own in states] == [(3, 5, 32)] * 2


def test_encoding_of_a_whole_set_reads_no_value() -> None:
    class Network:
        independent = True

        def embed_text(self, text: TextBatch) -> Tensor:
            return text.tokens.float() @ torch.ones(text.tokens.shape[1], 6, device=text.tokens.device)

    table = TokenTable([np.arange(1, 2 + row % 4) for row in range(11)], pad=0)
    with OneDevice():
        found = encode_texts(Network(), table, 4, META)  # type: ignore[arg-type]
    assert found.device == META and found.shape == (11, 6)


def test_precomputed_teachers_read_no_value() -> None:
    taught = PrecomputedTeachers([(torch.ones(9, 6, device=META), torch.ones(7, 6, device=META))])
    text = TextBatch(torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool))
    video = VideoBatch(torch.ones(3, 2, 5), torch.ones(3, 2))
    rows = {"en": torch.tensor([0, 2])}
    batch = MultilingualBatch.of({"en": text}, rows, video, english=torch.tensor([4, 8]), items=torch.tensor([6, 0, 1]))
    moved = batch.to(META)
    with OneDevice():
        assert taught(moved).shape == (1, 2, 2)


@pytest.mark.parametrize("kind", ["item", "host", "bool", "mixed", "nonzero"])
def test_the_test_sees_what_waits(kind: str) -> None:
    values = torch.ones(3, device=META)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OneDevice():
        if kind == "item":
            values.sum().item()
        elif kind == "host":
            values.cpu()
        elif kind == "bool":
            assert values.all()
        elif kind == "nonzero":
            values.nonzero()
        else:
            values + torch.ones(3)


def test_lengths_stay_on_the_host() -> None:
    lengths = np.array([2, 1])
    video = VideoBatch(torch.ones(2, 2, 4), torch.ones(2, 2), lengths=lengths).to(META)
    assert video.lengths is lengths and video.frames.device == META
