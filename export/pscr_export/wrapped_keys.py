"""The names of parameters in networks that were wrapped: by DataParallel, torch.compile, FSDP."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pscr_engine.errors import CheckpointError

# Attributes by which wrappers hold the network; no network's own module has the names that begin with "_".
_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_AT_BEGINNING = _ANYWHERE | {"module"}


def without_wrappers(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Rename a state dict's keys to those of the network itself: "module._orig_mod.conv1.weight" to "conv1.weight".

    Args:
        state: tensors by key.
        where: the file, and the part of it, for messages.

    Raises:
        CheckpointError: two keys become the same, so that it is not clear which one is meant.
    """
    plain: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = _own_name(key)
        if name in plain:
            raise CheckpointError(f"{where} has {name} twice, once of them as {key}; save the network without wrappers")
        plain[name] = tensor
    return plain


def _own_name(key: str) -> str:
    parts = key.split(".")
    while len(parts) > 1 and parts[0] in _AT_BEGINNING:
        del parts[0]
    return ".".join([part for part in parts[:-1] if part not in _ANYWHERE] + parts[-1:])
