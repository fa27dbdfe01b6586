"""Times as people say them, in digits on a dial of twelve hours; and by how much a time is to be shifted."""

from __future__ import annotations

import re

WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
NUMBERS |= {f"twenty{gap}{word}": 20 + number for gap in "- " for number, word in enumerate(WORDS[:9], 1)}
NUMBERS |= {"thirty": 30, "thirty-five": 35, "forty": 40, "forty-five": 45, "fifty": 50, "fifty-five": 55}
NAMED = {"half": 30, "quarter": 15, "noon": 12, "midnight": 12, "a": 1, "an": 1}


def _one_of(*words: str) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


HOUR = rf"(?P<hour>\d{{1,2}}|{_one_of(*WORDS[:12])})"
MINUTE = rf"(?:a )?(?P<minute>\d{{1,2}}|{_one_of(*NUMBERS, 'half', 'quarter')})(?: minutes?)?"
_BEGINS = "|".join(rf"(?<=\b{word} )" for word in "at be it read say show to".split())
BEGUN = rf"(?<!hand to )(?<!hand at )(?:{_BEGINS})"
ENDS = r"(?=\W*$|,\s|\.\s|\s+(?:please|and|then)\b)"
"""What comes before and after an hour that is said by itself."""
SAID = tuple(
    (re.compile(pattern, re.IGNORECASE), sign)
    for pattern, sign in (
        (rf"\b{MINUTE} (?:past|after) {HOUR}\b(?: o'clock)?", 1),
        (rf"\b{MINUTE} (?:to|of|before|till) {HOUR}\b(?: o'clock)?(?!:)", -1),
        (rf"(?<![:.])\b{HOUR} o'clock(?: [ap]\.?m\b)?", 0),
        (rf"(?<![:.])\b{HOUR} ?[ap]\.?m\b", 0),
        (r"\b(?P<hour>noon|midnight)\b", 0),
        (r"\b(?P<hour>\d{1,2})h(?P<minute>[0-5]\d)\b", 1),
        (rf"{BEGUN}(?P<hour>\d{{1,2}})(?P<minute>[0-5]\d){ENDS}", 1),
        (rf"{BEGUN}{HOUR}{ENDS}", 0),
    )
)
"""How times are said, each with what its minutes do to the hour."""
_BEFORE = rf"(?:{_one_of(*WORDS[:12])}|\d{{1,2}}(?:[:.]\d{{2}})?)(?: o'clock| ?[ap]\.?m\b)?"
FROM = re.compile(rf"\bfrom {_BEFORE} to\b", re.IGNORECASE)
"""What a time is changed from, which the picture tells."""
DIGITS = re.compile(r"\b(00?|1[3-9]|2[0-4])[:.]([0-5]\d)\b")
BARE = re.compile(r"\d{1,2}[:.]\d{2}(?=\W*$|\W+(?:please|and|then)\b)", re.IGNORECASE)

COUNT = rf"\d+|an?|{_one_of(*NUMBERS)}"
AMOUNT = (
    r"(?:(?P<part>half|quarter)(?: of)?(?: an)? hour(?! hand)|"
    rf"(?P<hours>{COUNT})(?P<more> and a half)? hours?(?! hand)(?P<too> and a half)?"
    rf"(?:,? (?:and )?(?P<rest>{COUNT}) minutes?(?! hand))?|(?P<minutes>{COUNT}) minutes?(?! hand))"
)
SHIFT = re.compile(rf"\b{AMOUNT}\b", re.IGNORECASE)
LATER = re.compile(rf"\b(?:add|plus) (?P<amount>{AMOUNT})\b(?: to it)?(?! later| earlier)", re.IGNORECASE)
EARLIER = re.compile(
    rf"\b(?:subtract|take off|take away|minus) (?P<amount>{AMOUNT})\b(?: from it)?(?! later| earlier)", re.IGNORECASE
)
AGO = re.compile(rf"\b(?P<amount>{AMOUNT}) ago\b", re.IGNORECASE)


def in_digits(text: str) -> str:
    """The text with its times as "4:45", whatever of these they were said by; a time by itself becomes an order.

    "ten past four", "a quarter to five", "5 pm", "set it to five", "4h45", "16:45"; "add ten minutes" becomes "ten
    minutes later", and "from three to four" only "to 4:00". What is no time of a dial stays as it is.
    """
    text = FROM.sub("to", text)
    for pattern, sign in SAID:
        text = FROM.sub("to", pattern.sub(lambda found, sign=sign: _time(found, sign), text))
    text = DIGITS.sub(lambda found: dial(60 * int(found[1]) + int(found[2])), text)
    text = BARE.sub(r"set it to \g<0>", text) if BARE.match(text) else text
    for pattern, word in ((LATER, "later"), (EARLIER, "earlier"), (AGO, "earlier")):
        text = pattern.sub(rf"\g<amount> {word}", text)
    return text


def dial(minutes: int) -> str:
    """What a dial of twelve hours shows so many minutes after twelve: "4:45"."""
    hour, minute = divmod(minutes % 720, 60)
    return f"{hour or 12}:{minute:02d}"


def shift(text: str) -> int | None:
    """The minutes of the one length of time that a text names ("an hour and 20 minutes"); None for none or several."""
    found = [*SHIFT.finditer(text)]
    if len(found) != 1:
        return None
    hours, rest, minutes, part = (_number(found[0][name] or "0") for name in ("hours", "rest", "minutes", "part"))
    return 60 * hours + 30 * bool(found[0]["more"] or found[0]["too"]) + rest + minutes + part


def _time(found: re.Match[str], sign: int) -> str:
    said = found.groupdict()
    hour, minute = _number(said["hour"]), _number(said.get("minute") or "0")
    if hour > 24 or minute > 59 or (hour == 0 and sign == 0):
        return found[0]
    return dial(60 * hour + sign * minute)


def _number(said: str) -> int:
    return int(said) if said.isdecimal() else (NUMBERS | NAMED)[said.lower()]
