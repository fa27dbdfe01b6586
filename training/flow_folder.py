"""The studio's flow map before training: small networks of FLUX's classes, and the folder they are saved in.

`new_*` make the modules; a training script trains them; `save_pipeline` writes a FluxPipeline folder that
`editor.models` loads. Captions reach the networks as stock FluxPipeline sends them: padded token ids,
no attention mask, the T5 sequence and the pooled CLIP embedding.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from math import log
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from editor.twotime import two_time

TEXT_TOKENS = 36
"""Length of the T5 sequence: text tokens cost the transformer as much as the 64 image tokens."""
POOLED_TOKENS = 40
"""Length of the CLIP sequence, which costs next to nothing."""
PRINTABLE = [chr(code) for code in range(33, 127)]


class TextEncoders(NamedTuple):
    """The two text encoders and their tokenizers, in the order of FluxPipeline's components."""

    clip: CLIPTextModel
    clip_tokenizer: CLIPTokenizer
    t5: T5EncoderModel
    t5_tokenizer: T5TokenizerFast

    def tokens(self, captions: Sequence[str]) -> tuple[Int[Tensor, "batch pooled"], Int[Tensor, "batch text"]]:
        """Token ids for CLIP and T5, cut and padded to their fixed lengths."""
        pairs = ((self.clip_tokenizer, POOLED_TOKENS), (self.t5_tokenizer, TEXT_TOKENS))
        clip, t5 = (
            tokenizer(list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            for tokenizer, length in pairs
        )
        return clip.input_ids, t5.input_ids

    def encode(
        self, clip_ids: Int[Tensor, "batch pooled"], t5_ids: Int[Tensor, "batch text"]
    ) -> tuple[Float[Tensor, "batch text width"], Float[Tensor, "batch width"]]:
        """(T5 sequence, pooled CLIP): the transformer's encoder_hidden_states and pooled_projections."""
        return self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output


def new_transformer(
    width: int = 256,
    double: int = 1,
    single: int = 6,
    channels: int = 12,
    text_width: int = 96,
    pooled_width: int = 64,
    heads: int = 4,
) -> FluxTransformer2DModel:
    """A FLUX transformer of two times for latents of `channels`, packed two by two. Random weights."""
    if width % heads or (width // heads) % 8:
        raise ValueError(f"A head's width must be a multiple of 8, not {width} / {heads}.")
    head = width // heads
    side = 2 * (3 * head // 16)  # three eighths for height and width each; the first axis has one position only
    return two_time(
        FluxTransformer2DModel(
            in_channels=4 * channels,
            num_layers=double,
            num_single_layers=single,
            attention_head_dim=head,
            num_attention_heads=heads,
            joint_attention_dim=text_width,
            pooled_projection_dim=pooled_width,
            guidance_embeds=False,
            axes_dims_rope=(head - 2 * side, side, side),
        )
    )


def new_vae(
    channels: int = 12,
    width: int = 32,
    encoder_blocks: tuple[int, ...] = (0, 1, 3, 4),
    decoder_blocks: tuple[int, ...] = (6, 5, 1, 0),
) -> AutoencoderTiny:
    """An 8x autoencoder; blocks are counted from the image's resolution (encoder) and from the latent's (decoder).

    The decoder is twice as wide as the encoder: it must draw what 8 x 8 pixels look like from one place of the latents.
    A block at full resolution costs 64 times one at the latent's, and the decoder is differentiated at every
    step of a search, so the defaults put none there. Random weights.
    """
    return AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(width,) * len(encoder_blocks),
        decoder_block_out_channels=(2 * width,) * len(decoder_blocks),
        num_encoder_blocks=encoder_blocks,
        num_decoder_blocks=decoder_blocks,
    )


def new_text_encoders(captions: Iterable[str], text_width: int = 96, pooled_width: int = 64) -> TextEncoders:
    """A two-layer T5 and a one-layer CLIP whose tokenizers know the words of `captions`. Random weights."""
    captions = list(captions)
    clip_tokenizer, t5_tokenizer = new_clip_tokenizer(captions), new_t5_tokenizer(captions)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=pooled_width,
            intermediate_size=2 * pooled_width,
            num_hidden_layers=1,
            num_attention_heads=pooled_width // 32,
            max_position_embeddings=POOLED_TOKENS,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=text_width,
            d_kv=32,
            d_ff=2 * text_width,
            num_layers=2,
            num_heads=text_width // 32,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=t5_tokenizer.pad_token_id,
            eos_token_id=t5_tokenizer.eos_token_id,
        )
    )
    return TextEncoders(clip, clip_tokenizer, t5, t5_tokenizer)


def new_clip_tokenizer(captions: Sequence[str], vocabulary: int = 2000) -> CLIPTokenizer:
    """CLIP's byte-level BPE, trained on the captions; any other text falls apart into bytes."""
    tokenizer = CLIPTokenizer().train_new_from_iterator(captions, vocabulary, show_progress=False)
    tokenizer.model_max_length = POOLED_TOKENS
    return tokenizer


def new_t5_tokenizer(captions: Sequence[str]) -> T5TokenizerFast:
    """A Unigram tokenizer with a piece for each word of the captions; any other ASCII word is spelt."""
    counts = Counter(word for caption in captions for word in re.findall(r"\w+", caption))
    total = sum(counts.values())
    words = [("▁" + word, log(count / total)) for word, count in sorted(counts.items())]
    letters = [(letter, log(1 / total) - 10) for letter in ["▁", *PRINTABLE]]
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5TokenizerFast(vocab=marks + words + letters, extra_ids=0, model_max_length=TEXT_TOKENS)


def save_pipeline(
    folder: Path,
    transformer: FluxTransformer2DModel,
    vae: AutoencoderTiny,
    text: TextEncoders,
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Write a FluxPipeline folder with weights in `dtype`; returns its size in bytes.

    The modules stay as they are: copies are cast.
    """
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=cast(vae, dtype),
        text_encoder=cast(text.clip, dtype),
        tokenizer=text.clip_tokenizer,
        text_encoder_2=cast(text.t5, dtype),
        tokenizer_2=text.t5_tokenizer,
        transformer=cast(transformer, dtype),
    )
    pipeline.save_pretrained(folder)
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a module in another dtype."""
    return nn.Module.to(deepcopy(module), dtype)
