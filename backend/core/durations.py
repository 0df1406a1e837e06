"""Lengths of time, for people."""


def span(value: float | None) -> str:
    """Seconds in the largest two units that they fill, such as `1 h 5 min`; nothing for None."""
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    days, rest = divmod(round(value), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [
        f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (left, "s")) if number
    ]
    return " ".join(parts[:2])
