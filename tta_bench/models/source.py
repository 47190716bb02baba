# SPDX-License-Identifier: Apache-2.0
"""`SourceModel`: a frozen network bound to one class list, called with overridable tensors and norm rules."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import IncompatibleError
from tta_bench.models.deep_prompts import Prompted, kept_inputs, replaced_tokens
from tta_bench.models.imperative import Imperative, autocast
from tta_bench.models.layers import (
    NORMS,
    Kind,
    LayerInfo,
    Slot,
    freeze,
    install_rules,
    keep_type,
    list_layers,
    own_tensors,
    without_statistics,
)
from tta_bench.models.maps import chosen_layers, map_layers
from tta_bench.models.observe import Observed, prompting, skipping, watching
from tta_bench.models.text import TextSide
from tta_bench.models.transformer import Transformer, find_transformer
from tta_bench.norms import NormRule, running

FUSED_ATTENTION = ("in_proj_weight", "qkv.weight")
"""Names under which libraries keep query, key and value maps one under the other."""


class Forward(NamedTuple):
    """The result of one forward pass.

    Attributes:
        logits: (N, K).
        features: (N, D), what enters the classifier or the comparison with the texts; not normalised.
        tokens: (N, L, D') of a transformer's last layer, else None.
        stats: New running statistics by tensor name, where the rule hands them back.
    """

    logits: Tensor
    features: Tensor
    tokens: Tensor | None
    stats: dict[str, Tensor]


class Network(nn.Module):
    """A network taken apart into an encoder and a head; loaders subclass it for each library.

    ``encode`` maps normalised images (N, C, H, W) to features (N, D) and, where there are any, tokens.

    Attributes:
        binding: How the classes were matched with its outputs; empty where they are its outputs in order.
        cautions: What users should know before they trust its scores, one sentence each.
    """

    binding: str = ""
    cautions: tuple[str, ...] = ()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (N, D) and tokens (N, L, D') or None."""
        raise NotImplementedError

    def patches(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return raw features (N, D), and those of the patches (N, P, D) in the same space; None without such."""
        return None

    def head(self, features: Tensor) -> Tensor:
        """Return logits (N, K) of features (N, D)."""
        raise NotImplementedError

    def head_weight(self) -> Tensor:
        """Return one row per class (K, D)."""
        raise NotImplementedError

    def inner(self) -> nn.Module:
        """Return the network whose tensor names the source model shows."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, mode: Literal["full", "encode", "head", "patches"] = "full"
    ) -> tuple[Tensor | None, ...]:
        """Return (logits, features, tokens), or patch features in their place, as far as the mode asks for them."""
        if mode == "head":
            return self.head(x), None, None
        if mode == "patches":
            return None, *(self.patches(x) or (None, None))
        features, tokens = self.encode(x)
        return (self.head(features) if mode == "full" else None), features, tokens


def _cautions(name: str, root: nn.Module) -> tuple[str, ...]:
    """Return what users should know of a network before they trust its scores, one sentence each."""
    unstored = without_statistics(root)
    if not unstored:
        return ()
    return (
        f"{len(unstored)} BatchNorm layers of {name!r} ({unstored[0]} first) store no statistics, so they normalise by "
        "the batch even without adaptation: the source scores depend on the batch size and on the order of the images",
    )


class SourceModel:
    """An immutable source model: evaluation mode, dtype and device fixed, nothing ever written in place.

    Args:
        network: The network, taken over and frozen; its BatchNorm layers are replaced.
        name: Name on the command line.
        kind: ``"classifier"`` or ``"clip"``.
        class_names: The K classes that the logits stand for.
        mean: Per-channel mean of the normalisation inside.
        std: Per-channel deviation of the normalisation inside.
        preprocess: The resize and crop outside.
        text: The text side of a CLIP-like model.
        dtype: Of all floating tensors.
        device: Where the model lives.
        pretrained: Whether the weights were trained; random ones are marked in every table.
    """

    def __init__(
        self,
        network: Network,
        *,
        name: str,
        kind: Literal["classifier", "clip"],
        class_names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        preprocess: Preprocess,
        text: TextSide | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        pretrained: bool = True,
    ) -> None:
        self._slot, self._network = Slot(), network.to(device=device, dtype=dtype)
        freeze(network)
        install_rules(network.inner(), self._slot)
        self._prefix = next((f"{n}." for n, m in network.named_modules() if m is network.inner() and n), "")
        self.name, self.kind, self.class_names = name, kind, tuple(class_names)
        self.num_classes, self.dtype, self.device = len(self.class_names), dtype, torch.device(device)
        self.mean = torch.tensor(mean, dtype=dtype, device=device)
        self.std = torch.tensor(std, dtype=dtype, device=device)
        self.preprocess, self.text, self.pretrained = preprocess, text, pretrained
        self.reward: SourceModel | None = None
        self.autocast: torch.dtype | None = None
        params, buffers = own_tensors(network.inner())
        self.params: Mapping[str, Tensor] = MappingProxyType(params)
        self.buffers: Mapping[str, Tensor] = MappingProxyType(buffers)
        self.layers: tuple[LayerInfo, ...] = list_layers(network.inner())
        self.binding = network.binding
        self.cautions: tuple[str, ...] = (*_cautions(name, network.inner()), *network.cautions)

    @property
    def network(self) -> nn.Module:
        """The network whose layers go by their module names: to look into, not to change."""
        return self._network.inner()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's input."""
        return (len(self.mean), *self.preprocess.size)

    @cached_property
    def dim(self) -> int:
        """Length D of a feature."""
        return int(self.head_weight().shape[1])

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all tensors, in order of their names.

        The text tower is among them, and prompts are not: they are a fact of their own. Nor are the prototypes, which
        are computed: they differ in their last bits between processors, and a model would get another name on each.
        """
        return self.hash_weights()

    def hash_weights(self) -> str:
        """Return `weights_sha256` as the tensors are now."""
        digest = hashlib.sha256()
        tensors = {**self.params, **self.buffers}
        if self.text is not None:
            tensors |= {f"text.{name}": value for name, value in self.text.tensors().items()}
        for key in sorted(tensors):
            value = tensors[key].detach().cpu().contiguous()
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def _ruled(self, norm: NormRule) -> Iterator[dict[str, Tensor]]:
        before = self._slot.rule, self._slot.stats
        self._slot.rule, self._slot.stats = norm, {}
        try:
            yield self._slot.stats
        finally:
            self._slot.rule, self._slot.stats = before

    def _call(self, x: Tensor, tensors: Mapping[str, Tensor] | None, mode: str) -> tuple[Tensor, ...]:
        if self.autocast is None:
            return self._run(x, tensors, mode)
        with autocast(self.device, self.autocast):
            found = self._run(x, tensors, mode)
        return tuple(part if part is None else part.to(self.dtype) for part in found)

    def _run(self, x: Tensor, tensors: Mapping[str, Tensor] | None, mode: str) -> tuple[Tensor, ...]:
        if not tensors:
            called: tuple[Tensor, ...] = self._network(x, mode)
            return called
        named = {self._prefix + name: tensor for name, tensor in tensors.items()}
        result: tuple[Tensor, ...] = functional_call(self._network, named, (x, mode), tie_weights=False)
        return result

    def round_products(self, lower: torch.dtype) -> None:
        """Compute products in a lower floating type from now on, under autocast; norm layers keep the model's own."""
        self.autocast = lower
        keep_type(self._network, self.dtype)

    def normalise(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] as the network sees them."""
        return (x - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)

    def forward(
        self, x: Tensor, tensors: Mapping[str, Tensor] | None = None, *, norm: NormRule | None = None
    ) -> Forward:
        """Run the network on images.

        Args:
            x: (N, C, H, W) in [0, 1], of the model's dtype and device.
            tensors: Parameters and buffers that stand in for the model's own in this call.
            norm: Rule of the BatchNorm layers; default `norms.running`.
        """
        with self._ruled(norm or running()) as stats:
            logits, features, tokens = self._call(self.normalise(x), tensors, "full")
        return Forward(logits, features, tokens, stats)

    def logits(
        self, x: Tensor, tensors: Mapping[str, Tensor] | None = None, *, norm: NormRule | None = None
    ) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.forward(x, tensors, norm=norm).logits

    @cached_property
    def transformer(self) -> Transformer | None:
        """The parts of a vision transformer with a class token; None where the network is another one."""
        return find_transformer(self._network.inner())

    def observe(
        self,
        x: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        *,
        norm: NormRule | None = None,
        layers: Sequence[str] = (),
        class_token: bool = False,
        prompts: Tensor | None = None,
    ) -> Observed:
        """Run the network on images, hand back outputs of its layers, and let extra tokens in.

        Args:
            x: (N, C, H, W) in [0, 1], of the model's dtype and device.
            tensors: As in `forward`.
            norm: As in `forward`.
            layers: Names of modules whose outputs are wanted; see `observe.watching`.
            class_token: Whether only the class token of these outputs is wanted.
            prompts: (n, D') tokens right behind a vision transformer's class token, the same for every image.

        Raises:
            UnknownNameError: If there is no layer of a name.
            IncompatibleError: If there are prompts and the network has no class token.
        """
        inner = self._network.inner()
        parts = None if prompts is None else self.transformer
        with (
            watching(inner, layers, class_token=class_token) as (seen, watched),
            prompting(inner, parts, prompts, self.name),
            self._ruled(watched(norm or running())) as stats,
        ):
            logits, features, _ = self._call(self.normalise(x), tensors, "full")
        return Observed(logits, features, {name: y.to(self.dtype) for name, y in seen.items()}, stats)

    def prompted(self, x: Tensor, prompts: Sequence[Tensor]) -> Prompted:
        """Run a vision transformer on images with prompt tokens of their own in its first blocks.

        Args:
            x: (N, C, H, W) in [0, 1], of the model's dtype and device.
            prompts: (n, D') tokens right behind the class token, then those that replace them at the inputs of the
                second block, the third and so on.

        Raises:
            IncompatibleError: If the network has no class token, or fewer blocks than prompts.
        """
        inner, parts = self._network.inner(), self.transformer
        blocks = [inner.get_submodule(name) for name in parts.blocks] if parts else []
        with (
            prompting(inner, parts, prompts[0], self.name),
            replaced_tokens(blocks, prompts[1:], start=1),
            kept_inputs(blocks) as seen,
        ):
            logits, features, _ = self._call(self.normalise(x), None, "full")
        return Prompted(logits, features, tuple(tokens.to(self.dtype) for tokens in seen))

    def encode(
        self, x: Tensor, tensors: Mapping[str, Tensor] | None = None, *, norm: NormRule | None = None
    ) -> Tensor:
        """Return the raw features (N, D) of images (N, C, H, W) in [0, 1]."""
        with self._ruled(norm or running()):
            return self._call(self.normalise(x), tensors, "encode")[1]

    def encode_level(self, x: Tensor, level: int) -> Tensor:
        """Return the raw features (N, D) that the class token of one block gives through the final norm and projection.

        Args:
            x: (N, C, H, W) in [0, 1].
            level: Number of the block; negative ones count from the last, which gives what `encode` gives.

        Raises:
            IncompatibleError: If the network is not a vision transformer with a class token.
            BadInputError: If it has no such block.
        """
        if self.transformer is None:
            raise IncompatibleError(
                f"a level needs a vision transformer with a class token, which {self.name!r} is not; leave level out"
            )
        blocks = map_layers(self.network)
        (chosen,) = chosen_layers(blocks, [level], self.name)
        with skipping(self.network, [block.name for block in blocks[chosen + 1 :]]):
            return self.encode(x)

    def patches(
        self, x: Tensor, tensors: Mapping[str, Tensor] | None = None, *, norm: NormRule | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the raw features (N, D) of images (N, C, H, W) in [0, 1] and those of their patches (N, P, D).

        Both are in the space of the class texts. None for a model without such patch features.
        """
        with self._ruled(norm or running()):
            _, features, found = self._call(self.normalise(x), tensors, "patches")
        return None if found is None else (features, found)

    def head(self, features: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the logits (N, K) of raw features (N, D)."""
        return self._call(features, tensors, "head")[0]

    def head_weight(self) -> Tensor:
        """Return the classifier's rows, or the class prototypes, (K, D)."""
        return self._network.head_weight().detach()

    def module(self) -> nn.Module:
        """Return a copy of its own for imperative methods: images (N, C, H, W) in [0, 1] to logits (N, K).

        It is in evaluation mode, without gradients, and has the library's own BatchNorm layers.
        """
        return Imperative(copy.deepcopy(self._network), self.mean, self.std, self.autocast).eval()

    def normalisation(self, kinds: Sequence[Kind] = NORMS, stages: slice = slice(None)) -> dict[str, Tensor]:
        """Return the affine tensors of the normalisation layers by type and position.

        Args:
            kinds: Layer types to take.
            stages: Stages to take, e.g. ``slice(0, -1)`` for all but the last and the final norm. A network
                without stages (a plain chain of layers) is taken whole.
        """
        chosen: dict[str, Tensor] = {}
        for layer in self.layers:
            inside = layer.stages == 1 or layer.stage in range(layer.stages)[stages]
            if layer.kind in kinds and inside:
                chosen.update((name, self.params[name]) for name in layer.tensors)
        return chosen

    def attention_weights(self) -> tuple[str, ...]:
        """Return the names of weights (3 D', D') that hold query, key and value maps, the first block first."""
        return tuple(name for name in self.params if name.endswith(FUSED_ATTENTION))

    def weights(
        self,
        leaves: Sequence[str] = ("weight", "bias"),
        under: Literal["all", "encoder", "head"] = "all",
    ) -> dict[str, Tensor]:
        """Return the parameters whose own name is one of ``leaves``, of the whole network or a part of it."""
        weight = self._network.head_weight()
        head = {n.rpartition(".")[0] for n, p in self.params.items() if p.data_ptr() == weight.data_ptr()}

        def wanted(name: str) -> bool:
            parent, _, leaf = name.rpartition(".")
            return leaf in leaves and (under == "all" or (parent in head) == (under == "head"))

        return {name: p for name, p in self.params.items() if wanted(name)}
