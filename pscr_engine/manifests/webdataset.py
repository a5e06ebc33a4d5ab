"""WebDataset shards: tar files whose members are images, and other files that are passed over."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ..errors import ManifestError, one_line
from ..records import MAX_FILE_BYTES, Query, Status
from .base import Manifest, ManifestFile, ManifestOptions, state_of
from .forward import ForwardReader
from .image_files import is_image, refuse_columns

_UNREADABLE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def is_shard(name: str) -> bool:
    """Tell whether a file has a shard's extension."""
    return name.lower().endswith(SHARD_SUFFIXES)


class WebDatasetManifest(Manifest):
    """The images in tar shards, shard by shard, in the order of their members.

    A row's path is SHARD/MEMBER, its identifier the WebDataset key: the member's name without its
    extension. A shard that ends early or can't be read gives one more row, `unreadable`, named
    after the shard: what it should have held is not known, but it isn't passed over in silence.
    """

    kind = "webdataset"
    may_hold_images = True
    has_columns = False
    num_rows: int | None = None

    def __init__(self, shards: Sequence[ManifestFile], options: ManifestOptions) -> None:
        refuse_columns("WebDataset shards", options)
        self._shards = list(shards)
        self._watch(self._shards)
        self.folder = ""  # the shards hold the images
        self.id_type: pa.DataType | None = pa.string()
        digest = hashlib.sha256()
        for shard in self._shards:
            digest.update(os.fsencode(shard.name) + b"\0" + _sample(shard))
        self.fingerprint = f"{self.kind}:{digest.hexdigest()}"

    def reader(self) -> ForwardReader[_Record]:
        """Return a reader with open shards of its own. Members that are passed over are not read."""
        return ForwardReader(self._records, _query)

    def _records(self) -> Iterator[_Record]:
        for shard in self._shards:
            try:
                with _open(shard) as first:
                    tar: tarfile.TarFile | None = first
                    while tar is not None:  # of several archives, one after the other
                        for member in tar:
                            if (member.isfile() or member.islnk() or member.issym()) and is_image(member.name):
                                yield _Record(shard, tar, member)
                            # Else the archive would remember every member it has passed.
                            tar.members = []  # type: ignore[attr-defined]
                        tar = _next_archive(tar)
            except _UNREADABLE as error:
                # tarfile lists, line by line, what each kind of compression makes of it.
                no_tar = str(error).startswith("file could not be opened successfully")
                yield _Record(shard, error="it is no tar file, compressed or not" if no_tar else one_line(error, 200))


class _Record(NamedTuple):
    """A member of an open shard, or why the shard could not be read on."""

    shard: ManifestFile
    tar: tarfile.TarFile | None = None
    member: tarfile.TarInfo | None = None
    error: str = ""


def _query(row: int, record: _Record) -> Query:
    if record.tar is None or record.member is None:
        query = Query(row, path=str(record.shard))
        query.fail(Status.UNREADABLE, f"the shard can't be read on from here: {record.error}")
        return query
    member = record.member
    query = Query(row, path=f"{record.shard}/{member.name}", id=_key(member.name))
    if not member.isfile():  # its target may be anywhere in the shard, or outside
        query.fail(Status.UNREADABLE, f"a link to {member.linkname}; pack shards with the files themselves")
        return query
    if member.size > MAX_FILE_BYTES:
        query.fail(Status.TOO_LARGE, f"{member.size:,} bytes, over the limit of {MAX_FILE_BYTES:,}")
        return query
    try:
        file = record.tar.extractfile(member)
        query.data = file.read() if file is not None else b""
    except _UNREADABLE as error:
        query.fail(Status.UNREADABLE, f"the shard can't be read here: {one_line(error, 200)}")
    return query


def _key(name: str) -> str:
    """Return the WebDataset key of a member: its name up to the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base[:1] + base[1:].partition(".")[0]


@contextmanager
def _open(shard: ManifestFile) -> Iterator[tarfile.TarFile]:
    """Open a shard. Of an object, a few megabytes are in memory, and what is passed over is not fetched."""
    if isinstance(shard, Path):
        with tarfile.open(shard) as tar:
            yield tar
    else:
        with shard.open("rb") as file, tarfile.open(fileobj=file) as tar:
            yield tar


def _next_archive(tar: tarfile.TarFile) -> tarfile.TarFile | None:
    """Return the archive that follows the end of `tar` in its file, `cat a.tar b.tar` for example; None if none does.

    Raises:
        TarError: `tar` doesn't end with its end mark (Python stops without a word at a bad header), or what follows is
            no archive.
    """
    file = tar.fileobj
    assert file is not None
    file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.TarError("a damaged header" if block else "it ends without its end mark")
    position = tar.offset + tarfile.BLOCKSIZE
    while blocks := file.read(2048 * tarfile.BLOCKSIZE):  # to the end: a compressed shard's checksum comes last
        if rest := blocks.lstrip(tarfile.NUL):
            start = len(blocks) - len(rest)
            file.seek(position + start - start % tarfile.BLOCKSIZE)
            archive = tarfile.TarFile(fileobj=file, mode="r")
            if archive.firstmember is None:  # type: ignore[attr-defined]
                raise tarfile.TarError("what follows its end mark is no archive")
            return archive
        position += len(blocks)
    return None


def _sample(shard: ManifestFile) -> bytes:
    """Return a shard's size and a hash of its first and last 64 KiB, as shards are large; an object's size and ETag."""
    if not isinstance(shard, Path):
        return repr(state_of(shard)).encode()
    try:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            head = file.read(2**16)
            file.seek(max(0, size - 2**16))
            return str(size).encode() + hashlib.sha256(head + file.read()).digest()
    except OSError as error:
        raise ManifestError(f"{shard}: can't be read ({error.strerror or error})") from error
