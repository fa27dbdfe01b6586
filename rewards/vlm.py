"""Qwen2.5-VL and Qwen3-VL of any size as differentiable judges of images, and as writers.

    vlm = VLM.load("assets/models/studio/vlm")
    vlm.log_odds(images, ["Is the rim red?", "Does the clock show 4:45?"])  # (B, 2), gradient to the pixels

The image tower runs once per batch (`features`); all questions of all images are then answered
in one pass of the text tower (`score`; the layout is explained in `rewards.prompt`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rewards.attention import WindowAttention
from rewards.base import FAMILIES, NO, YES
from rewards.lookup import agreed, causal, guessed
from rewards.planner import FOLDER, adapted
from rewards.preprocess import MatrixPatchEmbed, pixel_patches
from rewards.prompt import Packed, Prompter, Question

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel, ProcessorMixin

Images = Float[Tensor, "batch 3 height width"]

_REMEMBERED = 32
"""Layouts of questions that a VLM remembers: a search asks the same ones at every step."""


@dataclass
class Calls:
    """Counts the work of a VLM: one for each image-question pair scored and for each text written."""

    count: int = 0


class Features(NamedTuple):
    """A batch of images as the text tower sees them, all of one size."""

    tokens: Float[Tensor, "batch tokens width"]
    deep: tuple[Float[Tensor, "batch tokens width"], ...]
    """What Qwen3-VL adds to the states after its first layers; empty for Qwen2.5-VL."""
    grid: tuple[int, int, int]
    """Time, height and width in patches."""


class VLM:
    """A vision-language model with its processor. Frozen unless told otherwise; training isn't its job.

    Scores are in nats, in single precision or better whatever the model's dtype.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, frozen: bool = True) -> None:
        """Wrap `model`, whose patch embedding and vision attention are replaced by equal and faster ones.

        Raises ValueError for a model of another family.
        """
        if model.config.model_type not in FAMILIES:
            raise ValueError(f"A VLM must be of {' or '.join(FAMILIES)}, not {model.config.model_type}.")
        self.model, self.processor = model, processor
        self.prompter = Prompter(processor)
        self.text, visual = model.model.language_model, model.model.visual
        if not isinstance(visual.patch_embed, MatrixPatchEmbed):
            visual.patch_embed = MatrixPatchEmbed(visual.patch_embed.proj)
        for block in visual.blocks:
            if not isinstance(block.attn, WindowAttention):
                block.attn = WindowAttention(block.attn)
        if frozen:
            model.eval().requires_grad_(False)
        yes, no = self.prompter.spellings(YES), self.prompter.spellings(NO)
        self._yes, self._spellings = len(yes), torch.tensor(yes + no, device=model.device)
        self._layouts: dict[Any, tuple[Packed, Tensor, Tensor]] = {}
        self._planner: VLM | None = None

    @property
    def planner(self) -> VLM:
        """What writes the plans: this VLM, or one that shares all with it but for the adapter of its model."""
        return self._planner or self

    def plan_with(self, model: PreTrainedModel) -> None:
        """Write plans with this twin of the model from now on; see `rewards.planner`."""
        self._planner = copy.copy(self)
        self._planner.model, self._planner.text = model, model.model.language_model
        self._planner._layouts, self._planner._planner = {}, None

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        quantization: str | None = None,
        download: bool = False,
    ) -> VLM:
        """A folder or a repository of the Hugging Face hub; safetensors only, no code of the repository's.

        `quantization` "nf4" holds the text tower in 4 bits (bitsandbytes). Nothing is fetched from
        the hub unless `download`. Raises ValueError with a sentence.
        """
        if quantization not in (None, "nf4"):
            raise ValueError(f"quantization must be None or nf4, not {quantization!r}.")
        # Slow to import, and a page starts without them.
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

        common = {"trust_remote_code": False, "local_files_only": not download}
        try:
            family = AutoConfig.from_pretrained(source, **common).model_type
            if family not in FAMILIES:
                raise ValueError(f"{source} holds a {family} model; choose one of {' or '.join(FAMILIES)}.")
            processor = AutoProcessor.from_pretrained(source, **common)
            extra: dict[str, Any] = {}
            if quantization:
                extra["device_map"] = {"": device}
                extra["quantization_config"] = BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=dtype,
                    llm_int8_skip_modules=["model.visual", "lm_head"],
                )
            model = AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype, use_safetensors=True, attn_implementation="sdpa", **extra, **common
            )
        except OSError as error:
            raise ValueError(f"No VLM at {source}: name a folder that holds one, or download it first.") from error
        if quantization is None:
            model = model.to(device)
        else:
            from rewards.fourbit import differentiable  # slow to import, and nobody else needs it

            model = differentiable(model)
        vlm = cls(model, processor)
        if (adapter := Path(source) / FOLDER).is_dir():
            vlm.plan_with(adapted(vlm.model, adapter))
        return vlm

    @property
    def device(self) -> torch.device:
        return self.model.device

    def features(self, images: Images) -> Features:
        """What the text tower needs of `images` (B, 3, H, W) in [0, 1]; compute it once, ask often."""
        patches, grid = pixel_patches(self.processor.image_processor, images.to(self.device))
        seen = self.model.model.get_image_features(patches, grid, return_dict=True)

        def batched(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(tuple(parts)).unflatten(0, (len(images), -1))

        deep = getattr(seen, "deepstack_features", None) or ()
        return Features(batched(seen.pooler_output), tuple(map(batched, deep)), tuple(grid[0].tolist()))

    def log_odds(
        self, images: Images, questions: Sequence[str], calls: Calls | None = None
    ) -> Float[Tensor, "batch questions"]:
        """log p(yes) - log p(no) of the next token, each pooled over its spellings."""
        return self.score(self.features(images), [[Question(text) for text in questions]], calls)

    def log_likelihood(
        self, images: Images, questions: Sequence[str], answers: Sequence[str], calls: Calls | None = None
    ) -> Float[Tensor, "batch questions"]:
        """log p of each whole answer with its end token, in nats."""
        row = [Question(*pair) for pair in zip(questions, answers, strict=True)]
        return self.score(self.features(images), [row], calls)

    def score(
        self, features: Features, rows: Sequence[Sequence[Question]], calls: Calls | None = None
    ) -> Float[Tensor, "batch questions"]:
        """Log-odds of yes for questions without an answer, else the answer's log-likelihood.

        `rows` has one row of questions for all images, or a row for each.
        """
        batch = len(features.tokens)
        if len(rows) not in (1, batch):
            raise ValueError(f"{batch} images need 1 or {batch} rows of questions, not {len(rows)}.")
        packed, positions, mask = self.layout(features.grid, tuple(map(tuple, rows)))
        hidden = self.read(features, packed, positions, mask)
        scores = self._log_odds(_at(hidden, packed.ends))
        if len(packed.answers):
            is_open = torch.tensor([[q.answer is not None for q in row] for row in rows], device=self.device)
            scores = torch.where(is_open, self.log_likelihoods(hidden, packed, scores.shape), scores)
        if calls is not None:
            calls.count += scores.numel()
        return scores

    @torch.no_grad()
    def answer(
        self, image: Float[Tensor, "3 height width"], prompt: str, max_new_tokens: int = 64, calls: Calls | None = None,
        like: str = "",
    ) -> str:  # fmt: skip
        """The text that the model finds likeliest, token by token, for one image in [0, 1].

        What it will resemble, `like`, saves passes where it does; see `rewards.lookup`.
        """
        return self.answers(image[None], [prompt], max_new_tokens, calls, like)[0]

    @torch.no_grad()
    def answers(
        self, images: Images, prompts: Sequence[str], max_new_tokens: int = 64, calls: Calls | None = None,
        like: str = "",
    ) -> list[str]:  # fmt: skip
        """`answer` for a batch of images with a prompt each; only a lone one is written by guesses."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images need as many prompts, not {len(prompts)}.")
        features = self.features(images)
        packed, positions, mask = self.layout(features.grid, tuple((Question(text),) for text in prompts))
        from transformers import DynamicCache  # slow to import, and a page starts without it

        cache = DynamicCache(config=self.text.config)
        hidden = _at(self.read(features, packed, positions, mask, cache), packed.ends)
        position = positions.gather(2, packed.ends.expand(3, -1, -1))
        # Padding after the shorter prompts stays invisible to what follows.
        mask = mask.gather(2, packed.ends[:, None, :, None].expand(-1, 1, -1, mask.shape[-1]))
        tokenizer = self.prompter.tokenizer
        known = tokenizer.encode(like, add_special_tokens=False) if like and len(prompts) == 1 else None
        written = self._write(hidden, position, mask, cache, max_new_tokens, known)
        if calls is not None:
            calls.count += len(prompts)
        if not written:
            return [""] * len(prompts)
        return [text.strip() for text in tokenizer.batch_decode(torch.cat(written, 1), skip_special_tokens=True)]

    def _write(
        self, hidden: Tensor, position: Tensor, mask: Tensor, cache: DynamicCache, most: int, known: list[int] | None
    ) -> list[Int[Tensor, "batch 1"]]:
        """The likeliest tokens, `most` at most, after prompts whose last tokens have these states and places.

        `known` are tokens to guess by, of a lone prompt alone; see `rewards.lookup`.
        """
        written, end = [], self.prompter.tokenizer.eos_token_id
        done = torch.zeros(len(hidden), 1, dtype=torch.bool, device=self.device)
        token = self.model.lm_head(hidden).argmax(-1)
        while len(written) < most:
            token = token.masked_fill(done, end)
            done = done | (token == end)
            if done.all():
                break
            written.append(token)
            guess = token[:, :0]
            if known is not None:
                known = [*known, int(token)]
                guess = torch.tensor([guessed(known, most - len(written))], dtype=token.dtype, device=self.device)
            read = torch.cat([token, guess], 1)
            hidden = self.text(
                inputs_embeds=self.text.embed_tokens(read),
                position_ids=position + torch.arange(1, 1 + read.shape[1], device=self.device),
                attention_mask=causal(mask, read.shape[1]),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            found = self.model.lm_head(hidden).argmax(-1)
            right = agreed(guess, found)
            written += [guess[:, i : i + 1] for i in range(right)]
            known = known and known + guess[0, :right].tolist()
            cache.crop(right - guess.shape[1])
            position, mask = position + 1 + right, torch.nn.functional.pad(mask, (0, 1 + right))
            token = found[:, right : right + 1]
        return written

    def layout(
        self, grid: tuple[int, int, int], rows: tuple[tuple[Question, ...], ...]
    ) -> tuple[Packed, Tensor, Tensor]:
        """The rows as tensors, with positions (3, R, L) and an additive attention mask (R, 1, L, L)."""
        if (grid, rows) in self._layouts:
            return self._layouts[grid, rows]
        packed, positions = self.arrange(grid, rows)
        packed = packed.to(self.device)
        layout = packed, positions.to(self.device), self.mask(packed)
        if len(rows) == 1:
            if len(self._layouts) >= _REMEMBERED:
                self._layouts.pop(next(iter(self._layouts)))
            self._layouts[grid, rows] = layout
        return layout

    def arrange(
        self, grid: tuple[int, int, int], rows: Sequence[Sequence[Question]]
    ) -> tuple[Packed, Int[Tensor, "3 rows length"]]:
        """The rows with their positions, on the CPU; needs the tokenizer and no weights."""
        merge = self.processor.image_processor.merge_size
        packed = self.prompter.pack(rows, grid[0] * grid[1] * grid[2] // merge**2, torch.device("cpu"))
        start, stop = packed.image
        # The model's own rule for one conversation as long as the longest; all share its positions.
        kind = torch.zeros(1, int(packed.offset.max()) + 1, dtype=torch.int)
        kind[:, start:stop] = 1
        rope, _ = self.model.model.get_rope_index(
            torch.zeros_like(kind, dtype=torch.long), kind, image_grid_thw=torch.tensor([grid])
        )
        return packed, rope[:, 0][:, packed.offset]

    def mask(self, packed: Packed) -> Float[Tensor, "rows 1 length length"]:
        """What is added to the text tower's attention: 0 where a token may look, else the least number."""
        attends = packed.attends
        mask = torch.zeros(attends.shape, dtype=self.text.embed_tokens.weight.dtype, device=attends.device)
        return mask.masked_fill_(~attends, torch.finfo(mask.dtype).min)

    def read(
        self, features: Features, packed: Packed, positions: Tensor, mask: Tensor, cache: DynamicCache | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Last hidden states of every row with the images in their places."""
        batch, (start, stop) = len(features.tokens), packed.image
        words = self.text.embed_tokens(packed.ids).expand(batch, -1, -1)
        embeds = torch.cat([words[:, :start], features.tokens.to(words), words[:, stop:]], 1)
        deep: dict[str, Any] = {}
        if features.deep:
            where = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
            where[:, start:stop] = True
            deep = {"visual_pos_masks": where, "deepstack_visual_embeds": [d.flatten(0, 1) for d in features.deep]}
        return self.text(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **deep,
        ).last_hidden_state

    def _log_odds(self, hidden: Float[Tensor, "batch questions width"]) -> Float[Tensor, "batch questions"]:
        """Only the answers' rows of the output layer are multiplied: a vocabulary has 150,000."""
        weight = self.model.get_output_embeddings().weight[self._spellings]
        logits = (_precise(hidden)[..., None, :] * _precise(weight)).sum(-1)
        yes, no = logits[..., : self._yes], logits[..., self._yes :]
        return yes.logsumexp(-1) - no.logsumexp(-1)

    def log_likelihoods(self, hidden: Tensor, packed: Packed, shape: torch.Size) -> Float[Tensor, "batch questions"]:
        """Sums of log p over each question's answer tokens; zero where there is no answer."""
        row, question, place, token = packed.answers.unbind(1)
        if len(packed.ids) == 1:
            image = torch.arange(len(hidden), device=self.device).repeat_interleave(len(token))
            question, place, token = (x.repeat(len(hidden)) for x in (question, place, token))
        else:
            image = row
        logits = _precise(self.model.lm_head(hidden[image, place]))
        terms = logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
        return terms.new_zeros(shape).index_put((image, question), terms, accumulate=True)


def _at(hidden: Float[Tensor, "batch length width"], places: Tensor) -> Float[Tensor, "batch places width"]:
    """The hidden states at `places` (1 or batch, P)."""
    return hidden.gather(1, places.expand(len(hidden), -1)[..., None].expand(-1, -1, hidden.shape[-1]))


def _precise(x: Tensor) -> Tensor:
    """In single precision at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
