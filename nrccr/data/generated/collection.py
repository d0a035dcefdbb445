"""Writes the generated collection in the layout of every other one, so that all commands work on it unchanged."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers
from tqdm import tqdm
from transformers import BertConfig

from nrccr.data.bigfile import write_bigfile
from nrccr.data.captions import caption_line, write_captions
from nrccr.data.collections import GENERATED, HUMAN, SPLITS, TRANSLATED, VIDEO_FILES, SplitName, errors_of
from nrccr.data.generated.chinese import CHINESE
from nrccr.data.generated.english import ENGLISH
from nrccr.data.generated.german import GERMAN
from nrccr.data.generated.media import write_media
from nrccr.data.generated.noise import HIGHEST_RATE, Translation, Translator
from nrccr.data.generated.scenes import Scene, draw, handwriting, make_scenes, split_samples
from nrccr.data.generated.words import Grammar, Plan, Word, make_plan
from nrccr.errors import UserError
from nrccr.extras import need
from nrccr.files import atomic_folder, read_json, write_json, write_text

_RATE = re.compile(r"noise(\d+)")
TARGETS: Mapping[str, Grammar] = {"de": GERMAN, "zh": CHINESE}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
RARE = 10  # a word that occurs less often is spelt in pieces
BACKBONE = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
POSITIONS = 128


@dataclass(frozen=True)
class Recipe:
    """The parameters of a generated collection, which determine every byte.

    Attributes:
        seed: of scenes, captions and errors.
        rates: shares of the words that translators get wrong, one translator each.
        videos: how many in training, validation and test.
        captions: how many of each video.
    """

    seed: int = 0
    rates: tuple[float, ...] = (0.0, 0.2, 0.4)
    videos: tuple[int, int, int] = (600, 100, 300)
    captions: int = 5

    def check(self) -> None:
        """Refuse what cannot be made.

        Raises:
            UserError: a number out of range.
        """
        if not self.rates or any(not 0 <= rate <= HIGHEST_RATE for rate in self.rates):
            raise UserError(f"noise rates {self.rates} must lie between 0 and {HIGHEST_RATE}, at least one of them")
        if len({translator_name(rate) for rate in self.rates}) < len(self.rates):
            raise UserError(f"noise rates {self.rates} must differ, in whole percent")
        if min(self.videos) < 2 or self.captions < 1:
            raise UserError(
                f"{self.videos} videos with {self.captions} captions: give 2 videos a split, 1 caption each"
            )


@dataclass(frozen=True)
class Caption:
    """One caption to be written: whose, and its content."""

    scene: Scene
    number: int
    plan: Plan


def translator_name(rate: float) -> str:
    """The translator who gets a share of the words wrong: 0.2 -> `noise20`, as `data.translator` takes it."""
    return f"noise{round(100 * rate)}"


def rate_of(translator: str) -> int | None:
    """Percent of wrong words that a translator of the generated collection is named after, else None."""
    found = _RATE.fullmatch(translator)
    return int(found[1]) if found else None


def generate(out: Path, recipe: Recipe, *, media: bool = False) -> Path:
    """Write the collection into the folder `generated` of `out`; it appears whole or not at all.

    Besides captions and features it holds `scenes.jsonl` (what happens in every video), `backbone/` (configuration and
    vocabulary of a small text encoder) and, beside every translated file, `.errors.jsonl` with its clean sentences.

    Args:
        out: where the folder is made.
        recipe: what is in it.
        media: write every video as a film too, `media/<id>.mp4`.

    Returns:
        the folder.

    Raises:
        UserError: it exists already, the recipe is out of range, or films are wanted and PyAV is not installed.
    """
    recipe.check()
    if media:
        need("av", "extract")
    folder = out / GENERATED.names[0]
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another folder or remove this one")
    pixels, digits = handwriting()
    samples = split_samples(digits, recipe.seed)
    scenes = {
        split: make_scenes(split, count, samples[split], recipe.seed)
        for split, count in zip(SPLITS, recipe.videos, strict=True)
    }
    everything = [scene for split in SPLITS for scene in scenes[split]]
    with atomic_folder(folder) as temporary:
        progress = tqdm(everything, desc="videos", unit="video", disable=None, leave=False)
        frames = ((scene.video, draw(scene, pixels).reshape(scene.frames, -1)) for scene in progress)
        write_bigfile(temporary / "FeatureData" / GENERATED.feature, frames)
        if media:
            films = tqdm(everything, desc="films", unit="film", disable=None, leave=False)
            write_media(temporary / "media", films, pixels)
        texts = temporary / "TextData"
        seen = list(_write_training(texts, scenes["train"], recipe))
        others = [caption for split in SPLITS for caption in _write_queries(texts, split, scenes[split], recipe)]
        for split in SPLITS[1:]:
            others += _write_english_queries(texts, split, scenes[split], recipe)
        write_text(temporary / "scenes.jsonl", _lines(asdict(scene) for scene in everything))
        write_json(temporary / "recipe.json", asdict(recipe))
        _write_backbone(temporary / "backbone", seen, others)
    return folder


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe of a generated collection; None if it is unknown."""
    try:
        found = read_json(folder / "recipe.json", "")
        return Recipe(int(found["seed"]), tuple(found["rates"]), tuple(found["videos"]), int(found["captions"]))
    except (UserError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _write_training(texts: Path, scenes: Sequence[Scene], recipe: Recipe) -> Iterator[str]:
    """Write English captions, their translations and the way back; give all these captions."""
    captions = list(_captions(scenes, "en", recipe))
    english = [ENGLISH.render(c.plan, _random(recipe, "source", c)) for c in captions]
    yield from _write_captions(texts / _name(HUMAN["en"], "train"), "enc", captions, map(ENGLISH.spell, english))
    for target, grammar in TARGETS.items():
        clean = [grammar.render(c.plan, _random(recipe, target, c)) for c in captions]
        paraphrase = [ENGLISH.render(c.plan, _random(recipe, f"{target} back", c)) for c in captions]
        for rate in recipe.rates:
            name = translator_name(rate)
            there = Translator(target, grammar, rate, random.Random(f"{recipe.seed} {target} {name}"))
            back = Translator("en", ENGLISH, rate, random.Random(f"{recipe.seed} {target} {name} back"))
            forth = [there.translate(*pair) for pair in zip(clean, english, strict=True)]
            file = texts / _name(TRANSLATED["x"], "train", name, target)
            yield from _write_translations(file, target, grammar, captions, forth)
            returned = [_return(back, words, translation) for words, translation in zip(paraphrase, forth, strict=True)]
            file = texts / _name(VIDEO_FILES["train"]["back"], "train", name, target)
            yield from _write_translations(file, "enc", ENGLISH, captions, returned)


def _return(translator: Translator, clean: Sequence[Word], there: Translation) -> Translation:
    """The way back starts from the errors of the way there and adds its own."""
    back = translator.translate(translator.repeat(clean, there.slips), there.noisy)
    return Translation(list(clean), back.noisy, [*there.slips, *back.slips])


def _write_queries(texts: Path, split: SplitName, scenes: Sequence[Scene], recipe: Recipe) -> Iterator[str]:
    """Write a split's human captions in the target languages and their translations into English; give all these."""
    for target, grammar in TARGETS.items():
        captions = list(_captions(scenes, target, recipe))
        purpose = f"{target} human" if split == "train" else target  # in training the plain name is the translations'
        queries = [grammar.render(c.plan, _random(recipe, purpose, c)) for c in captions]
        english = [ENGLISH.render(c.plan, _random(recipe, f"{target} source", c)) for c in captions]
        file = texts / _name(HUMAN["x"], split, "", target)
        yield from _write_captions(file, target, captions, map(grammar.spell, queries))
        for rate in recipe.rates:
            name = translator_name(rate)
            translator = Translator("en", ENGLISH, rate, random.Random(f"{recipe.seed} {split} {target} {name}"))
            sources = [translator.translate(*pair) for pair in zip(english, queries, strict=True)]
            file = texts / _name(TRANSLATED["en"], split, name, target)
            yield from _write_translations(file, "enc", ENGLISH, captions, sources)


def _write_english_queries(texts: Path, split: SplitName, scenes: Sequence[Scene], recipe: Recipe) -> Iterator[str]:
    """Write a split's human captions in English and their translations into the target languages; give all these."""
    captions = list(_captions(scenes, "en", recipe))
    english = [ENGLISH.render(c.plan, _random(recipe, "source", c)) for c in captions]
    yield from _write_captions(texts / _name(HUMAN["en"], split), "enc", captions, map(ENGLISH.spell, english))
    for target, grammar in TARGETS.items():
        clean = [grammar.render(c.plan, _random(recipe, f"{target} of source", c)) for c in captions]
        for rate in recipe.rates:
            name = translator_name(rate)
            translator = Translator(target, grammar, rate, random.Random(f"{recipe.seed} {split} en {target} {name}"))
            there = [translator.translate(*pair) for pair in zip(clean, english, strict=True)]
            file = texts / _name(TRANSLATED["x"], split, name, target)
            yield from _write_translations(file, target, grammar, captions, there)


def _captions(scenes: Sequence[Scene], language: str, recipe: Recipe) -> Iterator[Caption]:
    for scene in scenes:
        choose = random.Random(f"{recipe.seed} {scene.video} {language} plans")
        for number in range(recipe.captions):
            yield Caption(scene, number, make_plan(scene, choose))


def _random(recipe: Recipe, purpose: str, caption: Caption) -> random.Random:
    return random.Random(f"{recipe.seed} {caption.scene.video} {caption.number} {purpose}")


def _name(templates: Sequence[str], split: SplitName, translator: str = "", target: str = "") -> str:
    words = {"c": GENERATED.names[0], "split": split, "t": translator, "x": target}
    return templates[0].format(**words) + ".caption.txt"


def _write_captions(file: Path, tag: str, captions: Sequence[Caption], texts: Iterable[str]) -> list[str]:
    """Write a caption file; give its captions."""
    written = list(texts)
    pairs = zip(captions, written, strict=True)
    write_captions(file, (caption_line(own.scene.video, tag, own.number, text) for own, text in pairs))
    return written


def _write_translations(
    file: Path, tag: str, grammar: Grammar, captions: Sequence[Caption], translations: Sequence[Translation]
) -> list[str]:
    """A translated file, and beside it, line for line, clean words, noisy words, errors; give the noisy captions."""
    lines = (
        {
            "item": caption.scene.video,
            "number": caption.number,
            "clean": _texts(translation.clean),
            "noisy": _texts(translation.noisy),
            "errors": [slip.kind for slip in translation.slips],
        }
        for caption, translation in zip(captions, translations, strict=True)
    )
    write_text(errors_of(file), _lines(lines))
    return _write_captions(file, tag, captions, (grammar.spell(translation.noisy) for translation in translations))


def _texts(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words if word.text != ","]


def _lines(values: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _write_backbone(folder: Path, captions: Iterable[str], others: Iterable[str]) -> None:
    """Configuration and vocabulary of a small BERT: the captions' frequent words whole, every character as a piece.

    Characters that only `others` have, which NRCCR never trains on, come last.
    """
    normalise, cut = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()

    def words(texts: Iterable[str]) -> Counter[str]:
        normal = (normalise.normalize_str(text) for text in texts)
        return Counter(word for text in normal for word, _ in cut.pre_tokenize_str(text))

    counts = words(captions)
    characters = sorted({character for word in counts for character in word})
    frequent = [word for word in sorted(counts, key=lambda word: (-counts[word], word)) if counts[word] >= RARE]
    rare = sorted({character for word in words(others) for character in word} - {*characters})
    pieces = dict.fromkeys([*SPECIAL, *_spelt(characters), *frequent, *_spelt(rare)])
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in pieces))
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=POSITIONS, **BACKBONE)
    config.save_pretrained(folder)


def _spelt(characters: Sequence[str]) -> list[str]:
    """Pieces of characters: at the beginning of a word, and within one."""
    return [*characters, *(f"##{character}" for character in characters)]
