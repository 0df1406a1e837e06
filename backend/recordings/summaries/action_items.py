"""Sentences in which somebody takes on a task or gives one, by the words of some languages."""

import re
from collections.abc import Sequence
from functools import lru_cache

from backend.recordings.summaries.base import MAX_ITEM, shortened
from backend.recordings.summaries.sentences import Sentence

# A promise or a request, and within a few words what is to be done: "I'll" alone is in every third sentence.
_PROMISES = {
    "en": (
        r"(?:i|we|you|they|he|she)(?:'ll| will| need to| must| have to| should| ought to)"
        r"|(?:i'm|i am|we're|we are) going to|let's|let us|please|(?:can|could|would|will) (?:you|we|somebody|someone)"
        r"|make sure|(?:don't|do not) forget|remember to|has to|needs? to|action item|to-do|deadline"
    ),
    "de": (
        r"ich|wir|bitte|(?:können|könnten|würden|kannst|könntest) (?:sie|du|wir)|du (?:musst|solltest)"
        r"|sie (?:müssen|sollten)|lass(?:t|en sie)? uns|nicht vergessen|denk(?:t|en sie)? (?:bitte )?daran"
    ),
    "es": (
        r"voy a|vamos a|tengo que|tenemos que|tienes? que|hay que|debemos|debes?|por favor|(?:puedes?|podrías?|podemos)"
        r"|no (?:olvides|olvide|olvidemos)|recuerda|recuerde|me encargo de"
    ),
    "fr": (
        r"je vais|nous allons|on va|il faut|je dois|nous devons|on doit|vous devez|tu dois|s'il (?:vous|te) plaît"
        r"|(?:pouvez-vous|peux-tu|pourriez-vous)|n'oubliez pas(?: de)?|n'oublie pas(?: de)?|je m'occupe de"
    ),
    "pt": (
        r"eu vou|vou|vamos|tenho que|temos que|precisamos|preciso|você (?:precisa|deve|pode)|por favor|(?:pode|poderia)"
        r"|não (?:esqueça|se esqueça|esquece)|lembre"
    ),
    "it": (
        r"devo|dobbiamo|devi|deve|bisogna|per favore|(?:puoi|può|potresti|potrebbe|possiamo)"
        r"|non (?:dimenticare|dimenticarti|dimentichi)|mi occupo di|ricordati|andiamo a"
    ),
    "nl": (
        r"(?:ik|we|wij) (?:zal|zullen|ga|gaan|moet|moeten)|(?:je|u|jullie) (?:moet|moeten)|alsjeblieft|alstublieft"
        r"|(?:kun|kunt|kan|zou|wil) (?:je|u|jij)|laten we|vergeet niet|denk eraan"
    ),
}
_DEEDS = {
    "en": (
        r"send|call|ring|e-?mail|mail|write|check|review|schedule|prepare|update|fix|book|order|confirm|ask|discuss|finish"
        r"|deliver|share|create|set|follow|renew|pay|sign|arrange|get back|look into|submit|contact|remind|organi[sz]e|test"
        r"|draft|bring|buy|cancel|change|complete|forward|install|invite|move|print|provide|publish|reply|report|return"
        r"|talk to|speak to|transfer|upload|verify|plan|decide|add|remove|meet|come back|file"
    ),
    "de": (
        r"zu\w+en|schick\w+|(?:zu)?send\w+|ruf\w+|anzurufen|maile\w*|schreib\w+|(?:über)?prüf\w+|plan\w+|vorbereiten"
        r"|aktualisier\w+|bestell\w+|buch\w+|bestätig\w+|frag\w+|besprech\w+|liefer\w+|erstell\w+|unterschreib\w+"
        r"|unterzeichn\w+|bezahl\w+|erledig\w+|kümmer\w+|meld\w+|kontaktier\w+|organisier\w+|besorg\w+|kauf\w+|verlänger\w+"
        r"|treffen|vereinbar\w+|anrufen|melden|einreichen|weiterleiten|leite\w*|kläre\w*|klären"
    ),
    "es": (
        r"(?:enviar|mandar|llamar|escribir|revisar|comprobar|preparar|actualizar|arreglar|reservar|pedir)\w*"
        r"|(?:confirmar|preguntar|hablar|terminar)\w*"
        r"|(?:entregar|compartir|crear|firmar|pagar|organizar|contactar|recordar|comprar|cancelar|cambiar|renovar|programar|quedar|reunir)\w*"
        r"|env[ií]\w{1,4}|mand[ae]\w{0,4}|llám\w+|llam[ae]\w{0,4}|revis[ae]\w{0,4}|confirm[ae]\w{0,4}"
    ),
    "fr": (
        r"envoye[rz]|appele[rz]|rappele[rz]|écri(?:re|vez)|vérifie[rz]|prépare[rz]|met(?:tre|tez)|réserve[rz]|commande[rz]"
        r"|confirme[rz]|demande[rz]|discuter|parler|fini[rz]\w*|livrer|partage[rz]|créer|signe[rz]|paye[rz]|organise[rz]"
        r"|contacte[rz]|achete[rz]|annule[rz]|renouvele[rz]|planifie[rz]"
    ),
    "pt": (
        r"enviar|envi[ae]|mandar|mande|ligar|ligue|escrever|verificar|verifique|revisar|preparar|atualizar|reservar|pedir"
        r"|confirmar|confirme|perguntar|falar|terminar|entregar|compartilhar|criar|assinar|pagar|organizar|contatar"
        r"|contactar|lembrar|comprar|cancelar|renovar|agendar|marcar"
    ),
    "it": (
        r"(?:inviar|mandar|chiamar|scriver|verificar|controllar|preparar|aggiornar|prenotar|ordinar|confermar)\w+"
        r"|(?:chieder|parlar|finir|consegnar)\w+"
        r"|(?:condivider|crear|firmar|pagar|organizzar|contattar|ricordar|comprar|annullar|rinnovar|programmar)\w+"
    ),
    "nl": (
        r"sturen|stuur|bellen|bel|mailen|mail|schrijven|controleren|nakijken|voorbereiden|bijwerken|boeken|bestellen"
        r"|bevestigen|vragen|bespreken|afmaken|leveren|delen|maken|tekenen|betalen|regelen|contacteren|herinneren|kopen"
        r"|annuleren|verlengen|plannen|afspreken"
    ),
}
_REACH = 6


def action_items(sentences: Sequence[Sentence], language: str | None) -> list[str]:
    """In the order of speech, each once. None in a language without a table."""
    pattern = _pattern(language or "")
    if pattern is None:
        return []
    found = (sentence.text for sentence in sentences if pattern.search(sentence.text.casefold().replace("’", "'")))
    return list(dict.fromkeys(shortened(text, MAX_ITEM) for text in found))


@lru_cache
def _pattern(language: str) -> re.Pattern[str] | None:
    if language not in _PROMISES:
        return None
    return re.compile(
        rf"(?<!\w)(?:{_PROMISES[language]})(?!\w)(?:\W+\w+){{0,{_REACH}}}?\W+(?:{_DEEDS[language]})(?!\w)"
    )
