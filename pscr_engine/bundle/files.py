"""Bundles: read, verify and write the folder that holds an exported PSCR model.

The format is written down in `docs/bundle.md`. Nothing here needs PyTorch or ONNX.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..atomic import sha256_of
from ..errors import BundleError, one_line, option, wrong_usage
from ..stores.uri import Place, StorePath, place
from .exemplars import EXEMPLAR_TENSORS, Exemplars, read_exemplars
from .info import FORMAT, FORMAT_VERSION, BundleInfo
from .patch_scores import PATCH_SCORES, PatchScores

MANIFEST_NAME = "bundle.json"
EXEMPLAR_TABLE = "exemplars.parquet"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, verified bundle.

    Args:
        path: the bundle's folder.
        info: what `bundle.json` says.
        exemplars: the exemplar cache.
        digest: hexadecimal SHA-256 of `bundle.json`, which itself holds the digests of all other
            files: it names the bundle's content.
        source: the object store's prefix that it was fetched from; None for a folder of this host.
        patch_scores: its calibration for decisions by some of the patches; None if it has none.
    """

    path: Path
    info: BundleInfo
    exemplars: Exemplars
    digest: str
    source: StorePath | None = None
    patch_scores: PatchScores | None = None

    @property
    def shown(self) -> str:
        """Return where the bundle is, as users know it: for one that was fetched, not the folder that keeps it."""
        return str(self.source or self.path)

    @classmethod
    def open(cls, path: str | Place) -> Bundle:
        """Read and verify a bundle: format version, and size and SHA-256 of every file it lists.

        One in an object store is fetched to the user's cache, unless it is there already.

        Raises:
            BundleError: there is no bundle, or it is damaged, or of another format version.
            StoreError: it can't be fetched.
        """
        where = place(path, option("--bundle"))
        if isinstance(where, Path):
            return cls._open(where)
        from .from_store import cached_bundle

        try:
            return replace(cls._open(cached_bundle(where)), source=where)
        except BundleError:  # the copy in the cache may be damaged, and not the bundle
            folder = cached_bundle(where, afresh=True)
        try:
            return replace(cls._open(folder), source=where)
        except BundleError as error:
            raise BundleError(str(error).replace(str(folder), str(where))) from error

    @classmethod
    def _open(cls, path: Path) -> Bundle:
        raw = _read_bundle_json(path)
        value = _parse(path, raw)
        _verify_files(path, value.get("files"))
        try:
            info = BundleInfo.from_json(value)
            calibration = [] if info.patch_scores is None else [PATCH_SCORES]
            for name in [EXEMPLAR_TENSORS, *calibration, *(graph.file for graph in info.graphs.values())]:
                if name not in value["files"]:
                    raise ValueError(f"{name} is used but not listed under 'files'")
            exemplars = read_exemplars(path)
            exemplars.check(info.feature_size)
            patch_scores = PatchScores.read(path) if calibration else None
            if patch_scores is not None:
                patch_scores.check(info.sampling.patches, info.graphs)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BundleError(f"{path}: malformed bundle ({what}); export it again") from error
        return cls(path, info, exemplars, hashlib.sha256(raw).hexdigest(), patch_scores=patch_scores)

    @property
    def files(self) -> list[str]:
        """List the files that the bundle consists of, beside `bundle.json`, relative to its folder."""
        return sorted(json.loads((self.path / MANIFEST_NAME).read_bytes())["files"])

    def graph_path(self, precision: str) -> Path:
        """Return the path of the ONNX file of `precision`.

        Raises:
            BundleError: the bundle has no graph of this precision.
        """
        if precision not in self.info.graphs:
            raise BundleError(
                f"{self.shown}: no precision {precision}, only {', '.join(self.info.graphs)}; "
                f"export it with pscr-engine export --precision {precision}"
            )
        return self.path / self.info.graphs[precision].file

    def exemplar_files(self) -> list[tuple[str, str]]:
        """Return each exemplar's path, as the list named it, and its file's hexadecimal SHA-256, in the cache's order.

        Raises:
            BundleError: the exemplar table is damaged, or doesn't list the cache's exemplars.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(self.path / EXEMPLAR_TABLE, columns=["path", "sha256"])
        except (OSError, pa.ArrowException) as error:
            raise BundleError(
                f"{self.shown}: {EXEMPLAR_TABLE}: {one_line(error, 200)}; export the bundle again"
            ) from error
        if table.num_rows != self.exemplars.count or set(table.column_names) != {"path", "sha256"}:
            raise BundleError(
                f"{self.shown}: {EXEMPLAR_TABLE} does not list the {self.exemplars.count} exemplars with path and "
                "sha256; export the bundle again"
            )
        return list(zip(*(table.column(name).to_pylist() for name in ("path", "sha256")), strict=True))


def write_contents(folder: Path, info: BundleInfo, exemplars: Exemplars) -> None:
    """Write the exemplar tensors and, last, `bundle.json` with the digests of all files in `folder`.

    The graphs and the exemplar table must be there already. To make the whole bundle appear at
    once, use it inside `pscr_engine.atomic.atomic_directory`.
    """
    from safetensors.numpy import save

    exemplars.check(info.feature_size)
    # Not save_file(), which makes files that only their owner may read.
    (folder / EXEMPLAR_TENSORS).write_bytes(
        save({"hidden": exemplars.hidden, "labels": exemplars.labels, "features": exemplars.features})
    )
    value = info.as_json()
    value["files"] = {
        file.relative_to(folder).as_posix(): {"sha256": sha256_of(file), "bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST_NAME
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_bundle_json(path: Path) -> bytes:
    try:
        return (path / MANIFEST_NAME).read_bytes()
    except NotADirectoryError:
        raise BundleError(f"{path}: not a bundle, which is a folder; make one with pscr-engine export") from None
    except FileNotFoundError:
        advice = f"make a bundle with pscr-engine export, or name one with {option('--bundle')}"
        if path.is_dir():
            raise BundleError(f"{path}: no bundle.json in it; {advice}") from None
        raise wrong_usage(BundleError(f"{path}: no such bundle; {advice}")) from None
    except OSError as error:
        raise BundleError(f"{path}: can't read bundle.json ({error.strerror})") from error


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"'format' is not {FORMAT!r}")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: bundle.json is not a PSCR bundle's ({error}); export it again") from error
    version = value.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: bundle format {version!r}, this version of pscr-engine reads {FORMAT_VERSION}; "
            "export it again, or install the pscr-engine that wrote it"
        )
    return value


def _verify_files(path: Path, files: object) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{path}: malformed bundle (no 'files'); export it again")
    for name, facts in files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise BundleError(f"{path}: bundle.json names a file outside the bundle: {name}")
        try:
            same = (
                (path / name).is_file()  # no named pipe, which would be waited for
                and (path / name).stat().st_size == facts["bytes"]
                and sha256_of(path / name) == facts["sha256"]
            )
        except (OSError, LookupError, TypeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "bundle.json has no size and digest for it"
            raise BundleError(f"{path}: {name}: {reason}; copy the bundle again, or export it again") from error
        if not same:
            raise BundleError(
                f"{path}: {name} is not the file that was exported (size or SHA-256 differs); "
                "copy the bundle again, or export it again"
            )
