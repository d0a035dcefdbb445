"""Languages: ISO codes, what each family of translation models calls them, and the scripts that they are written in."""

from __future__ import annotations

from collections.abc import Container

from nrccr.errors import UserError

# ISO 639-1 code: NLLB's code, and the scripts of its letters as `unicodedata.name` begins.
_TABLE = {
    "af": "afr_Latn",
    "am": "amh_Ethi ETHIOPIC",
    "ar": "arb_Arab ARABIC",
    "az": "azj_Latn",
    "be": "bel_Cyrl CYRILLIC",
    "bg": "bul_Cyrl CYRILLIC",
    "bn": "ben_Beng BENGALI",
    "bs": "bos_Latn",
    "ca": "cat_Latn",
    "cs": "ces_Latn",
    "cy": "cym_Latn",
    "da": "dan_Latn",
    "de": "deu_Latn",
    "el": "ell_Grek GREEK",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "et": "est_Latn",
    "fa": "pes_Arab ARABIC",
    "fi": "fin_Latn",
    "fr": "fra_Latn",
    "ga": "gle_Latn",
    "gl": "glg_Latn",
    "gu": "guj_Gujr GUJARATI",
    "he": "heb_Hebr HEBREW",
    "hi": "hin_Deva DEVANAGARI",
    "hr": "hrv_Latn",
    "hu": "hun_Latn",
    "hy": "hye_Armn ARMENIAN",
    "id": "ind_Latn",
    "is": "isl_Latn",
    "it": "ita_Latn",
    "ja": "jpn_Jpan HIRAGANA KATAKANA CJK",
    "ka": "kat_Geor GEORGIAN",
    "kk": "kaz_Cyrl CYRILLIC",
    "km": "khm_Khmr KHMER",
    "kn": "kan_Knda KANNADA",
    "ko": "kor_Hang HANGUL CJK",
    "lo": "lao_Laoo LAO",
    "lt": "lit_Latn",
    "lv": "lvs_Latn",
    "mk": "mkd_Cyrl CYRILLIC",
    "ml": "mal_Mlym MALAYALAM",
    "mn": "khk_Cyrl CYRILLIC",
    "mr": "mar_Deva DEVANAGARI",
    "ms": "zsm_Latn",
    "my": "mya_Mymr MYANMAR",
    "ne": "npi_Deva DEVANAGARI",
    "nl": "nld_Latn",
    "no": "nob_Latn",
    "pa": "pan_Guru GURMUKHI",
    "pl": "pol_Latn",
    "pt": "por_Latn",
    "ro": "ron_Latn",
    "ru": "rus_Cyrl CYRILLIC",
    "si": "sin_Sinh SINHALA",
    "sk": "slk_Latn",
    "sl": "slv_Latn",
    "sq": "als_Latn",
    "sr": "srp_Cyrl CYRILLIC LATIN",
    "sv": "swe_Latn",
    "sw": "swh_Latn",
    "ta": "tam_Taml TAMIL",
    "te": "tel_Telu TELUGU",
    "th": "tha_Thai THAI",
    "tl": "tgl_Latn",
    "tr": "tur_Latn",
    "uk": "ukr_Cyrl CYRILLIC",
    "ur": "urd_Arab ARABIC",
    "uz": "uzn_Latn",
    "vi": "vie_Latn",
    "zh": "zho_Hans CJK",
}
LANGUAGES = tuple(_TABLE)
_MARIAN_CHINESE = ("cmn_Hans", "zho_Hans", "cmn", "zho")  # Marian's models for several languages spell it in many ways


def nllb_code(language: str) -> str:
    """What NLLB calls a language: zh -> zho_Hans.

    Raises:
        UserError: a language that the table lacks.
    """
    return _row(language)[0]


def scripts(language: str) -> tuple[str, ...]:
    """The scripts of a language's letters, as their Unicode names begin.

    Raises:
        UserError: a language that the table lacks.
    """
    return tuple(_row(language)[1:]) or ("LATIN",)


def model_code(model: str, language: str, vocabulary: Container[str]) -> str:
    """What a model for many languages, NLLB or M2M100, calls a language; its vocabulary says which of the two it is.

    Raises:
        UserError: it does not know the language.
    """
    if nllb_code(language) in vocabulary:
        return nllb_code(language)
    if f"__{language}__" in vocabulary:
        return language
    raise UserError(f"{model}: this model does not know the language {language}; give another model")


def marian_prefix(model: str, language: str, prefixes: Container[str]) -> str:
    """What a Marian model for several target languages wants before every sentence: `>>cmn_Hans<<`.

    Args:
        model: its name, for messages.
        language: target language.
        prefixes: those of its vocabulary.

    Raises:
        UserError: none of them is the language's.
    """
    spellings = (*(_MARIAN_CHINESE if language == "zh" else ()), nllb_code(language)[:3], language)
    found = next((f">>{code}<<" for code in spellings if f">>{code}<<" in prefixes), None)
    if found is None:
        raise UserError(f"{model}: this model translates into several languages, but not into {language}; give another")
    return found


def _row(language: str) -> list[str]:
    if language not in _TABLE:
        raise UserError(f"language {language!r} is unknown; give an ISO code of {', '.join(LANGUAGES)}")
    return _TABLE[language].split()
