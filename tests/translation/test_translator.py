"""Translation models: batches of any make-up give the same, languages reach the model, damaged folders are refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nrccr.errors import UserError
from nrccr.translation.codes import LANGUAGES, marian_prefix, model_code, nllb_code, scripts
from nrccr.translation.translator import load_translator, reverse

CPU = torch.device("cpu")
TEXTS = [
    "A large two moves to the left on a black background.",
    "One.",
    "In the middle a small figure four grows, then a zero falls down while the background turns white.",
    "zzz",
    "A large two moves to the left on a black background.",
]


@pytest.mark.parametrize("beams", [1, 4])
def test_batches_do_not_matter(marian: Path, beams: int) -> None:
    translator = load_translator(str(marian), "en", "de", CPU, beams=beams)
    translator._longest = 20  # one limit for all: a translation that does not end is cut by the texts beside it
    alone = [translator.translate_batch([text])[0] for text in TEXTS]
    assert len(set(alone)) > 1 and alone[0] == alone[4]
    for batch_size in (1, 2, 5):
        assert translator.translate(TEXTS, batch_size) == alone
    assert translator.translate([]) == []


def test_batches_hold_every_text_once_by_length(marian: Path) -> None:
    translator = load_translator(str(marian), "en", "de", CPU)
    batches = list(translator.batches(TEXTS, 2))
    assert sorted(sum(batches, [])) == [0, 1, 2, 3, 4]
    lengths = [len(TEXTS[index]) for batch in batches for index in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_fingerprint_follows_weights_and_search(marian: Path, tmp_path: Path) -> None:
    once = load_translator(str(marian), "en", "de", CPU).fingerprint
    assert once == load_translator(str(marian), "en", "de", CPU).fingerprint
    assert once != load_translator(str(marian), "en", "de", CPU, beams=1).fingerprint
    other = Path(shutil.copytree(marian, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights["model.encoder.layers.0.fc1.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert once != load_translator(str(other), "en", "de", CPU).fingerprint


def test_special_tokens_typed_in_a_text_stay_text(marian: Path) -> None:
    translator = load_translator(str(marian), "en", "de", CPU, beams=1)
    tokens = translator._tokenizer("A two </s> moves.", split_special_tokens=True)["input_ids"]
    assert tokens.count(translator._tokenizer.eos_token_id) == 1
    assert translator.translate(["A two </s> moves."]) != translator.translate(["A two"])


@pytest.mark.parametrize("kind", ["nllb", "m2m"])
def test_languages_reach_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    translator = load_translator(str(request.getfixturevalue(kind)), "en", "zh", CPU, beams=1)
    made: list[torch.Tensor] = []
    generate = translator.network.generate

    def spy(**options: object) -> torch.Tensor:
        made.append(generate(**options))
        made.append(options["input_ids"])
        return made[0]

    translator.network.generate = spy
    tokenizer = translator._tokenizer
    spelled = {"nllb": ("eng_Latn", "zho_Hans"), "m2m": ("__en__", "__zh__")}[kind]
    translator.translate_batch(["a b"])
    assert tokenizer.convert_ids_to_tokens(int(made[0][0, 1])) == spelled[1]
    assert tokenizer.convert_ids_to_tokens(int(made[1][0, 0])) == spelled[0]
    back = reverse(translator, "zh", "en")
    assert back.network is translator.network
    made.clear()
    back.translate_batch(["a b"])
    assert tokenizer.convert_ids_to_tokens(int(made[0][0, 1])) == spelled[0]
    assert tokenizer.convert_ids_to_tokens(int(made[1][0, 0])) == spelled[1]
    assert back.fingerprint != translator.fingerprint


def test_marian_has_one_direction(marian: Path) -> None:
    with pytest.raises(UserError, match="one direction; give one of the other as --back-model"):
        reverse(load_translator(str(marian), "en", "de", CPU), "de", "en")


def test_codes() -> None:
    assert nllb_code("zh") == "zho_Hans" and nllb_code("de") == "deu_Latn"
    assert scripts("de") == ("LATIN",) and scripts("ja") == ("HIRAGANA", "KATAKANA", "CJK")
    assert len({nllb_code(language) for language in LANGUAGES}) == len(LANGUAGES)
    assert model_code("m", "de", {"deu_Latn"}) == "deu_Latn" and model_code("m", "de", {"__de__"}) == "de"
    assert marian_prefix("m", "zh", [">>cmn_Hant<<", ">>cmn_Hans<<"]) == ">>cmn_Hans<<"
    assert marian_prefix("m", "fr", [">>de<<", ">>fra<<"]) == ">>fra<<"
    for wrong in (lambda: nllb_code("xx"), lambda: model_code("m", "de", {}), lambda: marian_prefix("m", "de", [])):
        with pytest.raises(UserError):
            wrong()


def test_every_language_is_one_of_nllb_and_most_of_m2m(nllb: Path, m2m: Path) -> None:
    from transformers import AutoTokenizer

    known = AutoTokenizer.from_pretrained(nllb).get_vocab()
    assert [language for language in LANGUAGES if nllb_code(language) not in known] == []
    known = AutoTokenizer.from_pretrained(m2m).lang_token_to_id
    assert {language for language in LANGUAGES if f"__{language}__" not in known} <= {"te"}


def drop_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.1.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))


DAMAGES = {
    "missing tensor": (drop_weights, "lack 1 tensors of the encoder .model.decoder.layers.1.fc1.weight.; give weights"),
    "other shape": (lambda folder: change(folder, "config.json", encoder_ffn_dim=8), "other shapes"),
    "code": (pickled, "no weights there"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights there"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "no configuration there"),
    "another kind": (lambda folder: change(folder, "config.json", model_type="bert"), "a bert model; give a Marian"),
    "no vocabulary": (lambda folder: (folder / "vocab.json").unlink(), "no tokeniser there"),
    "no pieces": (lambda folder: (folder / "source.spm").write_bytes(b"?" * 50), "no tokeniser there"),
    "large vocabulary": (lambda folder: change(folder, "vocab.json", more=99_999), "vocabulary is larger"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_folders_are_refused(marian: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(marian, tmp_path / "damaged"))
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(UserError, match=message) as refused:
        load_translator(str(folder), "en", "de", CPU, option="--back-model")
    assert str(refused.value).startswith("--back-model") and "random" not in str(refused.value)
