"""Questions about an image as token sequences: one row per image holds every question.

A row is the prompt up to the end of the image, shared, followed by the rest of each question's
prompt and, where it has one, its answer:

    <user> <image> | question 1 <assistant> | question 2 <assistant> answer 2 | ...

The attention mask lets a question see the shared part and itself only, and every question
takes up the positions where the shared part ended. To the model each is therefore alone with
the image, while the image is read once: for eight short questions about half the work of
eight prompts, and an eighth where the image is most of the prompt.

So the image always comes before the question. The chat templates of Qwen-VL would take either order, but a token only
sees what stands before it: after a question the image's tokens depend on that question, and could be shared by none.
What that costs a model, if anything, `benchmarks.question_order` measures once for each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import ProcessorMixin

MAX_TEXT = 8000
"""Longest text of one prompt, in characters."""
_SHARED, _PADDING = 0, -1


class Question(NamedTuple):
    """A question about an image, with the answer to be weighed or None for yes against no."""

    text: str
    answer: str | None = None


@dataclass(frozen=True)
class Packed:
    """Rows of questions as tensors. R is 1 (one row for every image) or the number of images."""

    ids: Int[Tensor, "rows length"]
    offset: Int[Tensor, "rows length"]
    """Place of each token in its own conversation: indexes the rope positions."""
    segment: Int[Tensor, "rows length"]
    """0 in the part that all questions share, then the number of each question from 1, -1 in padding."""
    image: tuple[int, int]
    """Where the image's tokens start and end, the same in every row."""
    ends: Int[Tensor, "rows questions"]
    """Place of each prompt's last token: what it predicts begins the answer."""
    answers: Int[Tensor, "tokens 4"]
    """(row, question, place, token) for each answer token: the hidden state at `place` predicts it."""

    @property
    def attends(self) -> Bool[Tensor, "rows 1 length length"]:
        """True where a query (third axis) may see a key (fourth)."""
        same = self.segment[:, :, None] == self.segment[:, None, :]
        return (same | (self.segment == _SHARED)[:, None, :]).tril()[:, None]

    def to(self, device: torch.device) -> Packed:
        """The same rows on another device."""
        moved = {
            name: part.to(device, non_blocking=True) for name, part in vars(self).items() if isinstance(part, Tensor)
        }
        return replace(self, **moved)


class Prompter:
    """Builds the prompts of one model through its processor's own chat template."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        names = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        # Whatever looks like a marker of a chat, known to this tokenizer or not.
        marker = [re.escape(name) for name in names] + [r"<\|[^<>|]*\|>", r"</?(?:think|tool_call|tool_response)>"]
        self._marker = re.compile("|".join(marker))

    def neutral(self, text: str) -> str:
        """`text` without special tokens, so that a user's words can't open a turn or add an image.

        Raises ValueError when it is empty, longer than MAX_TEXT, or holds what is no character.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError("The text holds what is no character: write it anew.") from error
        if len(text) > MAX_TEXT:
            raise ValueError(f"A text for the VLM may have {MAX_TEXT} characters, not {len(text)}: shorten it.")
        text, before = unicodedata.normalize("NFC", text), None
        while text != before:
            text, before = self._marker.sub(" ", text), text
        if not text.strip():
            raise ValueError("A text for the VLM must have words besides special tokens.")
        return text

    def split(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids of the prompt (image, text): up to the image's end marker, and the rest.

        The image is a single placeholder in the first part, its last token but one.
        """
        content = [{"type": "image"}, {"type": "text", "text": self.neutral(text)}]
        rendered = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        ids = self.tokenizer(rendered, add_special_tokens=False).input_ids
        if ids.count(self.processor.image_token_id) != 1:
            raise ValueError("The VLM's chat template must place exactly one image in a prompt with one.")
        cut = ids.index(self.processor.image_token_id) + 2
        return ids[:cut], ids[cut:]

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of a whole answer: its text and the token that ends a turn."""
        return [*self.tokenizer.encode(self.neutral(answer), add_special_tokens=False), self.tokenizer.eos_token_id]

    def spellings(self, word: str) -> list[int]:
        """Tokens that are `word` by themselves, however written. Raises ValueError when there is none."""
        written = {w for base in (word, word.capitalize(), word.upper()) for w in (base, " " + base)}
        ids = [self.tokenizer.encode(w, add_special_tokens=False) for w in sorted(written)]
        single = sorted({i[0] for i in ids if len(i) == 1})
        if not single:
            raise ValueError(f'The VLM\'s tokenizer has no single token for "{word}".')
        return single

    def pack(self, rows: Sequence[Sequence[Question]], image_tokens: int, device: torch.device) -> Packed:
        """Lay out `rows` for images of `image_tokens` tokens; every row has equally many questions."""
        if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
            raise ValueError("Every image needs at least one question, and as many as the others.")
        layouts = [_Row(self, row, image_tokens) for row in rows]
        length = max(len(layout.ids) for layout in layouts)

        def table(values: Iterator[list[int]], fill: int) -> Tensor:
            # By way of numpy, which reads long lists several times as fast.
            rows = np.array([v + [fill] * (length - len(v)) for v in values], np.int64)
            return torch.from_numpy(rows).to(device)

        answers = [(r, *target) for r, layout in enumerate(layouts) for target in layout.answers]
        return Packed(
            ids=table((layout.ids for layout in layouts), self.tokenizer.pad_token_id),
            offset=table((layout.offset for layout in layouts), 0),
            segment=table((layout.segment for layout in layouts), _PADDING),
            image=layouts[0].image,
            ends=torch.tensor([layout.ends for layout in layouts], device=device),
            answers=torch.tensor(answers, dtype=torch.long, device=device).reshape(-1, 4),
        )


class _Row:
    """One row under construction, as plain lists."""

    def __init__(self, prompter: Prompter, questions: Sequence[Question], image_tokens: int) -> None:
        prompts = [prompter.split(question.text) for question in questions]
        *before, placeholder, after = prompts[0][0]
        if any(shared != prompts[0][0] for shared, _ in prompts):
            raise ValueError("The VLM's chat template must place the image before the question.")
        self.image = (len(before), len(before) + image_tokens)
        self.ids = [*before, *[placeholder] * image_tokens, after]
        self.segment = [_SHARED] * len(self.ids)
        self.offset = list(range(len(self.ids)))
        self.ends: list[int] = []
        self.answers: list[tuple[int, int, int]] = []
        for index, (question, (_, rest)) in enumerate(zip(questions, prompts, strict=True)):
            self._add(index, rest, [] if question.answer is None else prompter.answer_ids(question.answer))

    def _add(self, index: int, rest: list[int], answer: list[int]) -> None:
        end = len(self.ids) + len(rest) - 1
        self.ends.append(end)
        self.answers += [(index, end + i, token) for i, token in enumerate(answer)]
        tokens = rest + answer[:-1]  # nothing is predicted from the end token
        start = self.image[1] + 1
        self.ids += tokens
        self.segment += [index + 1] * len(tokens)
        self.offset += range(start, start + len(tokens))
