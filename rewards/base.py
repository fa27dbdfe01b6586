"""What a reward is: images -> one number each, higher is better; and the words of a plan.

Images are (batch, 3, height, width) in [0, 1]. Rewards never import the editor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from re import findall
from typing import Any, Protocol

from jaxtyping import Float
from PIL import ImageColor
from torch import Tensor

YES, NO = "yes", "no"
CAPTION, KEPT = 500, 200
"""The most characters of a plan's caption, and of one thing to keep."""
COLOURS, SPEAKS = frozenset(ImageColor.colormap), frozenset({"colour", "color"})
"""Words that name a colour, some of them things as well, and words that speak of one."""
ARTICLES, ELSE = frozenset({"a", "an", "the", "some"}), frozenset({"there", "wearing", "holding", "showing"})
"""Words before a thing, and words by which a question asks for one."""
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Values of `model_type` in a folder's config.json that `rewards.vlm.VLM` reads."""


def _ends_in_colour(words: Sequence[str]) -> bool:
    return bool(words) and words[-1] in COLOURS


def is_text(words: str) -> bool:
    """Whether words are characters alone, so that they can be written: half of a surrogate pair is none."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Check:
    """A question about the image with its expected answer and a weight.

    `expected` "yes" or "no" makes it a yes/no check, scored by the log-odds of the answer;
    anything else an open question, scored by the log-likelihood of the answer.
    Raises ValueError with a sentence when a field makes no sense.
    """

    question: str
    expected: str = YES
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.expected.strip():
            raise ValueError("A check needs a question and an expected answer.")
        if len(self.question) > 300 or len(self.expected) > 100:
            raise ValueError("A check's question may have 300 characters and its answer 100.")
        if not 0 < self.weight <= 100:
            raise ValueError(f"A check's weight must be above 0 and at most 100, not {self.weight!r}.")

    @classmethod
    def of(cls, question: Any, expected: Any = YES, weight: Any = 1.0) -> Check:
        """A check from untrusted words: true and false are yes and no, as is "Yes" with spaces around it.

        Raises ValueError, TypeError, or OverflowError for a weight beyond all floats.
        """
        said = {True: YES, False: NO}[expected] if isinstance(expected, bool) else str(expected).strip()
        return cls(str(question).strip(), said.lower() if said.lower() in (YES, NO) else said, float(weight))

    @property
    def is_open(self) -> bool:
        return self.expected not in (YES, NO)

    @property
    def names_colour(self) -> bool:
        """Whether it asks for the colour of a thing, by a name of the web ("red", "navy"), and for nothing else.

        "What colour is the rim?" and "Is the rim red?" do. "Is there a red ball?" asks for the ball, and "is it gone?"
        is said by "no": another colour would only feign either.
        """
        asked, said = (findall("[a-z]+", words.lower()) for words in (self.question, self.expected))
        if self.is_open:
            return not SPEAKS.isdisjoint(asked) or (_ends_in_colour(said) and said[0] not in ARTICLES)
        if self.expected != YES or asked[:1] not in (["is"], ["are"]):
            return False
        return _ends_in_colour(asked) and asked[-2] not in ARTICLES and ELSE.isdisjoint(asked)


@dataclass(frozen=True)
class Plan:
    """What the VLM makes of an instruction: checks, a target caption, what must stay."""

    checks: tuple[Check, ...]
    caption: str = ""
    """What the edited image shows; conditions the flow map."""
    keep: tuple[str, ...] = ()
    """What must stay, as noun phrases: "a red rim", "the blue background"."""
    source: str = ""
    """What the VLM says the source image shows."""

    def __post_init__(self) -> None:
        if not self.checks:
            raise ValueError("A plan needs at least one check: write a question with its answer.")
        if len(self.checks) > 12 or len(self.keep) > 16:
            raise ValueError("A plan may have at most 12 checks and 16 things to keep.")
        asked = (word for check in self.checks for word in (check.question, check.expected))
        if not all(map(is_text, (self.caption, self.source, *self.keep, *asked))):
            raise ValueError("A plan holds what is no character: write its checks, captions and keep anew.")
        if max(len(self.caption), len(self.source)) > CAPTION or any(len(phrase) > KEPT for phrase in self.keep):
            raise ValueError(f"A plan's caption may have {CAPTION} characters, a thing to keep {KEPT}: shorten it.")

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON data, in the layout that `from_json` reads."""
        return {
            "source": self.source,
            "checks": [{"question": c.question, "expected": c.expected, "weight": c.weight} for c in self.checks],
            "caption": self.caption,
            "keep": list(self.keep),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """A plan from untrusted JSON data. Raises ValueError with a sentence."""
        if not isinstance(data, Mapping) or not isinstance(data.get("checks"), list):
            raise ValueError("A plan is an object with a list of checks.")
        try:
            checks = tuple(
                Check.of(c["question"], c.get("expected", YES), c.get("weight", 1.0)) for c in data["checks"]
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError("Each check of a plan needs a question, an expected answer and a weight.") from error
        keep = data.get("keep", [])
        if not isinstance(keep, list):
            raise ValueError("A plan's keep is a list of phrases.")
        return cls(checks, str(data.get("caption", "")), tuple(str(k) for k in keep), str(data.get("source", "")))


class Reward(Protocol):
    """images (B, 3, H, W) in [0, 1] -> (B,), higher is better, differentiable."""

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]: ...
