"""The stages on a GPU: images that it decodes stay in its memory, and only a few floats per image come back.

decode (host)   headers; what the GPU does not decode is decoded and sampled here, into pinned memory
upload          into a free slot: host patches are copied, the rest is decoded on the GPU and sampled by the kernel
infer           the engine, and behind it the copy back, are enqueued
collect         waits for the copy, hands the results out, frees the slot

Each has threads of its own and a slot goes through them in order, so with several slots the upload of
one micro-batch, the inference of the one before, and the copy back of the one before that run at once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import perf_counter

from ..errors import DeviceLostError
from ..records import MicroBatch, Pixels, Query, Status
from ..sampling import TooSmallError, content_digest
from ..stages.base import Stage, StageSettings
from ..stages.decode import check_size, decode
from ..stages.infer import assign
from ..stages.sample import sample
from .decoder import Decoded, Encoded, ImageDecoder
from .decoding_check import DecodingCheck
from .device import Device, DeviceMemoryError, PinnedBuffer
from .device_lost import raise_if_device_lost
from .engine import Engine, Shape, Tensors
from .sampler import DeviceImage, Tables
from .score_std import ScoreStd
from .slot import Slot, Wanted

log = logging.getLogger("pscr_engine")

# Slots besides those that the engine's lanes compute, one each: one is filled, one is read back.
_SLOTS_BESIDE = 2
_DECODE_TASKS = 2
# Bytes of decoded images on the device at once, per slot; a larger batch is decoded in groups.
_DECODED_BYTES = 512 * 2**20
# Images whose enlarged height and width add up to more than so many times P are enlarged on the host.
_ENLARGED_SIDES = 5
_WAIT_SECONDS = 0.05
_MANY_REFUSED = 8


@dataclass(slots=True)
class _Work:
    """The state of one micro-batch between the stages.

    Args:
        encoded: images for the GPU's decoder.
        placed: queries in the order of their patches in the slot; None for an image that failed, whose scores are
            ignored.
        pinned: patches that come from the host, in the same order.
        slot: the buffers on the device, from `upload` to `collect`.
        outputs: addresses of the scores.
        enqueued: time at which the engine was given the work.
    """

    encoded: list[tuple[Query, Encoded]] = field(default_factory=list)
    placed: list[Query | None] = field(default_factory=list)
    pinned: PinnedBuffer | None = None
    slot: Slot | None = None
    outputs: Tensors | None = None
    enqueued: float = 0.0


class DeviceStages:
    """The stages of a backend on a GPU, as the module describes them.

    Args:
        device: the GPU.
        engine: what scores patches there.
        shape: sizes of the engine's tensors.
        decoder: for JPEGs; None to decode everything on the host.
        settings: the run's.

    Raises:
        DeviceMemoryError: the device has too little memory for the slots.
        BackendError: the engine can't run.
    """

    def __init__(
        self, device: Device, engine: Engine, shape: Shape, decoder: ImageDecoder | None, settings: StageSettings
    ) -> None:
        self._device, self._engine, self._shape, self._settings = device, engine, shape, settings
        # The kernel cuts patches; it can't resize whole images, as sampling "none" does.
        on_device = decoder is not None and settings.sampling.name != "none"
        self._decoder = decoder if on_device else None
        self._check = DecodingCheck(settings.verify_decoding)
        self._compared: PinnedBuffer | None = None
        self._images = ThreadPoolExecutor(settings.decode_threads, "image")
        self._pinned: list[PinnedBuffer] = []
        self._unused_pinned: deque[PinnedBuffer] = deque()
        self._slots: list[Slot] = []
        self._free: SimpleQueue[Slot] = SimpleQueue()
        self._halved = False
        self._refusal_reported = False
        self._last_done = 0.0
        self._lost = False
        self.stages = (
            Stage("decode", self._watched(self.decode), _DECODE_TASKS),
            Stage("upload", self._watched(self.upload)),
            Stage("infer", self._watched(self.infer)),
            Stage("collect", self._watched(self.collect)),
        )
        try:
            with raise_if_device_lost(device), device.current():
                self._open(Wanted(settings.features, settings.exemplar_scores))
        except BaseException as error:
            self._lost = isinstance(error, DeviceLostError)
            self.close()
            raise

    def _watched(self, stage: Callable[[MicroBatch], MicroBatch]) -> Callable[[MicroBatch], MicroBatch]:
        """Wrap a stage so that it raises DeviceLostError, and notes it, once the GPU no longer answers."""

        def call(batch: MicroBatch) -> MicroBatch:
            try:
                with raise_if_device_lost(self._device):
                    return stage(batch)
            except DeviceLostError:
                self._lost = True
                raise

        return call

    def _open(self, wanted: Wanted) -> None:
        s = self._settings
        if self._engine.batch_size != s.batch_size:
            self._engine.resize(s.batch_size)
        self._score_std = ScoreStd(self._device)
        lanes = len(self._engine.streams)
        for number in range(lanes + _SLOTS_BESIDE):
            sampling = s.sampling if self._decoder else None
            self._slots.append(Slot(self._device, sampling, s.rows, self._shape, wanted, number % lanes))
            self._free.put(self._slots[-1])
        # The first run chooses algorithms and takes the memory it needs: now, and not in the middle of the run.
        for slot in self._slots[:lanes]:
            self._score(slot, min(s.rows, s.batch_size))
        self._synchronize()

    def _synchronize(self) -> None:
        for stream in self._engine.streams:
            stream.synchronize()

    # decode ---------------------------------------------------------------------------------------------------------

    def decode(self, batch: MicroBatch) -> MicroBatch:
        """Read headers, and decode on the host the images that the GPU doesn't decode."""
        if not batch.queries:
            return batch
        s, work, on_host = self._settings, _Work(), []
        for query in batch.queries:
            if query.ok and query.data is None and query.pixels is None:
                with s.stats.fetch.measure(0):
                    s.fetcher.fetch(query)
            if not query.ok:
                continue
            start = perf_counter()
            encoded = self._read(query)
            s.stats.decode.add(0, perf_counter() - start)
            if encoded is None:
                on_host.append(query)
            elif query.ok:
                work.encoded.append((query, encoded))
        if on_host:
            patches = self._host_patches(work)
            list(self._images.map(self._decode_on_host, on_host, patches[: len(on_host)]))
            work.placed = [query if query.ok else None for query in on_host]
        s.stats.decode.add(len(batch.queries), 0)
        batch.work = work
        return batch

    def _read(self, query: Query) -> Encoded | None:
        """Read the header of an image, whose query may fail here; return None if the host is to decode it."""
        s, data, decoder = self._settings, query.data, self._decoder
        encoded = decoder.read(data) if decoder is not None and data else None
        if encoded is None or data is None:
            return None
        query.height, query.width = encoded.height, encoded.width
        check_size(query, s.decoding)
        if not query.ok:
            return encoded
        try:
            height, width = s.sampling.fitted_size(encoded.height, encoded.width, s.decoding.max_pixels)
        except TooSmallError as error:
            query.fail(Status.TOO_SMALL, str(error))
            return encoded
        enlarged = (height, width) != (encoded.height, encoded.width)
        if enlarged and height + width > _ENLARGED_SIDES * s.sampling.patch_size:
            return None
        if s.decoding.digest:
            query.digest = content_digest(data)
        return encoded

    def _decode_on_host(self, query: Query, out: Pixels) -> None:
        s, start = self._settings, perf_counter()
        decode(query, s.decoding)
        decoded = perf_counter()
        sample(query, out, s.sampling, s.decoding.max_pixels)
        s.stats.decode.add(0, decoded - start)
        s.stats.sample.add(int(query.ok), perf_counter() - decoded)

    def _host_patches(self, work: _Work) -> Pixels:
        """Return pinned memory for the patches of a micro-batch, uint8 [rows, D, P, P, 3]."""
        rows, shape = self._settings.rows, self._shape
        if work.pinned is None:
            try:
                work.pinned = self._unused_pinned.pop()
            except IndexError:  # allocated once for each micro-batch under way, then reused
                with self._device.current():
                    work.pinned = self._device.pinned(rows * shape.image_bytes)
                self._pinned.append(work.pinned)
        used = work.pinned.array[: rows * shape.image_bytes]
        return used.reshape(rows, shape.patches, shape.patch_size, shape.patch_size, 3)

    # upload ---------------------------------------------------------------------------------------------------------

    def upload(self, batch: MicroBatch) -> MicroBatch:
        """Bring the patches of a micro-batch into a slot."""
        work = batch.work
        if work is None or not (work.encoded or any(work.placed)) or (slot := self._take_slot()) is None:
            return batch
        work.slot = slot
        with self._device.current():
            if work.placed:
                self._copy(work, 0, len(work.placed))
            refused: list[Query] = []
            for group in _groups(work.encoded):
                if self._check.given_up:
                    refused += [query for query, _ in group]
                else:
                    refused += self._decode_on_device(work, slot, group)
            if refused:
                self._decode_after_all(work, refused)
            slot.ready.record(slot.stream)
        work.encoded.clear()
        if not work.placed:  # nothing of it can be decoded
            work.slot = None
            self._free.put(slot)
        return batch

    def _take_slot(self) -> Slot | None:
        """Wait for a slot that is free; return None if the run is to end."""
        while not self._settings.stopping.is_set():
            try:
                return self._free.get(timeout=_WAIT_SECONDS)
            except Empty:
                continue
        return None

    def _copy(self, work: _Work, first: int, count: int) -> None:
        """Begin to copy the patches of `count` images, from index `first` on, from pinned memory to the slot."""
        slot, nbytes = work.slot, self._shape.image_bytes
        assert slot is not None
        assert work.pinned is not None
        target = slot.engine_tensors.patches + first * nbytes
        self._device.copy_to_device(target, work.pinned, count * nbytes, slot.stream, first * nbytes)

    def _decode_on_device(self, work: _Work, slot: Slot, group: Sequence[tuple[Query, Encoded]]) -> list[Query]:
        """Decode and sample a group on the GPU; return the queries whose images its decoder refuses."""
        s = self._settings
        decoder = self._decoder
        assert decoder is not None
        assert slot.sampler is not None
        if slot.held:  # of the group before: its images, and the kernel's tables
            slot.stream.synchronize()  # before they are freed: see `Slot.held`
            slot.held.clear()
        with s.stats.decode.measure(0):
            decoded = decoder.decode([encoded for _, encoded in group], slot.stream.handle)
        refused: list[Query] = []
        images: list[DeviceImage] = []
        first = len(work.placed)
        wrong = self._wrong(group, decoded, slot)
        start = perf_counter()
        for index, ((query, encoded), image) in enumerate(zip(group, decoded, strict=True)):
            if image is None or index in wrong or (image.height, image.width) != (encoded.height, encoded.width):
                refused.append(query)
                continue
            slot.held.append(image)
            images.append(_device_image(image, query.digest))
            work.placed.append(query)
            query.data = None
        if images:
            tables = Tables.build(images, s.sampling, s.decoding.max_pixels)
            slot.sampler.launch(tables, slot.engine_tensors.patches + first * self._shape.image_bytes, slot.stream)
            s.stats.sample.add(len(images), perf_counter() - start)
        return refused

    def _wrong(self, group: Sequence[tuple[Query, Encoded]], decoded: Sequence[Decoded | None], slot: Slot) -> set[int]:
        """Compare some of a group's images with what Pillow makes of them; return the indices of those to discard."""
        chosen = [index for index in self._check.wanted(len(group)) if decoded[index] is not None]
        if not chosen:
            return set()
        wrong, stats, before = set(), self._settings.stats, self._check.wrong
        with stats.verify.measure(len(chosen)):
            for index in chosen:
                query, image = group[index][0], decoded[index]
                assert image is not None
                assert query.data is not None
                pixels = self._pixels(image, slot)
                if self._check.is_wrong(pixels, query.data, query.path or f"row {query.row}"):
                    wrong.add(index)
                if self._check.given_up:  # all that the decoder has just decoded may be wrong, too
                    self._decoder = None
                    wrong.update(range(len(group)))
                    break
        stats.mismatch.add(self._check.wrong - before, 0.0)
        return wrong

    def _pixels(self, image: Decoded, slot: Slot) -> Pixels:
        """Copy a decoded image to the host, uint8 [H, W, 3], valid until the next call."""
        if self._compared is None or self._compared.array.nbytes < image.nbytes:
            if self._compared is not None:
                self._compared.free()
            self._compared = self._device.pinned(image.nbytes)
        self._device.copy_to_host(self._compared, image.address, image.nbytes, slot.stream)
        slot.stream.synchronize()
        return image.pixels_in(self._compared.array)

    def _decode_after_all(self, work: _Work, refused: Sequence[Query]) -> None:
        """Decode on the host what the GPU's decoder has refused; the host's decoder also knows why an image fails."""
        if len(refused) >= _MANY_REFUSED and not self._refusal_reported and not self._check.given_up:
            self._refusal_reported = True
            log.warning("the GPU's decoder refuses many JPEGs, which takes time: look at their format")
        first = len(work.placed)
        patches = self._host_patches(work)[first : first + len(refused)]
        list(self._images.map(self._decode_on_host, refused, patches))
        work.placed += [query if query.ok else None for query in refused]
        self._copy(work, first, len(refused))

    # infer and collect ----------------------------------------------------------------------------------------------

    def infer(self, batch: MicroBatch) -> MicroBatch:
        """Enqueue the engine's work and the copy of its results to the host."""
        work = batch.work
        if work is None or work.slot is None:
            return batch
        slot, count = work.slot, len(work.placed)
        work.enqueued = perf_counter()
        with self._device.current():
            stream = self._engine.streams[slot.lane]
            slot.ready.block(stream)
            work.outputs = self._score(slot, count)
            slot.scored.record(stream)
            slot.scored.block(slot.stream)
            slot.read_back(work.outputs, count, self._score_std)
        return batch

    def _score(self, slot: Slot, count: int) -> Tensors:
        """Enqueue the engine for `count` images; return the addresses of the scores to come.

        Later batches are first copied to the first one's addresses: engines want aligned addresses.
        """
        device, stream = self._device, self._engine.streams[slot.lane]
        tensors, row_bytes = slot.engine_tensors, slot.row_bytes
        done, gathers = 0, False
        while done < count:
            images = min(self._engine.batch_size, count - done)
            gathers = gathers or images < count
            if done:
                nbytes = row_bytes.patches
                device.copy_on_device(tensors.patches, tensors.patches + done * nbytes, images * nbytes, stream)
            try:
                self._engine.enqueue(tensors, slot.lane)
            except DeviceMemoryError as error:
                self._halve(error)
                continue
            if gathers:
                for target, source, nbytes in list(zip(slot.gathered, tensors, row_bytes, strict=True))[1:]:
                    device.copy_on_device(target + done * nbytes, source, images * nbytes, stream)
            done += images
        return slot.gathered if gathers else tensors

    def _halve(self, error: DeviceMemoryError) -> None:
        """Reduce the batch size by half, once; raise the error the second time, when chance can't be the cause."""
        if self._halved or self._engine.batch_size == 1:
            raise error
        self._halved = True
        smaller = self._engine.batch_size // 2
        log.warning("%s; going on with batches of %d", error, smaller)
        self._synchronize()
        self._engine.resize(smaller)

    def collect(self, batch: MicroBatch) -> MicroBatch:
        """Wait for the results, write them to the queries, and free the slot."""
        work = batch.work
        if work is None or work.slot is None:
            self._drop(batch)
            return batch
        slot, s = work.slot, self._settings
        with self._device.current():
            slot.back.synchronize()
        # The device's own time, without what a micro-batch waited for the one before it.
        now = perf_counter()
        count = sum(query is not None for query in work.placed)
        s.stats.infer.add(count, now - max(work.enqueued, self._last_done))
        self._last_done = now
        results = slot.results(len(work.placed))
        assign(
            work.placed,
            results.score,
            results.score_std,
            None if results.features is None else results.features.copy(),
            None if results.exemplar_scores is None else results.exemplar_scores.copy(),
            precision=self._engine.precision,
        )
        with self._device.current():  # the images' memory is freed on the current device
            slot.held.clear()
        self._drop(batch)
        self._free.put(slot)
        return batch

    def _drop(self, batch: MicroBatch) -> None:
        if batch.work is not None and batch.work.pinned is not None:
            self._unused_pinned.append(batch.work.pinned)
        batch.work = None

    def close(self) -> None:
        """Wait for the device, then give all buffers back; leave them to a device that is lost."""
        self._images.shutdown(wait=True, cancel_futures=True)
        if self._lost:
            return
        with self._device.current():
            self._synchronize()
            for slot in self._slots:
                slot.stream.synchronize()
                slot.held.clear()
                slot.free()
            for pinned in self._pinned:
                pinned.free()
            if self._compared is not None:
                self._compared.free()
        self._slots.clear()
        self._pinned.clear()


def _device_image(image: Decoded, digest: bytes) -> DeviceImage:
    return DeviceImage(image.address, image.pitch, image.height, image.width, digest)


def _groups(encoded: Sequence[tuple[Query, Encoded]]) -> Iterator[list[tuple[Query, Encoded]]]:
    """Split images into groups that take at most `_DECODED_BYTES` when decoded; a larger image is a group itself."""
    group: list[tuple[Query, Encoded]] = []
    held = 0
    for item in encoded:
        nbytes = item[1].height * item[1].width * 3
        if group and held + nbytes > _DECODED_BYTES:
            yield group
            group, held = [], 0
        group.append(item)
        held += nbytes
    if group:
        yield group
