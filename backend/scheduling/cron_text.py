"""What a user writes, checked: cron expressions and zone names. Faults are told with their column and their repair."""

import difflib
import functools
import re
import zoneinfo
from datetime import datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

# Every node must compute the same instants: the packaged tzdata is the only source, never the operating system's files,
# which differ in age from image to image.
zoneinfo.reset_tzpath(to=())
ZoneInfo.clear_cache()

MAX_EXPRESSION_LENGTH = 255

EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - wall time: cronsim is never given a zone, see wall_clock
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day-of-month", 1, 31), ("month", 1, 12), ("day-of-week", 0, 7))
_SETS = ("minutes", "hours", "days", "months", "weekdays")
_FIELD_NAMES = "minute hour day-of-month month day-of-week"
_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class RecurrenceError(ValueError):
    """Bad input. `field` names it; `position` is the 1-based column of the fault in the user's text, or None.

    str() is one sentence that names what is wrong and how to repair it.
    """

    def __init__(self, message: str, *, field: str, position: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.position = position


@functools.lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name: with a '/', or 'UTC'. Raises RecurrenceError (field 'timezone') with close matches."""
    if name not in _zone_names():
        raise RecurrenceError(_unknown_zone(name), field="timezone")
    return ZoneInfo(name)


@functools.cache
def _zone_names() -> frozenset[str]:
    return frozenset(name for name in zoneinfo.available_timezones() if "/" in name or name == "UTC")


def _unknown_zone(name: str) -> str:
    name = name[:64]
    # Never Etc/GMT+2 for GMT+2: it is two hours behind UTC.
    known = {full.casefold(): full for full in sorted(_zone_names()) if not full.startswith("Etc/")}
    places = {full.rpartition("/")[2]: known[full] for full in known}
    wanted = name.strip().replace(" ", "_").casefold()
    found = [known[wanted]] if wanted in known else [places[wanted]] if wanted in places else []
    if not found and re.fullmatch(r"[A-Z]{1,5}([+-]?\d.*)?", name):
        return f"{name} is an abbreviation, which fixes no daylight saving rule; name a place, such as Europe/Berlin, or UTC."
    found = found or [known[match] for match in difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(found)}?" if found else "use an IANA name such as Europe/Berlin, or UTC."
    return f"{name!r} is not a time zone; {hint}"


@functools.lru_cache(maxsize=4096)
def parse_cron(expression: str) -> str:
    """The five fields in upper case with single spaces; @hourly and its like expanded.

    Accepts what cronsim accepts (names, lists, ranges, steps, L, LW, 5L, MON#2) except a sixth field, which it would read
    as seconds first, and steps longer than their field (`*/90` minutes would silently mean hourly).
    Raises RecurrenceError (field 'cron_expression') with the column of the faulty field or item.
    """
    fields = [(match.group().upper(), match.start() + 1) for match in re.finditer(r"\S+", expression)]
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise _bad_cron(
            f"The expression is longer than {MAX_EXPRESSION_LENGTH} characters; shorten it.", MAX_EXPRESSION_LENGTH + 1
        )
    if fields and fields[0][0].startswith("@"):
        return _expand(fields)
    if len(fields) < len(_FIELDS):
        column = len(expression.rstrip()) + 1
        raise _bad_cron(f"There are {len(fields)} fields; write five: {_FIELD_NAMES}.", column)
    if len(fields) > len(_FIELDS):
        raise _bad_cron(f"There are {len(fields)} fields; write five, without seconds: {_FIELD_NAMES}.", fields[5][1])
    for index, (text, column) in enumerate(fields):
        _check_field(index, text, column)
    normal = " ".join(text for text, _ in fields)
    try:
        never = next(CronSim(normal, EPOCH), None) is None
    except CronSimError:
        never = True
    if never:
        raise _bad_cron("These days and months never meet, so it would never run; change one of them.", fields[2][1])
    return normal


def _expand(fields: list[tuple[str, int]]) -> str:
    word, column = fields[0][0].lower(), fields[0][1]
    if word == "@reboot":
        raise _bad_cron("@reboot is not a time; use a schedule that runs at one.", column)
    if word not in _WORDS:
        raise _bad_cron(f"{word} is not known; use one of {', '.join(_WORDS)} or five fields.", column)
    if len(fields) > 1:
        raise _bad_cron(f"{word} stands alone; remove what follows it.", fields[1][1])
    return _WORDS[word]


def _check_field(index: int, text: str, column: int) -> None:
    for item in text.split(","):
        fault = _fault(index, item)
        if fault:
            raise _bad_cron(f"{_FIELDS[index][0].capitalize()}: {fault}.", column)
        column += len(item) + 1


def _fault(index: int, item: str) -> str | None:
    """What is wrong with one item of a list, or None."""
    _, low, high = _FIELDS[index]
    body, slash, step = item.partition("/")
    if not item:
        return "an item of the list is empty; remove the comma"
    if slash and not (re.fullmatch(r"[0-9]+", step) and int(step) > 0 and body not in {"L", "LW"}):
        return f"{item!r} has no valid step; write a whole number from 1 after the slash"
    if slash and int(step) > (span := 7 if index == 4 else high - low + 1):
        return f"step {step} is longer than the field's {span} values; use a smaller step or more schedules"
    try:
        CronSim(_alone(index, item), EPOCH)
    except CronSimError:
        return _not_understood(index, item, body)
    # cronsim reads 5-5/10 as 5/10, which is 5-59/10; in cron it is 5.
    if slash and "-" in body and len(getattr(CronSim(_alone(index, body), EPOCH), _SETS[index])) == 1:
        return f"{item!r} is a range of one value with a step; write the value alone"
    return None


def _alone(index: int, item: str) -> str:
    return " ".join(["*"] * index + [item] + ["*"] * (4 - index))


def _not_understood(index: int, item: str, body: str) -> str:
    _, low, high = _FIELDS[index]
    outside = [number for number in re.findall(r"[0-9]+", body.partition("#")[0]) if not low <= int(number) <= high]
    if outside:
        return f"{outside[0]} is outside {low}-{high}"
    if re.fullmatch(r"(\d+|[A-Z]{3})-(\d+|[A-Z]{3})", body):
        sunday = " (Sunday last is 7)" if index == 4 else ""
        return f"{body!r} is not a range from low to high{sunday}; turn it round or write two ranges"
    names = " (or names)" if index in {3, 4} else ""
    return f"{item!r} is not understood; use *, {low}-{high}{names}, ranges a-b, lists a,b or steps /n"


def _bad_cron(message: str, position: int) -> RecurrenceError:
    return RecurrenceError(message, field="cron_expression", position=position)


def explain(expression: str) -> str:
    """The expression in English, with the OR of day-of-month and day-of-week spelt out. Raises RecurrenceError."""
    normal = parse_cron(expression)
    parsed = CronSim(normal, EPOCH)
    text = f"{parsed.explain()}."
    if not parsed.day_and:
        text += " Day of month and day of week together mean OR: it runs on days that match either."
    return text
