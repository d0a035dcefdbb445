"""Captions -> token ids, once per caption.

N captions, L tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from nrccr.data.batch import TextBatch
from nrccr.data.pieces import Pieces
from nrccr.errors import UserError, first_line, require_content
from nrccr.extras import need
from nrccr.files import encodable
from nrccr.sizes import require_model_files
from nrccr.terminal import say, without_hints

WORD_PIECE = "WordPiece"
SENTENCE_PIECE = ("sentencepiece.bpe.model", "spm.model", "spiece.model")  # XLM-R's, DeBERTa's, ALBERT's and T5's
USUAL_SHARE = 0.9  # of a table that the vocabulary fills: tables are rounded up, by up to 64 rows or a percent
AT_ONCE = 10_000  # captions tokenised together: the tokeniser takes some 6 KB for each while it works


class Tokenizer(Protocol):
    """What turns captions into token ids."""

    max_tokens: int

    def encode(self, texts: Sequence[str]) -> TokenTable:
        """Token ids of all captions, special tokens included."""


class CaptionTokenizer:
    """The backbone's tokeniser, of the class that its files say, with lower-casing forced on or as published.

    Special tokens that are typed in a caption stay text.

    Args:
        model: hub name or folder of the backbone, as `text.model`.
        max_tokens: longest caption kept, special tokens included; fewer where the backbone has fewer positions.
        lower_case: force it, although the multilingual vocabulary is cased (NRCCR, MLCMR): a BERT's WordPiece does it
            itself, and strips accents with it; for any other tokeniser the text is lower-cased. False leaves the
            tokeniser as it was published (C2KD, unless `c2kd.lower_case`).

    Attributes:
        special: how many special tokens every caption gets.
        config: of the backbone.

    Raises:
        UserError: no tokeniser there, or one whose library is not installed.
    """

    def __init__(self, model: str, max_tokens: int, *, lower_case: bool = True, prefix: str = "") -> None:
        self.prefix = prefix
        require_content(Path(model))
        try:
            require_model_files(model)
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            config = getattr(config, "text_config", config)  # of a CLIP or SigLIP its text side
            kind = str(config.model_type)
            with encodable(model) as readable:
                self.tokenizer = _read_tokenizer(readable, lower_case=lower_case and kind == "bert")
        except UserError as error:
            raise UserError(f"text.model={model}: {error}") from error
        except Exception as error:  # whatever a damaged file can break
            reason = first_line(error)
            raise UserError(f"text.model={model}: no tokeniser there ({reason}); give a folder or hub name") from error
        self._strips = lower_case and kind == "bert" and type(self.tokenizer) is BertTokenizer
        self._lower = lower_case and not self._strips
        self._typed = _special_tokens(self.tokenizer)
        self.config = config
        # RoBERTa and its relatives number positions from the padding id on.
        padding = getattr(config, "pad_token_id", None)
        numbered = "roberta" in kind
        if numbered and not isinstance(padding, int):
            raise UserError(f"text.model={model}: its configuration has no pad_token_id; give another backbone")
        taken = padding + 1 if numbered and isinstance(padding, int) else 0
        positions = getattr(config, "max_position_embeddings", None)
        if not isinstance(positions, int):
            raise UserError(
                f"text.model={model}: a {kind} model is no text encoder with position embeddings; give another backbone"
            )
        self.max_tokens = min(max_tokens, positions - taken)
        # A BERT folder without vocabulary would otherwise give a tokeniser that maps every word to [UNK].
        if len(self.tokenizer) < 10:
            pieces = len(self.tokenizer)
            raise UserError(f"text.model={model}: its vocabulary holds {pieces} pieces; is vocab.txt missing?")
        self.special = int(self.tokenizer.num_special_tokens_to_add())
        if positions - taken <= self.special:
            raise UserError(f"text.model={model}: its {positions} positions leave no room for a word; give another")
        self._model = model

    @property
    def mask_id(self) -> int:
        """The vocabulary's [MASK], 103 in the multilingual BERT.

        Raises:
            UserError: it has none.
        """
        if self.tokenizer.mask_token_id is None:
            raise UserError(f"text.model={self._model}: its vocabulary has no mask token; give another backbone")
        return int(self.tokenizer.mask_token_id)

    def require_ends(self) -> None:
        """Raises a UserError unless a caption's first and last token, and these two alone, are special ones."""
        first, *words, last = self.tokenizer("a b", return_special_tokens_mask=True)["special_tokens_mask"]
        if any(words) or not (first and last):
            wanted = "give another, of a special token before a caption and one after it"
            raise UserError(f"text.model={self._model}: its tokeniser frames a caption otherwise; {wanted}")

    def require_table(self, rows: int) -> None:
        """Make sure that every token has a word embedding; much fewer tokens than embeddings are told.

        Args:
            rows: of the table of embeddings.

        Raises:
            UserError: fewer than the vocabulary has words.
        """
        if len(self.tokenizer) > rows:
            raise UserError(
                f"text.model={self._model}: its tokeniser has a vocabulary of {len(self.tokenizer)}, its table of word "
                f"embeddings {rows} rows; give a tokeniser and config.json that belong together"
            )
        if len(self.tokenizer) < USUAL_SHARE * rows:
            say(
                f"note: text.model={self._model}: its tokeniser has a vocabulary of {len(self.tokenizer)}, its table "
                f"of word embeddings {rows} rows; is the vocabulary whole?"
            )

    def encode(self, texts: Sequence[str]) -> TokenTable:
        """Token ids of all captions, special tokens included, cut at `max_tokens` (the table counts how many were).

        Raises:
            UserError: the tokeniser's files are damaged.
        """
        parts: list[TokenTable] = []
        bar = tqdm(total=len(texts), desc="captions", unit="", disable=None, leave=False, delay=1)
        with without_hints(), bar as progress:  # that captions are longer than the backbone: we cut them
            for start in range(0, len(texts), AT_ONCE):
                try:
                    parts.append(self._encode_part(texts[start : start + AT_ONCE]))
                except Exception as error:  # a tokeniser's files can be damaged in ways that show in its first caption
                    raise UserError(
                        f"text.model={self._model}: its tokeniser cannot read captions ({first_line(error)}); give "
                        "another folder or hub name"
                    ) from error
                progress.update(len(parts[-1]))
        return TokenTable.joined(parts, self._pad, self.special)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def _encode_part(self, texts: Sequence[str]) -> TokenTable:
        captions = [self.prefix + self._as_text(text.lower() if self._lower else text) for text in texts]
        rows: list[list[int]] = self.tokenizer(captions, split_special_tokens=True)["input_ids"]
        long = [index for index, row in enumerate(rows) if len(row) > self.max_tokens]
        if long:  # the tokeniser cuts them, as it knows where its special tokens go
            part = [captions[index] for index in long]
            cut = self.tokenizer(part, split_special_tokens=True, truncation=True, max_length=self.max_tokens)
            for index, row in zip(long, cut["input_ids"], strict=True):
                rows[index] = row
        return TokenTable(rows, self._pad, cut=len(long))

    def pieces(self, caption: str) -> Pieces:
        """How one caption is cut, piece by piece as `encode` gives them; see nrccr.data.pieces.

        Of a tokeniser that does not tell where its pieces lie each piece is a word.
        """
        text = self._as_text(caption.lower() if self._lower else caption)
        told = self.tokenizer.is_fast
        with without_hints():
            found = self.tokenizer(
                text,
                split_special_tokens=True,
                truncation=True,
                max_length=self.max_tokens,
                return_offsets_mapping=told,
                return_special_tokens_mask=True,
            )
        special = [bool(own) for own in found["special_tokens_mask"]]
        if told:
            units = [None if own else unit for unit, own in zip(found.word_ids(), special, strict=True)]
            return Pieces(text, found["offset_mapping"], units)
        tokens = self.tokenizer.convert_ids_to_tokens(found["input_ids"])
        ends = np.cumsum([len(token) + 1 for token in tokens]).tolist()
        spans = [(end - len(token) - 1, end - 1) for token, end in zip(tokens, ends, strict=True)]
        return Pieces(" ".join(tokens), spans, [None if own else at for at, own in enumerate(special)])

    def _as_text(self, caption: str) -> str:
        """The caption with typed special tokens broken up; SentencePiece has them among its pieces."""
        if self._typed is None or not self._typed.search(folded := unicodedata.normalize("NFKC", caption)):
            return caption
        return self._typed.sub(lambda found: f"{found[0][0]} {found[0][1:]}", folded)

    def describe(self) -> dict[str, Any]:
        """How captions become token ids, for `run.json`."""
        if self._strips:
            lower_case = "by the tokeniser, without accents"
        else:
            lower_case = "of the text" if self._lower else "as published"
        found = {"kind": _algorithm(self.tokenizer), "lower_case": lower_case, "vocabulary": len(self.tokenizer)}
        return found | ({"prefix": self.prefix} if self.prefix else {})

    def save(self, folder: Path) -> None:
        """Write the tokeniser's files into a folder; beside the backbone's configuration they can be read again."""
        folder.mkdir(parents=True, exist_ok=True)
        with encodable(str(folder)) as writable:
            self.tokenizer.save_pretrained(writable)


