"""Arrays and tensors of any library, as pixels: NumPy's, PyTorch's, and what else speaks DLPack."""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

from ..errors import one_line
from ..records import Pixels

Layout = Literal["hwc", "chw"]
"""Where an image's colours are: last, [H, W, 3], or first, [3, H, W]."""

LAYOUTS = ("hwc", "chw")


def is_tensor(value: object) -> bool:
    """Tell whether something is a tensor of another library than NumPy: PyTorch's, or one that speaks DLPack."""
    if isinstance(value, np.ndarray | type):
        return False
    return _is_torch(value) or all(hasattr(value, name) for name in ("__dlpack__", "__dlpack_device__", "shape"))


def dimensions(value: Any) -> int:
    """Return how many dimensions a tensor has."""
    return len(value.shape)


def tensor_as_array(tensor: Any, name: str, *, synchronize: bool = False) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a tensor's values in the host's memory, which they share if they are there already.

    Args:
        tensor: PyTorch's, or one that speaks DLPack; on any device.
        name: what messages call it.
        synchronize: whether to wait for all that its GPU has to do, since another thread than this one filled it.

    Raises:
        TypeError: it isn't uint8, wants gradients, or can't be brought to the host.
    """
    if _is_torch(tensor):
        return _from_torch(tensor, name, synchronize)
    try:
        array = np.from_dlpack(tensor) if _on_host(tensor) else np.from_dlpack(tensor, device="cpu")
    except Exception as error:
        kind = type(tensor)
        raise TypeError(
            f"{name} is a {kind.__module__}.{kind.__qualname__} that can't be read from the host's memory "
            f"({one_line(error, 200) or type(error).__name__}): give it on the CPU, as uint8"
        ) from error
    _require_uint8(array.dtype == np.uint8, str(array.dtype), array.shape, name)
    return array


def as_pixels(array: np.ndarray[Any, np.dtype[Any]], name: str, layout: Layout | None = None) -> Pixels:
    """Return a copy of an image in an array, uint8 [H, W, 3].

    Args:
        array: uint8 [H, W, 3] or [3, H, W].
        name: what messages call it.
        layout: which of the two; None if its shape tells.

    Raises:
        TypeError: neither, or it may be both.
    """
    shape = list(array.shape)
    if array.dtype != np.uint8 or array.ndim != 3:
        raise TypeError(f"{name} is an array {array.dtype} {shape}, not uint8 [H, W, 3] RGB")
    last, first = shape[2] == 3, shape[0] == 3
    if layout is None and last and first:
        raise TypeError(f'{name} is an array {shape}, [H, W, 3] or [3, H, W]: say which with layout="hwc" or "chw"')
    if not (last if layout == "hwc" else first if layout == "chw" else last or first):
        expected = "[3, H, W]" if layout == "chw" else "[H, W, 3]"
        raise TypeError(f"{name} is an array {array.dtype} {shape}, not uint8 {expected} RGB")
    colours_first = layout == "chw" or (layout is None and first)
    # A copy: images are read ahead, and the caller may use the array again.
    return (array.transpose(1, 2, 0) if colours_first else array).copy(order="C")


def _is_torch(value: object) -> bool:
    # Whoever has a tensor has imported its library.
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    return isinstance(tensor, type) and isinstance(value, tensor)


def _from_torch(tensor: Any, name: str, synchronize: bool) -> np.ndarray[Any, np.dtype[Any]]:
    torch = sys.modules["torch"]
    shape = tuple(tensor.shape)
    if tensor.requires_grad:
        raise TypeError(f"{name} is a tensor with requires_grad, and scores have no gradient: give it detached")
    _require_uint8(tensor.dtype == torch.uint8, str(tensor.dtype).removeprefix("torch."), shape, name)
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        kind = "meta" if tensor.device.type == "meta" else str(tensor.layout).removeprefix("torch.")
        raise TypeError(f"{name} is a {kind} tensor {list(shape)}: give a dense one that holds its values")
    try:
        if synchronize and tensor.device.type == "cuda":
            torch.cuda.synchronize(tensor.device)
        array: np.ndarray[Any, np.dtype[Any]] = tensor.cpu().numpy()
    except Exception as error:
        raise TypeError(f"{name} is a tensor that can't be read: {one_line(error, 200)}") from error
    return array


def _on_host(tensor: Any) -> bool:
    return int(tensor.__dlpack_device__()[0]) in (1, 3)  # host memory, plain or pinned by CUDA


def _require_uint8(is_uint8: bool, dtype: str, shape: tuple[int, ...], name: str) -> None:
    if not is_uint8:
        is_float = dtype.startswith(("float", "bfloat"))
        advice = ": from [0, 1], (x * 255).round().clip(0, 255) as uint8 is what image files hold" if is_float else ""
        raise TypeError(f"{name} is a tensor {dtype} {list(shape)}, not uint8{advice}")
