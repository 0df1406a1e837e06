"""Which language it is: by the code or English name that a service gives, else by the text."""

# The names that Whisper gives, as in github.com/openai/whisper/blob/main/whisper/tokenizer.py.
_NAMES = (
    "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese tr:turkish pl:polish"
    " ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi fi:finnish vi:vietnamese he:hebrew"
    " uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish hu:hungarian ta:tamil no:norwegian th:thai ur:urdu"
    " hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian"
    " lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque"
    " is:icelandic hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi"
    " pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan ka:georgian be:belarusian tg:tajik"
    " sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek fo:faroese ps:pashto tk:turkmen nn:nynorsk mt:maltese"
    " sa:sanskrit lb:luxembourgish my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar ln:lingala ha:hausa"
    " ba:bashkir jw:javanese su:sundanese yue:cantonese"
)
_CODES = {name: code for code, name in (pair.split(":") for pair in _NAMES.split())}
_SHORTEST_TEXT = 20


def code_of(named: str) -> str | None:
    """ISO 639-1 where there is one; of `english`, `en` and `en-US` alike. None for a name that nobody knows."""
    name = named.strip().casefold()
    code = _CODES.get(name) or name.replace("_", "-").partition("-")[0]
    return code if code in _CODES.values() else None


def language_of(text: str) -> str | None:
    """What a text is written in; None where it is too short to tell."""
    if len(text.strip()) < _SHORTEST_TEXT:
        return None
    import py3langid

    return code_of(str(py3langid.classify(text)[0]))
