"""MTEB's own retrieval task on small local collections: its recall and nDCG are those of our ranks.

Q queries, N items.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nrccr
from nrccr.data.bigfile import BigFile
from nrccr.errors import UserError
from nrccr.evaluation.metrics import retrieval_metrics

mteb: Any = pytest.importorskip("mteb", reason="needs the extra mteb")
datasets: Any = pytest.importorskip("datasets", reason="needs the extra mteb")

NAMES = {"ndcg_at_10": "nDCG@10"} | {f"recall_at_{k}": f"R@{k}" for k in (1, 5, 10)}  # MTEB's, ours


def local_task(category: str, modalities: list[str], queries: Any, corpus: Any, relevant: dict[str, Any]) -> Any:
    """A task of MTEB's class for retrieval whose data is given, not fetched."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Local{category}",
            description="A small local collection.",
            dataset={"path": "local/none", "revision": "1"},
            type="Any2AnyRetrieval",
            category=category,
            modalities=modalities,
            eval_langs=["zho-Hans"],
            main_score="ndcg_at_10",
        )

        def load_data(self, *arguments: Any, **options: Any) -> None:
            split = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def scores_of(encoder: Any, task: Any) -> dict[str, float]:
    """What MTEB measures."""
    found = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = found.task_results[0].scores["test"]
    return scores


def ours(scores: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Recall@k and nDCG@10 of scores (Q, N), by our own metrics, as shares."""
    metrics = retrieval_metrics(scores, right)
    return {theirs: metrics[own] / 100 for theirs, own in NAMES.items()}


def agree(theirs: dict[str, float], own: dict[str, float]) -> None:
    assert 0 < own["ndcg_at_10"] < 1 and 0 < own["recall_at_5"] < 1, "nothing to compare"
    for name, value in own.items():
        assert theirs[name] == pytest.approx(value, abs=1e-5), name  # MTEB rounds to five digits


def read_captions(path: Path) -> list[tuple[str, str]]:
    """(id, text) of each line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def as_task(kind: str, captions: list[tuple[str, str]], items: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """A task of captions, each of the item that its id begins with, and the place (Q,) of each caption's item."""
    queries = datasets.Dataset.from_dict({"id": [name for name, _ in captions], "text": [text for _, text in captions]})
    corpus = datasets.Dataset.from_dict({"id": list(items), kind: list(items.values())})
    relevant = {name: {name.split("#")[0]: 1} for name, _ in captions}
    places = np.array([list(items).index(name.split("#")[0]) for name, _ in captions])
    return local_task(f"t2{kind[0]}", ["text", kind], queries, corpus, relevant), places


def test_text_to_video(trained: Path, tiny_collection: Path, run_test: Any) -> None:
    from nrccr.integrations.mteb import Encoder

    features = BigFile(tiny_collection / "vatex" / "FeatureData" / "i3d_kinetics")
    videos = {f"test{at}": features.read([features.rows(f"test{at}")])[0][0] for at in range(8)}  # (F, 16) each
    captions = read_captions(tiny_collection / "vatex" / "TextData" / "vatextest_zh.caption.txt")
    task, right = as_task("video", captions, {name: frames.tolist() for name, frames in videos.items()})
    retriever = nrccr.load(trained)
    theirs = scores_of(Encoder(retriever), task)
    scores = retriever.encode_text([text for _, text in captions]) @ retriever.encode_video([*videos.values()]).T
    agree(theirs, ours(scores, right))
    assert run_test(trained, "evaluation.target_weight=1").code == 0
    tested = json.loads((trained / "test" / "metrics.json").read_text())["text_to_visual"]
    for name, own in NAMES.items():
        assert theirs[name] == pytest.approx(tested[own] / 100, abs=1e-5)


def test_text_to_image_from_pixels_and_through_features(
    image_run: Any, trained: Path, tiny_images: Path, tmp_path: Path
) -> None:
    from mteb.types import PromptType

    from nrccr.integrations.mteb import Encoder

    run = tmp_path / "clip"
    assert image_run("train", "--out", run, "visual.kind=clip", "train.epochs=1").code == 0
    pictures = {f"test{at}": Image.open(tiny_images / f"multi30k/flickr30k-images/test{at}.jpg") for at in range(8)}
    captions = read_captions(next((tiny_images / "multi30k" / "TextData").glob("multi30ktest_de_2016*.caption.txt")))
    captions = [(name.replace(".jpg", ""), text) for name, text in captions]
    task, right = as_task("image", captions, pictures)
    retriever = nrccr.load(run)
    theirs = scores_of(Encoder(retriever), task)
    scores = retriever.encode_text([text for _, text in captions]) @ retriever.encode_image([*pictures.values()]).T
    agree(theirs, ours(scores, right))

    def brightness(image: Image.Image) -> np.ndarray:
        """One frame of sixteen numbers, as a model of frame features takes it."""
        return np.asarray(image.convert("L").resize((4, 4)), dtype=np.float32).reshape(1, 16) / 255

    videos = nrccr.load(trained)
    with pytest.raises(UserError, match="its inputs are image; this model takes text or video"):
        Encoder(videos).encode([{"image": []}], task_metadata=task.metadata, prompt_type=PromptType.document)
    moving, right = as_task("video", captions, {name: [0] for name in pictures})
    kept = dict(zip(pictures, pictures.values(), strict=True))
    seen = iter(kept.values())
    theirs = scores_of(Encoder(videos, features=lambda _: brightness(next(seen))), moving)
    found = videos.encode_video([brightness(image) for image in kept.values()])
    agree(theirs, ours(videos.encode_text([text for _, text in captions]) @ found.T, right))


def test_what_the_encoder_says_of_itself(trained: Path) -> None:
    from mteb.models.models_protocols import EncoderProtocol

    from nrccr.integrations.mteb import Encoder

    encoder = Encoder(nrccr.load(trained))
    meta = encoder.mteb_model_meta
    assert isinstance(encoder, EncoderProtocol)
    assert (meta.name, meta.embed_dim, meta.modalities) == ("nrccr/run", 24, ["text", "video"])
    other = nrccr.load(trained)
    assert meta.revision == Encoder(other).mteb_model_meta.revision
    other.network.map_text.linear.bias.data.add_(1)
    other.save_pretrained(trained.parent / "changed")
    changed = Encoder(nrccr.load(trained.parent / "changed")).mteb_model_meta
    assert changed.revision != meta.revision, "results are cached by it"
    with pytest.raises(UserError, match="role='back'"):
        Encoder(nrccr.load(trained), role="back")
