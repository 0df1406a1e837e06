"""How words of a language are found: PostgreSQL's text search configurations by ISO 639-1 code."""

# Those that PostgreSQL 14 and newer bring. Chinese, Japanese and Thai have none: `simple` cuts at spaces, of which they have few.
_CONFIGS = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
UNKNOWN = "simple"
SEARCH_CONFIGS = (UNKNOWN, *sorted(_CONFIGS.values()))


def search_config(language: str | None) -> str:
    """For `SegmentRow.config`; `simple`, which knows no word's stem, where there is none of the language's own."""
    return _CONFIGS.get(language or "", UNKNOWN)
