"""A sequence-to-sequence model of transformers that translates texts: Marian, NLLB or M2M100.

N texts in a batch, L tokens.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from nrccr.errors import UserError, first_line
from nrccr.extras import need
from nrccr.features.fingerprint import hash_encoder
from nrccr.models.pretrained import load_pretrained
from nrccr.terminal import without_hints
from nrccr.translation.codes import marian_prefix, model_code

KINDS = ("marian", "m2m_100", "nllb-moe")  # NLLB has M2M100's network
BEAMS = 4
BATCH_SIZE = 32
_COMPUTED = r"(.*\.)?(embed_positions\.weights?|final_logits_bias)$"  # which some folders lack: sines, zeros


class Translator:
    """Translates from one language into another; the same texts in the same batches give the same translations.

    Args:
        model: the network, in evaluation mode on its device.
        tokenizer: its tokeniser.
        prefix: what stands before every text, for a Marian model of several languages.
        first: the token that a translation begins with, where the target language decides that.
        beams: width of the search.
        kind: marian, or one that translates in all directions.
        name: the option and the model, for messages.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        prefix: str,
        first: int | None,
        beams: int,
        kind: str,
        name: tuple[str, str],
    ) -> None:
        self.network, self._tokenizer, self._prefix = model, tokenizer, prefix
        self.beams, self.kind, self.name = beams, kind, name
        self._longest = min(getattr(model.config, "max_position_embeddings", 512), 512)
        own = model.generation_config
        self._generation = {
            "num_beams": beams,
            "do_sample": False,
            "early_stopping": beams > 1,
            "forced_bos_token_id": first,
            **{
                name: getattr(own, name)
                for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bad_words_ids")
            },
        }

    @property
    def fingerprint(self) -> str:
        """A hash of what a translation depends on: weights, vocabulary, languages, search."""
        settings = {
            "vocabulary": sorted(self._tokenizer.get_vocab().items()),
            "source": getattr(self._tokenizer, "src_lang", None),
            "prefix": self._prefix,
            "generation": self._generation,
        }
        text = f"{hash_encoder(self.network)} {json.dumps(settings, sort_keys=True)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def translate(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> list[str]:
        """Translations of texts, in their order; batches are of like length."""
        translations = [""] * len(texts)
        for batch in self.batches(texts, batch_size):
            for index, text in zip(batch, self.translate_batch([texts[i] for i in batch]), strict=True):
                translations[index] = text
        return translations

    def batches(self, texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
        """Positions of texts of like length, the longest first, so that a lack of memory shows at once."""
        order = sorted(range(len(texts)), key=lambda index: (-len(texts[index]), texts[index], index))
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]

    @torch.inference_mode()
    def translate_batch(self, texts: Sequence[str]) -> list[str]:
        """Translations of one batch; a text beyond the model's positions is cut."""
        tokens = self._tokenizer(
            [self._prefix + " ".join(text.split()) for text in texts],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._longest,
            split_special_tokens=True,  # `</s>` typed in a caption stays text
        ).to(self.network.device)  # (N, L)
        # Twice the source and a little more: a translation that loops ends there.
        limit = min(self._longest, 2 * tokens["input_ids"].shape[1] + 16)
        settings = GenerationConfig(**self._generation, max_length=limit)
        made = self.network.generate(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], generation_config=settings
        )  # (N, at most the limit)
        # Marian's tokeniser would spell the translation with the pieces of the source.
        options = {"use_source_tokenizer": False} if hasattr(self._tokenizer, "spm_target") else {}
        start = 2 if self._generation["forced_bos_token_id"] is not None else 1  # the language's token is no text
        decoded = self._tokenizer.batch_decode(made[:, start:].tolist(), skip_special_tokens=True, **options)
        return [" ".join(text.split()) for text in decoded]


def load_translator(
    model: str, source: str, target: str, device: torch.device, *, beams: int = BEAMS, option: str = "--model"
) -> Translator:
    """A translator of one direction.

    Args:
        model: folder or hub name of a Marian, NLLB or M2M100 model; a Marian model has its direction, which nothing
            in its folder says for certain.
        source: language of the texts, an ISO code.
        target: language of the translations.
        device: where to compute.
        beams: width of the search.
        option: of the command line that names the model, for messages.

    Raises:
        UserError: no such model, another kind, weights or a vocabulary that lack something, an unknown language.
    """
    need("sentencepiece", "translate")
    kind = _kind(model, option)
    return _assemble(_network(model, option).to(device).eval(), kind, (source, target), beams, (option, model))


def reverse(translator: Translator, source: str, target: str) -> Translator:
    """The other direction of a model that translates in all of them, with the same weights in memory.

    Raises:
        UserError: a Marian model, which has one direction.
    """
    if translator.kind == "marian":
        option, model = translator.name
        raise UserError(f"{option} {model}: a Marian model has one direction; give one of the other as --back-model")
    return _assemble(translator.network, translator.kind, (source, target), translator.beams, translator.name)


def _assemble(
    network: PreTrainedModel, kind: str, languages: tuple[str, str], beams: int, name: tuple[str, str]
) -> Translator:
    """A translator of a loaded network; `name` is the option and the model."""
    option, model = name
    source, target = languages
    vocabulary, tokenizer = _tokenizer(model, option)
    if max(vocabulary.values()) >= network.get_input_embeddings().num_embeddings:
        raise UserError(f"{option} {model}: its vocabulary is larger than its network; copy the folder again")
    prefix, first = "", None
    if kind == "marian":
        prefixes = [code for code in vocabulary if code.startswith(">>")]
        prefix = f"{marian_prefix(model, target, prefixes)} " if prefixes else ""
    else:
        tokenizer.src_lang = model_code(model, source, vocabulary)
        code = model_code(model, target, vocabulary)
        token = f"__{code}__"  # M2M100 may have a piece of a word that is spelled `en`, too
        first = vocabulary[token if token in vocabulary else code]
    return Translator(network, tokenizer, prefix, first, beams, kind, name)


def _kind(model: str, option: str) -> str:
    try:
        kind = str(AutoConfig.from_pretrained(model, trust_remote_code=False).model_type)
    except Exception as error:  # whatever a damaged configuration can break
        raise UserError(
            f"{option} {model}: no configuration there ({first_line(error)}); give a folder or hub name"
        ) from error
    if kind not in KINDS:
        raise UserError(f"{option} {model}: a {kind} model; give a Marian, NLLB or M2M100 model")
    return kind


def _network(model: str, option: str) -> PreTrainedModel:
    def load(name: str, **options: Any) -> Any:
        return AutoModelForSeq2SeqLM.from_pretrained(
            name, trust_remote_code=False, weights_only=True, dtype=torch.float32, **options
        )

    return load_pretrained(load, model, option, unused=_COMPUTED, instead="or another model")


def _tokenizer(model: str, option: str) -> tuple[dict[str, int], Any]:
    """A model's vocabulary, with every token's position, and its tokeniser."""
    try:
        with without_hints(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends a library for punctuation
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            known = tokenizer.get_vocab() | getattr(tokenizer, "lang_token_to_id", {})  # M2M100's may lack languages
            vocabulary = {str(token): int(index) for token, index in known.items()}
            if tokenizer.pad_token_id is None or not tokenizer("a")["input_ids"]:
                raise ValueError("it has no token for padding, or cannot read a text")
        return vocabulary, tokenizer
    except Exception as error:  # whatever a damaged vocabulary can break
        raise UserError(
            f"{option} {model}: no tokeniser there ({first_line(error)}); a folder needs the files of its vocabulary "
            "(Marian: source.spm, target.spm, vocab.json)"
        ) from error
