"""What the page shows of a run, as HTML strings made of plain data; every text of a person is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from editor.types import Cost
from rewards.base import NO, YES

OPINION = "Scores and percentages are the model's opinion, not measurements."


def header(name: str, description: str, licence: str, notices: Sequence[str]) -> str:
    """The title with the profile at hand."""
    said = "".join(f"<p>{escape(text)}</p>" for text in (description, licence, *notices))
    return (
        '<header class="brand"><div><h1>Tiltedit</h1>'
        "<p>Say what should be different. See why the result was chosen.</p></div>"
        f"<details><summary><b>{escape(name)}</b> profile</summary><div>{said}</div></details></header>"
    )


def status(text: str, kind: str = "idle", share: float | None = None) -> str:
    """One line about what goes on: kind is 'ready', 'idle', 'busy', 'ask', 'done' or 'bad', share in [0, 1] a bar."""
    bar = "" if share is None else f'<i class="bar" style="width:{100 * share:.0f}%"></i>'
    return f'<div class="status {kind}" role="status" aria-live="polite"><span>{escape(text)}</span>{bar}</div>'


WELCOME = """<ol class="welcome">
<li><b>Choose a picture.</b> Yours or an example. Nothing leaves the machine that runs this page.</li>
<li><b>Say what should be different.</b> The model makes a plan of it: questions it will ask of every candidate.
You may change them.</li>
<li><b>Run.</b> Candidates set out from your picture. You watch where each would land, and can stop at any time.</li>
<li><b>See why.</b> Each check before and after, the reward on its way, and every other candidate to choose from.</li>
</ol>"""


# -------------------------------------------------------------------------------------------------------------- cards


@dataclass(frozen=True)
class Card:
    """A small picture (WebP) with its caption."""

    picture: bytes
    caption: str
    alt: str
    checks: tuple[tuple[str, bool], ...] = ()
    """Questions with whether they hold."""
    hint: str = ""
    """What is shown over it besides; the caption if empty."""


def cards(items: Sequence[Card], label: str, best: int | None = None, choosable: bool = False) -> str:
    """Pictures in a grid, the best one marked; choosable ones are buttons that `CARDS_JS` listens to."""
    if not items:
        return ""
    shown = "".join(_card(item, index, index == best, choosable) for index, item in enumerate(items))
    return f'<div class="cards" role="group" aria-label="{escape(label)}">{shown}</div>'


def candidates(shown: str, choosable: bool = False) -> str:
    """The candidates' cards under their heading."""
    does = "Choose another one to make it the result." if choosable else "Where each would land if it went on alone."
    return f"<section><h2>Candidates <small>score, model opinion</small></h2><p>{does}</p>{shown}</section>"


def _card(card: Card, index: int, best: bool, choosable: bool) -> str:
    tag, more = (
        ("button", f' type="button" data-index="{index}" aria-pressed="{str(best).lower()}"')
        if choosable
        else ("div", "")
    )
    marks = "".join(
        f'<i class="{"yes" if holds else "no"}" title="{escape(question)}">{"✓" if holds else "✕"}</i>'
        for question, holds in card.checks
    )
    data, hint = base64.b64encode(card.picture).decode(), escape(card.hint or card.caption)
    return (
        f'<{tag} class="card{" best" if best else ""}"{more}><img src="data:image/webp;base64,{data}" '
        f'alt="{escape(card.alt)}"><span title="{hint}">{escape(card.caption)}{marks}</span></{tag}>'
    )


CARDS_JS = """
element.addEventListener("click", (event) => {
  const card = event.target.closest("[data-index]");
  if (card) trigger("click", { index: Number(card.dataset.index) });
});
"""
"""Run for the component that holds choosable cards: a click sends the card's index."""


# ------------------------------------------------------------------------------------------------------------- checks


def answer(expected: str, probability: float) -> str:
    """What the model would say: the expected answer or its opposite, with the probability of the expected one."""
    percent = f"{100 * probability:.0f} %"
    if expected not in (YES, NO):
        return f"{expected}: {percent}"
    other = {YES: NO, NO: YES}[expected]
    return f"{(expected if probability >= 0.5 else other).capitalize()} {percent}"


def checks(rows: Sequence[dict[str, Any]], warning: str = "", kept: Sequence[dict[str, Any]] = ()) -> str:
    """Each check with what the model thinks of the source and of the result, under what there is to warn about.

    Below, what must stay, each thing with whether it did.
    """
    warned = f'<p class="warning" role="alert">{escape(warning)}</p>' if warning else ""
    if not rows:
        return warned
    listed = f"<ul>{''.join(_check(row) for row in rows)}</ul>"
    stays = f"<p>Must stay: {' '.join(map(_stays, kept))}</p>" if kept else ""
    shown = f"<h2>Checks</h2>{listed}{stays}<p>{OPINION}</p>"
    return f'{warned}<section class="checks" aria-label="Checks">{shown}</section>'


def _stays(row: dict[str, Any]) -> str:
    """A thing that must stay, with a sign where it was seen before."""
    before, after = (answer(YES, row[side]) for side in ("before", "after"))
    kind, sign = ("unseen", "") if row["before"] < 0.5 else ("yes", "✓ ") if row["after"] >= 0.5 else ("no", "✕ ")
    return f'<span class="{kind}" title="Seen? {before} → {after}">{sign}{escape(row["thing"])}</span>'


def _check(row: dict[str, Any]) -> str:
    before, after = (answer(row["expected"], row[side]) for side in ("before", "after"))
    passed = row["after"] >= 0.5
    sign = "holds" if passed else "does not hold"
    return (
        f'<li class="{"yes" if passed else "no"}"><b aria-label="{sign}">{"✓" if passed else "✕"}</b>'
        f"<span>{escape(row['question'])}</span><em>{escape(before)} <u>→</u> {escape(after)}</em>"
        f'<i style="--before:{row["before"]:.3f};--after:{row["after"]:.3f}"></i></li>'
    )


# --------------------------------------------------------------------------------------------------------------- cost


def details(report: dict[str, Any]) -> str:
    """What the run cost, and how well the model can show the source at all."""
    cost = Cost(**report["cost"])
    facts = {
        "Score (model opinion)": _arrow(report["source_score"], report["score"]),
        "Network calls": f"{cost.nfe} (NFE)",
        "Model's questions": f"{cost.vlm_calls} answered",
        "Decodes": str(cost.decodes),
        "Time": f"{cost.seconds:.1f} s",
        "Seed": str(report["seed"]),
        "Method": report["method"],
    }
    if report.get("changed") is not None:
        facts["Picture changed"] = f"{report['changed']:.0%}, the rest is put back"
    if report["roundtrip_psnr"] is not None:
        facts["Round trip"] = f"{report['roundtrip_psnr']:.1f} dB"
    if report.get("offset") is not None:
        facts["Lies off the source by"] = "{:+.2f}, {:+.2f} px".format(*report["offset"])
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _arrow(before: float | None, after: float | None) -> str:
    return " → ".join(f"{value:.2f}" for value in (before, after) if value is not None)
