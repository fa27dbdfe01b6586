"""The repositories of the GPU profiles as a download leaves them, tiny and random: names of files and of weights as
published, shards with their index, tokenizers by their vocabularies."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel, SCMScheduler
from safetensors.torch import load_file, save, save_file
from torch import nn
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer, PreTrainedModel, ProcessorMixin

from editor.hub import Hub
from editor.profiles import PROFILES
from editor.repos import FLUX_DEV, FLUX_SCHNELL, SANA_SPRINT, TAEF1
from editor.twotime import two_time
from tests.tiny_flow import TEXT_WIDTH, tiny_dc, tiny_kl, tiny_sana, tiny_text
from tests.tiny_vlm import tiny_qwen25
from training.flow_folder import TextEncoders, new_vae

CHANNELS, SANA_WIDTH = 16, 16
SHARDS = "12KB"
"""Small enough that the larger networks are cut up."""
NO_WEIGHTS = save({})
"""The bytes of a safetensors file without a weight."""
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of Qwen2.5-VL, without its videos and numbered pictures: a system prompt stands before the image."""


def flux_transformer(dev: bool = True) -> FluxTransformer2DModel:
    """FLUX.1's layout: one time, 16 latent channels, guidance embedded in dev alone; heads of 64 so that NF4 fits."""
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=dev,
        axes_dims_rope=(8, 12, 12),
    )


@cache
def flux_text() -> TextEncoders:
    """FLUX.1's text encoders, made once: no two trainings of a tokenizer number its words alike."""
    return tiny_text()


def publish(root: Path) -> Hub:
    """Write every repository of flux, flux-schnell and sana into root/owner/name; the hub that finds them there."""
    flux(root / FLUX_DEV.id, True, FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True))
    flux(root / FLUX_SCHNELL.id, False, FlowMatchEulerDiscreteScheduler(shift=1.0))
    sana(root / SANA_SPRINT.id)
    new_vae(CHANNELS, width=4).save_pretrained(root / TAEF1.id)
    profile = PROFILES["flux"]
    lora(root / profile.lora.id / profile.lora.files[0])
    qwen(root / profile.vlm.id, *tiny_qwen25())
    return Hub(snapshot=lambda repo, **_: str(root / repo))


def flux(folder: Path, dev: bool, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
    """FLUX.1: transformer and T5 in shards; CLIP's weights under text_model, its tokenizer as vocabulary and merges.

    Both configs say what is not so: T5's that its two names of the embeddings are apart, CLIP's that texts end with 2.
    """
    text = flux_text()
    flux_transformer(dev).save_pretrained(folder / "transformer", max_shard_size=SHARDS)
    tiny_kl().save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")
    text.t5.save_pretrained(folder / "text_encoder_2", max_shard_size=SHARDS)
    entry(folder / "text_encoder_2" / "config.json", tie_word_embeddings=False)
    text.t5_tokenizer.save_pretrained(folder / "tokenizer_2")
    text.clip.save_pretrained(folder / "text_encoder")
    renamed(folder / "text_encoder" / "model.safetensors", "text_model.")
    text.clip_tokenizer.save_pretrained(folder / "tokenizer")
    vocabulary(folder / "tokenizer", "CLIPTokenizer")
    end_last(folder / "tokenizer" / "vocab.json", folder / "text_encoder" / "model.safetensors")
    entry(folder / "text_encoder" / "config.json", eos_token_id=2)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def sana(folder: Path) -> None:
    """SANA-Sprint: its Gemma encoder in shards."""
    tiny_sana().save_pretrained(folder / "transformer")
    tiny_dc().save_pretrained(folder / "vae")
    SCMScheduler().save_pretrained(folder / "scheduler")
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *map(chr, range(32, 127)), "▁"]
    tokenizer = GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    config = Gemma2Config(
        vocab_size=len(words),
        hidden_size=SANA_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    torch.manual_seed(6)
    Gemma2Model(config).save_pretrained(folder / "text_encoder", max_shard_size="4KB")
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "SanaSprintPipeline"}))


def lora(file: Path) -> None:
    """The flow map's LoRA under its published names: every layer but those of pooled text and guidance."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, layer in two_time(flux_transformer()).named_modules():
        if isinstance(layer, nn.Linear) and "text_embedder" not in name and "guidance" not in name:
            weights[f"transformer.{name}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=generator) / 8
            weights[f"transformer.{name}.lora_B.weight"] = torch.randn(layer.out_features, 2, generator=generator) / 8
    file.parent.mkdir(parents=True)
    save_file(weights, file)


def qwen(folder: Path, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """A Qwen-VL: shards, preprocessor_config.json, a file for the chat template, and the flat config of Qwen2.5."""
    model.save_pretrained(folder, max_shard_size=SHARDS)
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "qwen2_5_vl":
        text = config.pop("text_config")
        rope = text.pop("rope_parameters")
        scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        config = text | config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
        (folder / "config.json").write_text(json.dumps(config))
    processor.image_processor.save_pretrained(folder)
    pixels = json.loads((folder / "preprocessor_config.json").read_text())
    pixels["processor_class"] = type(processor).__name__
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    processor.tokenizer.chat_template = None
    processor.tokenizer.save_pretrained(folder)


def renamed(file: Path, prefix: str) -> None:
    """Put a prefix before the name of every weight."""
    weights = {prefix + name: weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def entry(file: Path, **values: object) -> None:
    """Set entries of a config."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def end_last(words: Path, weights: Path) -> None:
    """Give the end of a text the highest number of CLIP's vocabulary, as published.

    Its config says eos_token_id 2, which is the end of nothing: libraries then take the highest number for it.
    """
    vocabulary, tensors = json.loads(words.read_text()), load_file(weights)
    last, end = max(vocabulary, key=vocabulary.__getitem__), "<|endoftext|>"
    pair = [vocabulary[last], vocabulary[end]]
    words.write_text(json.dumps(vocabulary | dict(zip((end, last), pair, strict=True))))
    table = tensors["text_model.embeddings.token_embedding.weight"]
    table[pair] = table[pair[::-1]]
    save_file(tensors, weights, metadata={"format": "pt"})


def vocabulary(folder: Path, name: str) -> None:
    """A byte-level tokenizer as older libraries wrote it: vocab.json and merges.txt in place of tokenizer.json."""
    learned = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(learned["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in learned["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": name}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
