"""Small random FLUX parts and folders for the tests: the published layouts at a ten-thousandth of the size."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderKL, FluxTransformer2DModel, SanaTransformer2DModel

from training.flow_folder import TextEncoders, new_text_encoders, new_transformer, new_vae, save_pipeline

CAPTION = (
    "a round clock with a red rim, a white face, black hands and Roman numerals on a blue background, "
    "with a second hand"
)
CHANNELS, TEXT_WIDTH, POOLED_WIDTH = 4, 32, 32


def tiny_transformer(guidance: bool = False) -> FluxTransformer2DModel:
    """A stock transformer of one time, in double precision so that finite differences can be taken."""
    torch.manual_seed(0)
    return (
        FluxTransformer2DModel(
            in_channels=4 * CHANNELS,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=POOLED_WIDTH,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 2, 2),
        )
        .double()
        .eval()
    )


def tiny_kl() -> AutoencoderKL:
    """An AutoencoderKL of FLUX's layout: 8x, 16 channels, shift and scale, no quant convolutions."""
    torch.manual_seed(1)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return vae.eval()


def tiny_dc() -> AutoencoderDC:
    """An AutoencoderDC of SANA's layout: 32x, a scale and no shift."""
    torch.manual_seed(4)
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(4, 4, 4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4, 4, 4),
        encoder_layers_per_block=(1, 1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1, 1),
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    return vae.eval()


def tiny_sana() -> SanaTransformer2DModel:
    """A SANA-Sprint transformer: embedded guidance, normalised queries and keys."""
    torch.manual_seed(5)
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        guidance_embeds=True,
        qk_norm="rms_norm_across_heads",
        timestep_scale=1000,
    ).eval()


def tiny_text() -> TextEncoders:
    torch.manual_seed(2)
    return new_text_encoders([CAPTION, "a square clock"], text_width=TEXT_WIDTH, pooled_width=POOLED_WIDTH)


def save_tiny_flow(folder: Path) -> tuple[FluxTransformer2DModel, TextEncoders]:
    """Writes an untrained studio flow folder in float32; returns what it was made of."""
    torch.manual_seed(3)
    text = tiny_text()
    transformer = new_transformer(16, 1, 1, CHANNELS, TEXT_WIDTH, POOLED_WIDTH, heads=2)
    vae = new_vae(CHANNELS, width=4)
    vae.register_to_config(scaling_factor=0.7, shift_factor=-0.2)
    save_pipeline(folder, transformer, vae, text, torch.float32)
    return transformer, text
