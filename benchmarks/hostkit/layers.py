"""The layers that both tiny models are made of, as named tensors with the scales that keep activations finite."""

from __future__ import annotations

import math

from .tensor_writer import Tensor, constant, gaussian

Tensors = dict[str, Tensor]


def linear(name: str, out_features: int, in_features: int, *, bias: bool = True) -> Tensors:
    return _weighted(name, (out_features, in_features), bias=bias)


def conv(name: str, out_channels: int, in_channels: int, kernel: int = 3, *, bias: bool = True) -> Tensors:
    return _weighted(name, (out_channels, in_channels, kernel, kernel), bias=bias)


def norm(name: str, width: int) -> Tensors:
    return {f"{name}.weight": Tensor((width,), constant(1)), f"{name}.bias": Tensor((width,), constant(0))}


def _weighted(name: str, shape: tuple[int, ...], *, bias: bool) -> Tensors:
    tensors = {f"{name}.weight": Tensor(shape, gaussian(1 / math.sqrt(math.prod(shape[1:]))))}
    if bias:
        tensors[f"{name}.bias"] = Tensor((shape[0],), constant(0))
    return tensors


def residual_block(name: str, in_channels: int, out_channels: int) -> Tensors:
    """A ResBlock of the SD1.5 UNet; a change of width needs the 1x1 skip."""
    tensors = {
        **norm(f"{name}.in_layers.0", in_channels),
        **conv(f"{name}.in_layers.2", out_channels, in_channels),
        **linear(f"{name}.emb_layers.1", out_channels, 1280),
        **norm(f"{name}.out_layers.0", out_channels),
        **conv(f"{name}.out_layers.3", out_channels, out_channels),
    }
    if in_channels != out_channels:
        tensors |= conv(f"{name}.skip_connection", out_channels, in_channels, 1)
    return tensors


def tiny_autoencoder(latent_channels: int, prefix: str = "") -> Tensors:
    """TAESD: `latent_channels` is 4 for SD1.5 and 16 for Flux."""
    tensors: Tensors = {}
    encoder, decoder = f"{prefix}taesd_encoder", f"{prefix}taesd_decoder"
    tensors |= conv(f"{encoder}.0", 64, 3) | conv(f"{encoder}.14", latent_channels, 64)
    tensors |= conv(f"{decoder}.1", 64, latent_channels) | conv(f"{decoder}.19", 3, 64)
    for part, blocks, strided in (
        (encoder, (1, 3, 4, 5, 7, 8, 9, 11, 12, 13), (2, 6, 10)),
        (decoder, (3, 4, 5, 8, 9, 10, 13, 14, 15, 18), (7, 12, 17)),
    ):
        for block in blocks:
            for layer in (0, 2, 4):
                tensors |= conv(f"{part}.{block}.conv.{layer}", 64, 64)
        for index in strided:
            tensors |= conv(f"{part}.{index}", 64, 64, bias=False)
    tensors |= {f"{prefix}vae_scale": Tensor((), constant(1)), f"{prefix}vae_shift": Tensor((), constant(0))}
    return tensors