def _read_tokenizer(model: str, *, lower_case: bool) -> PreTrainedTokenizerBase:
    """The tokeniser that a model's files say; a WordPiece with lower-casing switched on if that is asked for.

    BertTokenizer makes a WordPiece of any vocabulary. With one of SentencePiece, which a BERT may have
    (multilingual-e5-small), it would split Chinese into characters and find no beginning of a word.
    """
    named = _algorithm_of_file(model)
    lower_case = lower_case and named in (None, WORD_PIECE)  # to read a large vocabulary twice takes seconds
    switch = {"do_lower_case": True} if lower_case else {}
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False, **switch)
    if isinstance(tokenizer, BertTokenizer) and named not in (None, WORD_PIECE):
        return PreTrainedTokenizerFast.from_pretrained(model)  # no class is named, and a BERT's was guessed
    if not lower_case or type(tokenizer) is BertTokenizer:
        return tokenizer
    if _algorithm(tokenizer) == WORD_PIECE:
        return BertTokenizer.from_pretrained(model, do_lower_case=True)
    return AutoTokenizer.from_pretrained(model, trust_remote_code=False)


def _algorithm(tokenizer: PreTrainedTokenizerBase) -> str:
    """WordPiece, Unigram, BPE and so on; the class of a tokeniser in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(tokenizer if backend is None else backend.model).__name__


def _algorithm_of_file(model: str) -> str | None:
    """What a model's tokenizer.json names; none where there is no such file, or an old one that names nothing.

    Raises:
        UserError: a SentencePiece model instead, and the library that reads it is not installed.
    """
    path = _file_of(model, "tokenizer.json")
    if path is None:
        if any(_file_of(model, name) for name in SENTENCE_PIECE):
            need("sentencepiece", "translate")
        return None
    found = re.search(rb'"model"\s*:\s*\{\s*"type"\s*:\s*"(\w+)"', Path(path).read_bytes())
    return None if found is None else found[1].decode()


def _file_of(model: str, name: str) -> str | None:
    silent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path: str | None = cached_file(model, name, **silent)
    return path


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """A pattern of all special tokens; none where there are none."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    words = sorted({*added, *tokenizer.all_special_tokens}, key=lambda word: (-len(word), word))
    return re.compile("|".join(re.escape(word) for word in words if len(word) > 1)) if words else None


