"""New, untrained parts of a studio VLM: Qwen2.5-VL's own classes at a thousandth of the size.

`save_pretrained` of the model and of the processor into one folder makes a checkpoint that
`rewards.vlm.VLM.load` and transformers read exactly as they read Qwen's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, repeat

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

PAD, END, IMAGE, VIDEO = "<|endoftext|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
SPECIAL = (PAD, "<|im_start|>", END, VISION_START, VISION_END, IMAGE, VIDEO)
"""Qwen's special tokens; they take the last ids of the vocabulary, as in Qwen's."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's layout without its default system prompt."""

WHOLE_WORDS = ("yes", "no", "Yes", "No", "user", "assistant")
"""Answers, and the roles that stand in every prompt: one token each, whatever the corpus."""


def new_tokenizer(corpus: Iterable[str], vocab_size: int = 1024) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer in Qwen's manner, learned from `corpus`; no text is unknown to it.

    `vocab_size` counts the 256 bytes and the special tokens; a small corpus may fill less of it.
    Raises ValueError when `vocab_size` leaves no room for words.
    """
    least = 256 + len(SPECIAL) + 16
    if vocab_size < least:
        raise ValueError(f"A vocabulary needs at least {least} tokens, not {vocab_size}.")
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Pairs merge by frequency, so what must be whole is made frequent.
    whole = chain.from_iterable(repeat(word, 10_000) for word in WHOLE_WORDS)
    bpe.train_from_iterator(chain(whole, corpus), trainer)
    learned = json.loads(bpe.to_str())["model"]
    vocab: dict[str, int] = learned["vocab"]
    vocab |= {token: len(vocab) + i for i, token in enumerate(SPECIAL)}
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(pair) for pair in learned["merges"]],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[token for token in SPECIAL if token not in (PAD, END)],
    )


def new_processor(tokenizer: Qwen2Tokenizer, image_size: int = 112, patch: int = 14) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor that resizes every image to about image_size x image_size pixels."""
    area = image_size * image_size
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=area, max_pixels=area, patch_size=patch),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(min_pixels=area, max_pixels=area, patch_size=patch),
        chat_template=CHAT_TEMPLATE,
    )


def new_model(
    tokenizer: Qwen2Tokenizer,
    width: int = 192,
    text_layers: int = 4,
    vision_layers: int = 5,
    heads: int = 6,
    patch: int = 14,
) -> Qwen2_5_VLForConditionalGeneration:
    """A random model for `tokenizer`: text and vision of the same width, embeddings tied.

    Weights come from torch's generator: seed it, or fork it, before the call.
    Raises ValueError when the width does not divide into heads of a multiple of 8.
    """
    if width % heads or (width // heads) % 8:
        raise ValueError(f"A width of {width} does not divide into {heads} heads of a multiple of 8.")
    eighth = width // heads // 8
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 8 * width // 3 // 32 * 32,
        "num_hidden_layers": text_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Half a head's dimensions turn with time, height and width, shared out as in Qwen's 16 : 24 : 24.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [4 * eighth - 2 * (3 * eighth // 2), 3 * eighth // 2, 3 * eighth // 2],
        },
    }
    vision = {
        "hidden_size": width,
        "out_hidden_size": width,
        "intermediate_size": 8 * width // 3 // 32 * 32,
        "depth": vision_layers,
        "num_heads": heads,
        "patch_size": patch,
        "window_size": 8 * patch,
        "fullatt_block_indexes": list(range(vision_layers)),
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO),
        vision_start_token_id=tokenizer.convert_tokens_to_ids(VISION_START),
        vision_end_token_id=tokenizer.convert_tokens_to_ids(VISION_END),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval()
