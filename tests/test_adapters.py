"""The adapters against diffusers' own calls: packing, velocity, scale and shift, and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline, SanaSprintPipeline, SCMScheduler
from diffusers.image_processor import VaeImageProcessor

from editor.adapters import FluxFlowMap, LatentCodec, SanaFlowMap
from editor.twotime import two_time
from editor.types import EditError
from tests.tiny_flow import CHANNELS, POOLED_WIDTH, TEXT_WIDTH, tiny_dc, tiny_kl, tiny_sana, tiny_transformer
from training.flow_folder import new_vae

HEIGHT, WIDTH = 4, 6


def flow_map(patch: bool, guidance: bool = False) -> FluxFlowMap:
    transformer = tiny_transformer(guidance)
    if patch:
        two_time(transformer)
        for weight in transformer.time_text_embed.second_embedder.parameters():
            weight.data.mul_(1.7)
    generator = torch.Generator().manual_seed(5)
    return FluxFlowMap(
        transformer.requires_grad_(False),
        torch.randn(1, 5, TEXT_WIDTH, generator=generator, dtype=torch.double),
        torch.randn(1, POOLED_WIDTH, generator=generator, dtype=torch.double),
    )


def latents(batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(batch, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.double)


def stock_call(flow: FluxFlowMap, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """What FluxPipeline's loop does around its transformer, written with the pipeline's own helpers."""
    batch = len(x)
    packed = FluxPipeline._pack_latents(x, batch, CHANNELS, HEIGHT, WIDTH)
    out = flow.transformer(
        hidden_states=packed,
        timestep=timestep,
        guidance=torch.full([1], 3.5).expand(batch) if flow.transformer.config.guidance_embeds else None,
        pooled_projections=flow.pooled.repeat(batch, 1),
        encoder_hidden_states=flow.sequence.repeat(batch, 1, 1),
        txt_ids=torch.zeros(5, 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, HEIGHT // 2, WIDTH // 2, "cpu", torch.float32),
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(out, HEIGHT * 8, WIDTH * 8, 8)


@pytest.mark.parametrize("guidance", [False, True])
def test_the_velocity_of_one_time_is_minus_the_stock_call(guidance):
    flow, x = flow_map(False, guidance), latents()
    assert not flow.two_time
    torch.testing.assert_close(flow.velocity(x, 0.25), -stock_call(flow, x, torch.full((3,), 0.75)))


@pytest.mark.parametrize("guidance", [False, True])
def test_the_map_of_two_times_moves_by_the_average_velocity(guidance):
    flow, x = flow_map(True, guidance), latents()
    assert flow.two_time
    s, t = torch.tensor([0.0, 0.2, 0.5]).double(), torch.tensor([1.0, 0.6, 0.5]).double()
    moved = x - (t - s)[:, None, None, None] * stock_call(flow, x, torch.stack([1 - s, 1 - t], -1))
    torch.testing.assert_close(flow(x, s, t), moved)
    torch.testing.assert_close(flow.velocity(x, t), -stock_call(flow, x, torch.stack([1 - t, 1 - t], -1)))


def test_the_map_of_one_time_jumps_along_its_velocity():
    flow, x = flow_map(False), latents()
    torch.testing.assert_close(flow(x, 0.2, 1.0), x + 0.8 * flow.velocity(x, 0.2))


@pytest.mark.parametrize("patch", [False, True])
def test_the_map_to_the_same_time_is_the_identity(patch):
    x = latents()
    assert torch.equal(flow_map(patch)(x, 0.4, 0.4), x)


def test_a_batch_is_its_singles():
    flow, x = flow_map(True), latents()
    singles = torch.cat([flow(x[i : i + 1], 0.1 * i, 0.9) for i in range(3)])
    torch.testing.assert_close(flow(x, torch.arange(3).double() / 10, 0.9), singles)


def test_one_flow_map_serves_latents_of_several_shapes():
    flow = flow_map(True)
    wide = torch.cat([latents(), latents()], dim=-1)
    for x in (latents(), wide, latents()):
        assert flow(x, 0.1, 0.9).shape == x.shape


def test_a_bfloat16_network_keeps_the_latents_dtype():
    flow, x = flow_map(True), latents().float()
    torch.nn.Module.to(flow.transformer, torch.bfloat16)
    assert flow(x, 0.1, 0.9).dtype == torch.float32


def test_odd_sides_are_refused():
    with pytest.raises(EditError, match="even sides"):
        flow_map(True)(torch.zeros(1, CHANNELS, 3, 4).double(), 0.0, 1.0)


def test_chunks_change_neither_values_nor_gradients():
    x = latents().requires_grad_()
    whole, parts = flow_map(True), replace(flow_map(True), rows=2)

    def results(flow):
        landing = flow(x, torch.tensor([0.1, 0.2, 0.3]).double(), 1.0)
        return landing, flow.velocity(x, 0.5), *torch.autograd.grad(landing.square().sum(), x)

    torch.testing.assert_close(results(parts), results(whole))
    with torch.no_grad():
        torch.testing.assert_close(parts(x, 0.1, 1.0), whole(x, 0.1, 1.0))


def test_the_sana_lookahead_is_the_pipelines_one_step_result():
    transformer, vae = tiny_sana(), tiny_dc()
    noise, sequence, mask = (
        torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)),
        torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(2)),
        torch.tensor([[1, 1, 1, 1, 0, 0]]),
    )
    pipeline = SanaSprintPipeline(None, None, vae, transformer, SCMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    stock = pipeline(
        height=128,
        width=128,
        num_inference_steps=1,
        intermediate_timesteps=None,
        latents=noise,
        prompt_embeds=sequence.expand(2, -1, -1),
        prompt_attention_mask=mask.expand(2, -1),
        output_type="latent",
        use_resolution_binning=False,
    ).images
    flow = SanaFlowMap(transformer, sequence, mask)
    with torch.no_grad():
        torch.testing.assert_close(flow(noise, 0.0, 1.0), stock, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_the_sana_lookahead_is_the_trigflow_formula_at_every_time(t):
    flow = SanaFlowMap(tiny_sana(), torch.ones(1, 6, 16), torch.ones(1, 6))
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    tau, angle = torch.tensor(1 - t), torch.atan2(torch.tensor(1 - t), torch.tensor(t))
    trig = x / (t**2 + (1 - t) ** 2) ** 0.5
    with torch.no_grad():
        network = flow.transformer(
            trig * (tau**2 + (1 - tau) ** 2).sqrt(),
            encoder_hidden_states=flow.sequence.expand(2, -1, -1),
            encoder_attention_mask=flow.mask.expand(2, -1),
            guidance=torch.full((2,), 0.45),
            timestep=tau.expand(2),
            return_dict=False,
        )[0]
        slope = ((1 - 2 * tau) * x + (1 - 2 * tau + 2 * tau**2) * network) / (tau**2 + (1 - tau) ** 2).sqrt()
        clean = torch.cos(angle) * trig - torch.sin(angle) * slope
        torch.testing.assert_close(flow(x, t, 1.0), clean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(flow.velocity(x, t), (clean - x) / (1 - t), rtol=1e-3, atol=1e-4)
    assert not flow.two_time


def slope(function, x: torch.Tensor, direction: torch.Tensor, step: float) -> torch.Tensor:
    """Central difference of a scalar function along a direction."""
    with torch.no_grad():
        return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


@pytest.mark.parametrize("patch", [False, True])
def test_gradients_reach_the_latents_and_agree_with_finite_differences(patch):
    flow, x, direction = flow_map(patch), latents().requires_grad_(), latents().flip(0)

    def landing(x):
        return flow(x, 0.3, 1.0).square().sum()

    (gradient,) = torch.autograd.grad(landing(x), x)
    # The step is wide because the transformer normalises and rotates in single precision.
    torch.testing.assert_close((gradient * direction).sum(), slope(landing, x, direction, 1e-3), rtol=1e-4, atol=0)


def tiny_autoencoder():
    torch.manual_seed(4)
    vae = new_vae(CHANNELS, width=4)
    vae.register_to_config(scaling_factor=0.7, shift_factor=-0.2)
    return vae.eval()


@pytest.mark.parametrize("make", [tiny_autoencoder, tiny_kl, tiny_dc])
def test_scale_and_shift_are_those_of_diffusers(make):
    vae = make()
    codec = LatentCodec(vae)
    scale, shift = vae.config.scaling_factor, vae.config.get("shift_factor", 0.0)
    images = torch.rand(2, 3, 2 * codec.factor, 3 * codec.factor, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        out = vae.encode(2 * images - 1, return_dict=False)[0]
        code = out.mode() if make is tiny_kl else out
        torch.testing.assert_close(codec.encode(images), (code - shift) * scale)
        x = torch.randn(code.shape, generator=torch.Generator().manual_seed(8))
        stock = vae.decode(x / scale + shift, return_dict=False)[0]
        stock = VaeImageProcessor().postprocess(stock, output_type="pt")
        torch.testing.assert_close(codec.decode(x), stock)
        assert torch.equal(codec.render(x), codec.decode(x))


def test_the_draft_decoder_takes_the_latents_as_they_are_and_gives_the_gradient_alone():
    vae, draft = tiny_kl(), new_vae(16, width=4).eval()
    codec = LatentCodec(vae, draft)
    x = torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(8), requires_grad=True)
    images = codec.decode(x)
    assert torch.equal(images, LatentCodec(vae).decode(x))
    assert torch.equal(images, codec.render(x))
    with torch.no_grad():
        assert torch.equal(codec.decode(x), images)
    (gradient,) = torch.autograd.grad(images.square().sum(), x)
    stock = draft.decode(x, return_dict=False)[0] / 2 + 0.5
    torch.testing.assert_close(gradient, torch.autograd.grad(stock, x, 2 * images.detach())[0])


def test_a_saturated_pixel_keeps_its_gradient():
    vae = tiny_autoencoder()
    vae.decoder.layers[-1].bias.data.fill_(9.0)
    x = torch.zeros(1, CHANNELS, 2, 2, requires_grad=True)
    images = LatentCodec(vae).decode(x)
    assert images.min() == images.max() == 1
    images.sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_gradient_of_decoding_agrees_with_finite_differences():
    vae = tiny_autoencoder().double()
    vae.decoder.layers[-1].bias.data.fill_(0.5)
    x, direction = (
        torch.randn(1, CHANNELS, 2, 2, dtype=torch.double, generator=torch.Generator().manual_seed(seed)) / 10
        for seed in (9, 10)
    )

    def brightness(x):
        return LatentCodec(vae).decode(x).square().sum()

    (gradient,) = torch.autograd.grad(brightness(x.requires_grad_()), x)
    torch.testing.assert_close((gradient * direction).sum(), slope(brightness, x, direction, 1e-5), rtol=1e-6, atol=0)


def test_sides_that_are_no_multiple_of_the_factor_are_refused():
    with pytest.raises(EditError, match="multiples of 8"):
        LatentCodec(tiny_autoencoder()).encode(torch.zeros(1, 3, 20, 16))
