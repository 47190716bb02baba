# SPDX-License-Identifier: Apache-2.0
"""A double of a CUDA device: code that forgets a device is told on a machine that has none.

Inside `device_double`, tensors of ``cuda`` lie in host memory and carry the device as a mark on their storage. What the
device would refuse is refused with its own error: tensors of two devices in one operation, a NumPy view, a generator
of another device, a value read while a graph is captured. Values are those of the CPU. Kernels, streams, speed and
memory figures are not imitated.

Two modes of torch do it. One sees calls from Python, where devices are named and asked for; the other sees the
operations below autograd and ``vmap``, where tensors meet and results are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tta_bench.testing.device_stubs import Kind, captured, pretended_torch

CPU = torch.device("cpu")
MARK = "_tta_bench_device"
MOVES = ("copy_", "_to_copy", "set_")
"""Operations that may meet two devices."""
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
"""Operations whose indices may lie on the CPU."""
COPIED = (torch.as_tensor, torch.asarray)
FACTORIES = {
    torch.arange, torch.empty, torch.empty_strided, torch.eye, torch.frombuffer, torch.from_numpy, torch.full,
    torch.linspace, torch.logspace, torch.ones, torch.rand, torch.randint, torch.randn, torch.randperm,
    torch.scalar_tensor, torch.tensor, torch.tril_indices, torch.triu_indices, torch.zeros, *COPIED,
}  # fmt: skip
"""Functions whose results lie on the CPU where no device is named, whatever numbers they are given."""


@contextmanager
def device_double(kind: Kind = "cuda") -> Iterator[torch.device]:
    """Pretend inside this context that there is one device of a kind, and hand it over.

    Args:
        kind: ``"cuda"``, ``"xpu"`` or ``"mps"``; the last one has no float64, as in reality.

    Example:
        >>> import torch
        >>> from tta_bench.testing.device import device_double
        >>> with device_double() as device:
        ...     torch.zeros(2, device=device) + torch.zeros(2)
        Traceback (most recent call last):
        RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! \
