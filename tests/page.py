"""What the tests of the page share: requests, forms and clicks as the handlers get them."""

from dataclasses import asdict
from types import SimpleNamespace

from editor.types import SearchSettings
from editor.ui_forms import CONTROLS, EDIT_ONLY, PLAN


def came(username=None, **query):
    """A request as the handlers see it."""
    sent, base = {"referer": "https://host/path/?x=1"}, "https://base/"
    return SimpleNamespace(username=username, query_params=query, headers=sent, base_url=base)


def form(image, **changes):
    first = SearchSettings(particles=3, steps=4)
    fields = {name: getattr(first, name) for name in CONTROLS}
    fields |= {"picture": image, "instruction": "make it dark", "table": [["", "yes", 1]], "caption": "", "keep": ""}
    fields |= {
        "source_caption": "",
        "planned": "",
        "plan_shown": "",
        "paint": None,
        "mask": None,
        "mask_means": EDIT_ONLY,
        "feather": 0,
        "base": asdict(first),
        "seed": 7,
        "lock": True,
    }
    return fields | {"lock": True} | changes


def plan_of(shown):
    """What a plan's fields send back once they were shown."""
    return {name: shown[name] for name in PLAN}


def all_of(changes):
    """Changes of a whole generator, the later over the earlier."""
    merged = {}
    for change in changes:
        merged |= change
    return merged


def click(index):
    return SimpleNamespace(index=index)
