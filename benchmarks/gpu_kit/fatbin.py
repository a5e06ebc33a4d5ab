"""Blank a library's device code that a host's GPU does not run, since zeros compress to nearly nothing.

A fatbin is a header (magic, version, size of the header, size of what follows) and entries, each with a header of its
own: kind (2: machine code), size of the header, size of the code, ..., GPU architecture, ..., size when decompressed.
Headers stay, so the driver finds the entries as before.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pscr_engine.errors import PscrError

_MAGIC, _MACHINE_CODE = 0xBA55ED50, 2
_ALIGNMENT = 8


def keep_only(library: Path, architecture: int, without: Sequence[bytes] = ()) -> tuple[int, int]:
    """Keep a library's device code for one architecture, and blank all other in place.

    Args:
        library: an ELF file with a section .nv_fatbin.
        architecture: what to keep, 90 for compute capability 9.0.
        without: patterns of names of kernels that are blanked, too.

    Returns:
        Bytes of device code that were kept, and blanked.

    Raises:
        PscrError: there is no such section, or the library has no code for that architecture.
    """
    start, size = _section(library)
    data = bytearray(library.read_bytes())
    at, kept, blanked = start, 0, 0
    while at + 16 <= start + size:
        magic, _, header, content = struct.unpack_from("<IHHQ", data, at)
        if magic != _MAGIC:
            at += _ALIGNMENT
            continue
        entry, end = at + header, at + header + content
        while entry < end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", data, entry)
            (compressed,) = struct.unpack_from("<I", data, entry + 16)
            (made_for,) = struct.unpack_from("<I", data, entry + 28)
            (decompressed,) = struct.unpack_from("<Q", data, entry + 56)
            code = entry + entry_header
            wanted = kind == _MACHINE_CODE and made_for == architecture
            if wanted and without:
                name = _kernel(bytes(data[code : code + compressed]), decompressed)
                wanted = not any(re.search(pattern, name) for pattern in without)
            if wanted:
                kept += entry_size
            else:
                data[code : code + entry_size] = bytes(entry_size)
                blanked += entry_size
            entry = code + entry_size
        at = end
    if not kept:
        raise PscrError(f"{library.name}: has no code for compute capability {architecture / 10:.1f}")
    library.write_bytes(data)
    return kept, blanked


def _section(library: Path) -> tuple[int, int]:
    """Find the section .nv_fatbin, and return its offset and size."""
    listing = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    for line in listing.replace("[ ", "[").splitlines():
        if ".nv_fatbin" in line:
            fields = line.split()
            return int(fields[4], 16), int(fields[5], 16)
    raise PscrError(f"{library.name}: has no device code (no section .nv_fatbin)")


def _kernel(compressed: bytes, size: int) -> bytes:
    """Return the name of an entry's first kernel, empty if it has none."""
    import zstandard

    code = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=size)
    name = re.search(rb"\.nv\.info\.([A-Za-z0-9_$]+)", code)
    return name[1] if name else b""