(aten.add, in which a tensor of shape (2,) is on cpu)
    """
    operations = _Operations(torch.device(kind, 0))
    with pretended_torch(kind, operations.device), _Calls(operations), operations:
        yield operations.device


def place(tensor: Tensor) -> torch.device:
    """Return the device of a tensor as the double has it."""
    found: torch.device = getattr(_bearer(tensor), MARK, CPU)
    return found


def _put(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "mps" and tensor.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype; use float32 instead")
    setattr(_bearer(tensor), MARK, device)
    return tensor


def _bearer(tensor: Tensor) -> torch.UntypedStorage | Tensor:
    """Return what bears the mark: the memory behind a tensor and its wrappers; a sparse one has none of its own."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage() if tensor.layout == torch.strided else tensor


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Move(torch.autograd.Function):
    """Copy to another device; the gradient goes back to where the tensor was."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, device: torch.device) -> Tensor:
        return _put(tensor.clone(), device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.origin = place(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        moved: Tensor = _Move.apply(grads[0], ctx.origin)
        return moved, None


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Check where the tensors of an operation lie, and mark what it makes.

    Attributes:
        device: The device that is pretended.
        asked: The device that the call under way names for its result.
        inside: The device of the tensors that it was given, on which tensors that it makes by itself lie.
        generator: The device of the generator that it was given.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.asked: torch.device | None = None
        self.inside = CPU
        self.generator: torch.device | None = None

    @contextmanager
    def told(
        self, asked: torch.device | None, inside: torch.device, generator: torch.device | None
    ) -> Iterator[None]:
        """Know inside this context what is said of the call under way."""
        before = self.asked, self.inside, self.generator
        self.asked, self.inside, self.generator = asked, inside, generator
        try:
            yield
        finally:
            self.asked, self.inside, self.generator = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        where = _meeting(func, args, kwargs, given)
        target = self.asked or where or self.inside
        if self.generator is not None:
            _check_generator(func, self.generator, target)
        known = {_bearer(one)._cdata for one in given}
        made = captured(func, args, kwargs)
        for one in _tensors(made):
            if _bearer(one)._cdata not in known:
                _put(one, target)
        return made


def _meeting(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], given: list[Tensor]
) -> torch.device | None:
    """Return the device on which an operation runs, None if it is given no tensor.

    A CPU tensor without dimensions counts as a number, unless it is written to.
    """
    name, first = func.overloadpacket.__name__, args[0] if args else None
    if name in MOVES:
        return place(given[0]) if given else None
    if name in INDEXED and isinstance(first, Tensor) and place(first) != CPU:
        given = [first, *(one for one in args[2:] if isinstance(one, Tensor))]
    places = {place(one): one for one in given if place(one) != CPU or one.dim()}
    if name == "cat":
        places = {place(one): one for one in given if place(one) != CPU or tuple(one.shape) != (0,)}
    schema = [(one, args[index] if index < len(args) else kwargs.get(one.name)) for index, one in
              enumerate(func._schema.arguments)]  # fmt: skip
    written = [value for one, value in schema if one.alias_info is not None and one.alias_info.is_write]
    places |= {place(one): one for one in _tensors(written)}
    if len(places) > 1:
        names = " and ".join(sorted(map(str, places), reverse=True))
        odd = next((f"shape {tuple(one.shape)} is on {at}" for at, one in places.items() if at == CPU), "")
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {names}! "
            f"(aten.{name}, in which a tensor of {odd})"
        )
    return next(iter(places), CPU) if given else None


def _check_generator(func: Any, generator: torch.device, where: torch.device) -> None:
    draws = any(one.name == "generator" for one in func._schema.arguments)
    if draws and generator.type != where.type:
        raise RuntimeError(
            f"Expected a '{where.type}' device type for generator but found '{generator.type}'"
        )


class _Calls(TorchFunctionMode):
    """Answer where a tensor lies, move tensors, and hand on which device a call names."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations, self.kind = operations, operations.device.type

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch._C._nn._parse_to:  # it only reads what `Module.to` was given
            return func(*args, **kwargs)
        if args and isinstance(args[0], Tensor):
            answer = _ANSWERS.get(func)
            if answer is not None:
                return answer(args[0])
            if func in _MOVERS:
                return self._moved(func, *args, **kwargs)
        asked = self._named(kwargs.pop("device", None))
        if asked is not None:
            kwargs["device"] = CPU if asked == self.operations.device else asked
        elif func in FACTORIES:
            data = args[0] if args else None
            asked = place(data) if isinstance(data, Tensor) and func in (torch.tensor, *COPIED) else CPU
        elif func in (torch.Tensor.new_tensor, torch.Tensor.__deepcopy__):  # they make results out of sight
            asked = place(args[0])
        return self._called(func, args, kwargs, asked)

    def _called(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        asked: torch.device | None,
    ) -> Any:
        places = (place(one) for one in _tensors((args, kwargs)))
        inside = next((at for at in places if at != CPU), self.operations.inside)
        generators = (one.device for one in (*args, *kwargs.values()) if isinstance(one, torch.Generator))
        with self.operations.told(asked, inside, next(generators, None)):
            made = func(*args, **kwargs)
        if asked is None or not isinstance(made, Tensor) or place(made) == asked:
            return made
        return _Move.apply(made, asked)

    def _moved(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return a tensor on the device that a call of ``to`` or of its kin names."""
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        if func not in (torch.Tensor.to, torch.Tensor.type_as):
            device, args = ("cpu" if func == torch.Tensor.cpu else self.kind), ()
        flags = [one for one in args if isinstance(one, bool)]
        for one in args:
            if isinstance(one, Tensor):
                device, dtype = place(one), one.dtype
            elif isinstance(one, torch.dtype):
                dtype = one
            elif isinstance(one, str | torch.device | int) and not isinstance(one, bool):
                device = one
        kwargs = {"copy": len(flags) > 1 and flags[1], **kwargs, "dtype": dtype or tensor.dtype}
        target = self._named(device)
        made = tensor.to(**kwargs)
        if target is None or place(made) == target:
            return made
        return _Move.apply(made, target)  # type: ignore[no-any-return]

    def _named(self, device: Any) -> torch.device | None:
        """Return the device that an argument names, the pretended one with its number."""
        if device is None:
            return None
        found = torch.device(self.kind, device) if isinstance(device, int) else torch.device(device)
        return torch.device(found.type, found.index or 0) if found.type == self.kind else found


def _numpy(tensor: Tensor) -> Any:
    if place(tensor) != CPU:
        raise TypeError(
            f"can't convert {place(tensor)} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )
    return tensor.numpy()


def _is(kind: str) -> Callable[[Tensor], bool]:
    return lambda tensor: place(tensor).type == kind and tensor.device.type != "meta"


def _device(tensor: Tensor) -> torch.device:
    return place(tensor) if tensor.device.type == "cpu" else tensor.device


_ANSWERS: dict[Any, Callable[[Tensor], Any]] = {
    torch.Tensor.device.__get__: _device,
    **{getattr(torch.Tensor, f"is_{kind}").__get__: _is(kind) for kind in ("cpu", "cuda", "mps", "xpu")},
    torch.Tensor.get_device: lambda tensor: -1 if place(tensor) == CPU else place(tensor).index,
    torch.Tensor.pin_memory: lambda tensor: tensor,
    torch.Tensor.numpy: _numpy,
    torch.Tensor.__array__: _numpy,
}
_MOVERS = {
    torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.type_as,
    *(getattr(torch.Tensor, name) for name in ("xpu", "mps") if hasattr(torch.Tensor, name)),
}  # fmt: skip
