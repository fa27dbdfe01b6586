"""Tiny random VLMs of both families for the tests: seconds to build, same classes as the real ones."""

from __future__ import annotations

import torch
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from training.vlm_folder import (
    CHAT_TEMPLATE,
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
    new_model,
    new_processor,
    new_tokenizer,
)

CORPUS = (
    "Does the clock show 4:45?",
    "Is the rim red?",
    "Does the picture show Roman numerals?",
    "What time does the clock show?",
    'Plan this edit as JSON: {"source": "", "checks": [{"question": "", "expected": "yes", "weight": 2}]}',
)


def tiny_qwen25(image_size: int = 112, width: int = 32) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A random Qwen2.5-VL with patches of 14 pixels, and its processor."""
    tokenizer = new_tokenizer(CORPUS, 400)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = new_model(tokenizer, width=width, text_layers=2, vision_layers=2, heads=2)
    return _sharpened(model), new_processor(tokenizer, image_size)


def tiny_qwen3(image_size: int = 128, width: int = 32) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A random Qwen3-VL with patches of 16 pixels and features that enter after two layers."""
    tokenizer = new_tokenizer(CORPUS, 400)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    ids = {
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
        "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids(VISION_START),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids(VISION_END),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    area, half = image_size * image_size, [0.5] * 3
    images = Qwen2VLImageProcessor(min_pixels=area, max_pixels=area, patch_size=16, image_mean=half, image_std=half)
    processor = Qwen3VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    return _sharpened(model), processor


def _sharpened(model: PreTrainedModel) -> PreTrainedModel:
    """Weights five times as large as new ones: answers then depend visibly on the image."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model.eval()
