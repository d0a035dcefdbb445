"""How the teacher looks at captions and their translations, word by word.

V source words, W target words, S pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nrccr.data.generated.errors import Fate, Known, spelt
from nrccr.data.pieces import Words, join_pieces
from nrccr.data.sampling import Indices
from nrccr.errors import UserError
from nrccr.evaluation.trust import special_share, trust, word_attention, word_similarity
from nrccr.report.translations import Translations
from nrccr.systems.retriever import Retriever

PAIRS = 6  # in a figure
SHORTEST, LONGEST = 6, 18  # tokens of a caption that is chosen by rule
SAMPLE, SEED = 1000, 0  # pairs whose words are counted
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """One caption, its translation, and how the teacher looks at it.

    Attributes:
        id: of the pair.
        source, target: the words of both (V and W).
        attention: (V, W), rows sum to 1.
        trust: (W,), 1 is an even share.
        similarity: (W,) mean cosine of a target word with the source words.
        special: share of the attention that went to special tokens and is left out, 0..1.
        fates: (W,) what is known of each target word; none where nothing is, and for punctuation.
    """

    id: str
    source: Words
    target: Words
    attention: Floats
    trust: Floats
    similarity: Floats
    special: float
    fates: list[Fate | None]


def has_teacher(retriever: Retriever) -> bool:
    """Whether a teacher was trained that attends to translations."""
    return bool(getattr(retriever.network, "with_teacher", False))


def find_pairs(translations: Translations, ids: Sequence[str]) -> Indices:
    """Positions of the pairs with these ids.

    Raises:
        UserError: the training split has no such caption.
    """
    place = {own: at for at, own in enumerate(translations.ids)}
    missing = [own for own in ids if own not in place]
    if missing:
        raise UserError(
            f"--pair: caption {missing[0]!r} is not in the training split of {translations.split.collection}; give "
            f"ids as {translations.ids[0]!r}"
        )
    return np.array([place[own] for own in ids], dtype=np.int64)


def choose_worst(retriever: Retriever, translations: Translations, sample: Indices) -> tuple[list[str], str]:
    """Ids of the worst translations of a sample, at most one an item, and the rule in a sentence."""
    source, target = translations.source, translations.target
    lengths = np.stack([source.words[translations.source_at[sample]], target.words[translations.target_at[sample]]])
    legible = sample[((lengths >= SHORTEST) & (lengths <= LONGEST)).all(axis=0)]
    candidates = legible if len(legible) else sample
    vectors = translations.embed(retriever, candidates)
    assert vectors.source is not None
    doubt = (1 - (vectors.source * vectors.target).sum(dim=1)).tolist()
    lost = [0.0 if (known := translations.known[at]) is None else known.lost() for at in candidates.tolist()]
    order = sorted(range(len(candidates)), key=lambda at: (-lost[at], -doubt[at]))
    of_items: dict[int, str] = {}
    for at in candidates[order].tolist():
        of_items.setdefault(int(translations.item_of[at]), translations.ids[at])
    first = "the largest share of words that are lost or replaced, then " if any(lost) else ""
    rule = (
        f"They are the worst translations of {len(sample):,} training captions (drawn with seed {SEED}) among those of "
        f"{SHORTEST} to {LONGEST} tokens: those with {first}the largest disagreement (1 - cosine) of source and "
        "translation, one of each item."
    )
    return list(of_items.values())[:PAIRS], rule


def look(
    retriever: Retriever,
    translations: Translations,
    chosen: Indices,
    targets: Sequence[str] | None = None,
    known: Sequence[Known | None] | None = None,
) -> Iterator[Look]:
    """How the teacher looks at pairs, batch by batch; those without words on a side are left out.

    Args:
        retriever: a model with a teacher.
        translations: of its training.
        chosen: (S,) positions of the pairs.
        targets: (S,) target texts; by default the translations.
        known: (S,) what is known of them.
    """
    size = retriever.config.evaluation.batch_size
    sources = retriever.model.cleaning.of_training([translations.sources[at] for at in chosen.tolist()])
    targets = [translations.targets[at] for at in chosen.tolist()] if targets is None else targets
    known = [translations.known[at] for at in chosen.tolist()] if known is None else known
    for start in range(0, len(chosen), size):
        rows = range(start, min(start + size, len(chosen)))
        given = retriever.network.teacher_attention(
            *(
                retriever.tokenizer.encode(texts[start : rows.stop]).batch(range(len(rows))).to(retriever.device)
                for texts in (sources, targets)
            )
        )
        weights_of, cosines_of = (part.cpu().numpy() for part in given)  # (N, S, T) both
        for row, weights, cosines in zip(rows, weights_of, cosines_of, strict=True):
            pieces = retriever.tokenizer.pieces(targets[row])
            source, target = join_pieces(retriever.tokenizer.pieces(sources[row])), join_pieces(pieces)
            if not source.texts or not target.texts:
                continue
            attention = word_attention(weights, source.word_of, target.word_of)
            told = known[row]
            yield Look(
                translations.ids[int(chosen[row])],
                source,
                target,
                attention,
                trust(attention, target.word_of),
                word_similarity(cosines, source.word_of, target.word_of),
                special_share(weights, source.word_of, target.word_of),
                [None] * len(target.texts) if told is None else told.fates_in(pieces.text, target.spans),
            )


def count_trust(retriever: Retriever, translations: Translations, sample: Indices) -> dict[str, Floats]:
    """Trust in all target words of a sample, and their similarity, by kind, where the clean sentences are known.

    Both sentences are spelt alike, without commas.

    Returns:
        (2, words) by kind, trust and similarity: `right`, `moved` and `wrong` words of the translations, and `lost`:
        the words of the clean sentence that the translation lacks, where the teacher is given that sentence.
    """
    chosen = np.array([at for at in sample.tolist() if translations.known[at] is not None], dtype=np.int64)
    known = [own for at in chosen.tolist() if (own := translations.known[at]) is not None]
    found: dict[str, list[tuple[float, float]]] = {"right": [], "moved": [], "wrong": [], "lost": []}
    for told, names in ((known, ("right", "moved", "wrong")), ([own.corrected() for own in known], ("", "", "lost"))):
        texts = [spelt(own.noisy, translations.language) for own in told]
        for own in look(retriever, translations, chosen, texts, told):
            for fate, name in zip(("right", "moved", "wrong"), names, strict=True):
                if name:
                    words = zip(own.trust.tolist(), own.similarity.tolist(), own.fates, strict=True)
                    found[name] += [(trusted, alike) for trusted, alike, each in words if each == fate]
    return {name: np.array(values).T for name, values in found.items() if values}