def used_ids(tables: Iterable[TokenTable], *others: int) -> npt.NDArray[np.int64]:
    """The tokens that occur in any of several tables, and others, each once, in order."""
    return np.unique(np.concatenate([*(table.ids() for table in tables), np.array(others, dtype=np.int64)]))


class TokenTable:
    """Token ids of many captions in one flat array; a batch is a gather.

    Attributes:
        lengths: (captions,) tokens of each.
        cut: how many captions were shortened.
        special: how many special tokens every caption has.
        pad: the id of padded tokens.
    """

    def __init__(self, rows: Sequence[Sequence[int]], pad: int, cut: int = 0, special: int = 0) -> None:
        self.lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        self.cut = cut
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(self._starts[-1]))
        self.pad = pad
        self.special = special

    @classmethod
    def joined(cls, parts: Sequence[TokenTable], pad: int, special: int = 0) -> TokenTable:
        """The captions of several tables in one, in order."""
        table = cls([], pad, cut=sum(part.cut for part in parts), special=special)
        if parts:
            table.lengths = np.concatenate([part.lengths for part in parts])
            table._starts = np.concatenate([[0], np.cumsum(table.lengths)])
            table._flat = np.concatenate([part._flat for part in parts])
        return table

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """(captions,) tokens of each without special ones."""
        return self.lengths - self.special

    def content(self) -> bytes:
        """All tokens and lengths as bytes."""
        return self.lengths.tobytes() + self._flat.tobytes()

    def ids(self) -> npt.NDArray[np.int64]:
        """The tokens that occur, padding among them, each once, in order."""
        return np.unique(np.append(self._flat, self.pad)).astype(np.int64)

    def batch(
        self, indices: Sequence[int] | npt.NDArray[np.int64], among: Sequence[int] | npt.NDArray[np.int64] = ()
    ) -> TextBatch:
        """The captions at `indices`, padded to the longest of them and of those `among` which they are: (N, L)."""
        chosen, others = np.asarray(indices, dtype=np.int64), np.asarray(among, dtype=np.int64)
        return self._padded(chosen, int(max(self.lengths[part].max(initial=1) for part in (chosen, others))))

    def positions(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the tokens of the captions at `indices`, one after the other, are among those of all captions: (T,)."""
        chosen = np.asarray(indices, dtype=np.int64)
        counts = self.lengths[chosen]
        begins = np.cumsum(counts) - counts  # of each caption among the T
        return np.repeat(self._starts[chosen] - begins, counts) + np.arange(counts.sum())

    def _padded(self, chosen: npt.NDArray[np.int64], longest: int) -> TextBatch:
        columns = np.arange(longest)  # (L,)
        mask = columns < self.lengths[chosen, None]  # (N, L)
        places = np.where(mask, self._starts[chosen, None] + columns, 0)
        tokens = np.where(mask, self._flat[places], self.pad).astype(np.int64)  # (N, L)
        return TextBatch(torch.from_numpy(tokens), torch.from_numpy(mask), lengths=self.lengths[chosen])
