# SPDX-License-Identifier: Apache-2.0
"""Networks of a few thousand weights that have the parts which methods look for in real ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

PATCH = 4
HEADS = 2
LOGIT_STD = 2.0
NormMaker = Callable[[int], nn.Module]


class Block(nn.Module):
    """Add a normalised 3x3 convolution to its input, after a stride and a change of width."""

    def __init__(self, inside: int, outside: int, stride: int, norm: NormMaker) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations (N, C, H, W)."""
        y = self.norm1(self.conv1(x)).relu()
        return (y + self.norm2(self.conv2(y))).relu()  # type: ignore[no-any-return]


class TinyConv(nn.Module):
    """A stem, three residual blocks and a linear classifier, with any normalisation layer."""

    def __init__(self, classes: int, channels: int, norm: NormMaker) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, 1, 1, bias=False)
        self.norm = norm(8)
        self.blocks = nn.Sequential(Block(8, 8, 2, norm), Block(8, 12, 2, norm), Block(12, 16, 1, norm))
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W)."""
        y = self.blocks(self.norm(self.stem(x)).relu())
        return self.fc(y.mean((-2, -1)))  # type: ignore[no-any-return]


class Attention(nn.MultiheadAttention):
    """Self-attention written out, because the library's fused kernel has no batching rule for ``vmap``.

    Like there, the output map is never called as a layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return what each token (N, L, D) gathers from all of them."""
        split = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = split.reshape(*split.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        gathered = (weights @ v).transpose(1, 2).flatten(2)
        return nn.functional.linear(gathered, self.out_proj.weight, self.out_proj.bias)


class TransformerBlock(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (N, L, D) after the block."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class TinyViT(nn.Module):
    """A vision transformer of three blocks over 4x4 patches, with a class token.

    Args:
        classes: Width of the classifier; None leaves it out.
        channels: Of the image.
        side: Height and width of the image, pixels.
        width: Of a token.
    """

    def __init__(self, classes: int | None, channels: int, side: tuple[int, int], width: int = 16) -> None:
        super().__init__()
        patches = (side[0] // PATCH) * (side[1] // PATCH)
        self.conv1 = nn.Conv2d(channels, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.positional_embedding = nn.Parameter(torch.empty(1, patches + 1, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width) for _ in range(3)))
        self.norm = nn.LayerNorm(width)
        self.head: nn.Module = nn.Identity() if classes is None else nn.Linear(width, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the tokens (N, L, D) of images (N, C, H, W), the class token first."""
        patches = self.conv1(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], 1) + self.positional_embedding
        return self.norm(self.blocks(tokens))  # type: ignore[no-any-return]

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Return the logits (N, K) of tokens (N, L, D)."""
        return self.head(tokens[:, 0])  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W)."""
        return self.forward_head(self.forward_features(x))


class TinyTextTower(nn.Module):
    """A text transformer of one block that reads its feature at the end-of-text token, as CLIP's does."""

    def __init__(self, vocabulary: int, context: int, width: int, dim: int) -> None:
        super().__init__()
        self.context_length = context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer = nn.Sequential(TransformerBlock(width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, dim))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return features (P, D) of token ids (P, L); the end-of-text token has the largest id."""
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        end = nn.functional.one_hot(tokens.argmax(-1), self.context_length).to(x.dtype)
        return (end.unsqueeze(-1) * x).sum(1) @ self.text_projection  # type: ignore[no-any-return]


def build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a network with weights drawn from a seed, in float64; the global generator is not touched.

    Args:
        make: Builds the network; it is called on the ``meta`` device, where nothing is drawn.
        seed: The same seed gives the same weights.
    """
    with torch.device("meta"):
        net = make()
    net = net.to(torch.float64).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict(keep_vars=True).items():
            tensor.copy_(_drawn(name.rpartition(".")[2], tensor, generator))
    return net


def calibrate(net: nn.Module, head: nn.Linear, images: Tensor) -> None:
    """Set BatchNorm statistics and the classifier, in place, as if trained: varied classes, moderate logits.

    Args:
        net: Images to logits, in float64.
        head: Its classifier.
        images: (N, C, H, W), float64, normalised.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
        logits = net.eval()(images)
        head.weight.mul_(LOGIT_STD / (logits - logits.mean(0)).std())
        head.bias.zero_()
        head.bias.copy_(-net(images).mean(0))
    for norm in norms:
        norm.momentum = 0.1
        norm.get_buffer("num_batches_tracked").zero_()


def _drawn(leaf: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return values that make a network look trained: no norm is the identity, no bias is zero."""
    if leaf == "num_batches_tracked":
        return torch.zeros_like(like)
    if leaf == "running_var" or (leaf == "weight" and like.ndim == 1):
        return 0.6 + 0.8 * torch.rand(like.shape, generator=generator, dtype=like.dtype)
    normal = torch.randn(like.shape, generator=generator, dtype=like.dtype)
    if "embedding" in leaf or like.ndim < 2:
        return 0.2 * normal
    return normal * math.sqrt(2 / like[0].numel())
