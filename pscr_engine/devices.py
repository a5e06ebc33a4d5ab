"""From `--devices` to the list of devices, one worker each."""

from __future__ import annotations

from .errors import UsageError

KINDS = ("cpu",)
_MAX_WORKERS = 256


def resolve_devices(text: str) -> tuple[str, ...]:
    """The devices that "auto", "all" or a list like "cpu,cpu" names. A device named twice gets two workers.

    Raises:
        UsageError: an unknown device.
    """
    if text in ("auto", "all"):
        return ("cpu",)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in KINDS:
            raise UsageError(
                f"--devices {text!r}: {name!r} is no device; this version of pscr-engine runs on "
                f"{', '.join(KINDS)} only"
            )
    if len(names) > _MAX_WORKERS:
        raise UsageError(f"--devices: {len(names)} workers are more than {_MAX_WORKERS}")
    return names
