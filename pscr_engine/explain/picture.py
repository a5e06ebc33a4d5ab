"""The PNG picture of explanations: what the page shows, for where a page can't be shown."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..host import MadeOnce
from ..html import ScoreFormat
from .exemplar_images import thumbnail
from .findings import Findings, NearExemplar
from .layout import Figure, Mark, lay_out
from .wording import (
    about_exemplars,
    about_model,
    about_patches,
    colour,
    colour_scale,
    distance,
    elided,
    heading,
    printable,
    score_format,
)

_WIDTH, _MARGIN, _GAP = 1280, 32, 16
_INNER = _WIDTH - 2 * _MARGIN
_FIGURE = 620
_CARD, _THUMBNAIL = 192, 160
_PAPER, _INK, _QUIET, _RAISED = "#ffffff", "#1b1f24", "#555d68", "#f0f1f4"

# Pillow's built-in font, the only one that is always there, lacks these characters.
_LACKING = str.maketrans({"\N{MINUS SIGN}": "-", "×": "x", "…": "..."})

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def draw(all_findings: Iterable[Findings], exemplar_root: Path | None) -> bytes | None:
    """Draw all explanations as one PNG, one below the other, holding one image at a time; None if there are none."""
    sheets = [_explanation(findings, exemplar_root) for findings in all_findings]
    if not sheets:
        return None
    sheet = _column(sheets, 3 * _GAP)
    page = Image.new("RGB", (_WIDTH, sheet.height + 2 * _MARGIN), _PAPER)
    page.paste(sheet, (_MARGIN, _MARGIN))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _explanation(findings: Findings, exemplar_root: Path | None) -> Image.Image:
    numbers = score_format(findings.bundle)
    figure, D = lay_out(findings, numbers), len(findings.patches)
    left = _figure(findings, figure, _FIGURE if D > 1 else _INNER)
    blocks = [
        _text(_fitted(findings.name, 30, _INNER), 30),
        _text(heading(findings, numbers), 22),
        _text(about_patches(findings, numbers), 17, _QUIET),
    ]
    if D > 1:
        right = _crops(findings, figure, _INNER - left.width - _GAP)
        blocks += [_row([left, right], _GAP), _legend(findings, numbers)]
    else:
        blocks.append(left)
    if findings.nearest:
        cards = [_card(exemplar, numbers, exemplar_root) for exemplar in findings.nearest]
        across = (_INNER + _GAP) // (_CARD + _GAP)
        rows = [_row(cards[start : start + across], _GAP) for start in range(0, len(cards), across)]
        blocks += [_text("Nearest exemplars", 22), _text(about_exemplars(findings), 17, _QUIET), *rows]
    return _column([*blocks, _text(about_model(findings), 15, _QUIET)], _GAP)


def _figure(findings: Findings, figure: Figure, width: int) -> Image.Image:
    """Draw the image with its marks, within width × _FIGURE pixels."""
    view, (height, length) = figure.view, findings.pixels.shape[:2]
    scale = min(width / (view.right - view.left), _FIGURE / (view.bottom - view.top))

    def on_canvas(x: float, y: float) -> tuple[float, float]:
        return (x - view.left) * scale, (y - view.top) * scale

    right, bottom = on_canvas(view.right, view.bottom)
    canvas = Image.new("RGB", (math.ceil(right), math.ceil(bottom)), _PAPER)
    size = max(round(length * scale), 1), max(round(height * scale), 1)
    left, top = on_canvas(0, 0)
    canvas.paste(Image.fromarray(findings.pixels).resize(size), (round(left), round(top)))
    pen, unit = ImageDraw.Draw(canvas), figure.unit * scale
    for mark in figure.marks:
        (left, top), (right, bottom) = on_canvas(*mark.box[:2]), on_canvas(*mark.box[2:])
        for out, ink, line in ((2, "#101010", 5), (1, mark.colour, 3)):  # the colour with a dark rim on both sides
            pen.rectangle((left - out, top - out, right + out, bottom + out), outline=ink, width=line)
    font = _font(max(round(figure.font * scale), 6))
    for mark in figure.marks:
        (left, top), (right, bottom) = on_canvas(*mark.badge[:2]), on_canvas(*mark.badge[2:])
        split, _ = on_canvas(mark.split, 0)
        pen.rounded_rectangle((left, top, right, bottom), 4 * unit, "#101010", mark.colour, 3)
        middle = (top + bottom) / 2
        pen.text(((left + split) / 2, middle), str(mark.number), "#c8ccd2", font, "mm")
        pen.text(((split + right) / 2 - 4 * unit, middle), mark.score.translate(_LACKING), "#ffffff", font, "mm")
    return canvas


def _crops(findings: Findings, figure: Figure, width: int) -> Image.Image:
    """Draw the patches by themselves, in rows, each with its score."""
    across = math.ceil(math.sqrt(len(figure.marks)))
    size = (width - (across - 1) * _GAP) // across
    image = Image.fromarray(findings.pixels)
    cells = [_crop(image, mark, size, _FIGURE // across - _GAP) for mark in figure.marks]
    return _column([_row(cells[start : start + across], _GAP) for start in range(0, len(cells), across)], _GAP)


def _crop(image: Image.Image, mark: Mark, width: int, height: int) -> Image.Image:
    side = max(min(width, height - 30), 8)
    cell = Image.new("RGB", (width, side + 30), _PAPER)
    cell.paste(image.resize((side, side), box=mark.box), (0, 0))
    pen = ImageDraw.Draw(cell)
    pen.rectangle((0, side, side - 1, side + 4), fill=mark.colour)
    pen.text((0, side + 9), f"{mark.number}:  {mark.score}  ({mark.difference})".translate(_LACKING), _INK, _font(16))
    return cell


def _legend(findings: Findings, numbers: ScoreFormat) -> Image.Image:
    scale = colour_scale(findings)
    blocks = [_text("Colours: a patch's score less the image's", 15, _QUIET, wrap=False)]
    for value, word in ((-scale, "worse"), (0, ""), (scale, "better")):
        blocks.append(Image.new("RGB", (18, 18), colour(value, scale)))
        blocks.append(_text(f"{numbers.difference(value)} {word}", 15, _QUIET, wrap=False))
    return _row(blocks, 10)


def _card(exemplar: NearExemplar, numbers: ScoreFormat, exemplar_root: Path | None) -> Image.Image:
    image = thumbnail(exemplar, exemplar_root)
    frame = Image.new("RGB", (_CARD, _THUMBNAIL), _RAISED)
    pen = ImageDraw.Draw(frame)
    if isinstance(image, str):
        pen.text((_CARD / 2, _THUMBNAIL / 2), image, _QUIET, _font(15), "mm")
    else:
        image.thumbnail((_CARD, _THUMBNAIL))
        frame.paste(image, ((_CARD - image.width) // 2, (_THUMBNAIL - image.height) // 2))
    lines = [
        _fitted(exemplar.path, 16, _CARD),
        f"distance {distance(exemplar.distance)}",
        f"label {numbers.score(exemplar.label)}",
        f"delta {numbers.difference(exemplar.delta)}",
    ]
    return _column([frame, *(_text(line, 16, _QUIET if line is lines[0] else _INK, _CARD) for line in lines)], 4)


def _text(text: str, size: int, ink: str = _INK, width: int = _INNER, *, wrap: bool = True) -> Image.Image:
    """Draw `text` on as many lines of `width` pixels as it needs; without `wrap`, on one line of its own width."""
    font, text = _font(size), text.translate(_LACKING)
    lines = _wrapped(text, font, width) if wrap else [text]
    if not wrap:
        width = math.ceil(font.getlength(text))
    step = round(size * 1.4)
    block = Image.new("RGB", (width, step * len(lines)), _PAPER)
    pen = ImageDraw.Draw(block)
    for row, line in enumerate(lines):
        pen.text((0, row * step), line, ink, font)
    return block


def _fitted(text: str, size: int, width: int) -> str:
    """Shorten `text` so that it fits on one line of `width` pixels."""
    font, whole = _font(size), printable(text)
    lengths = range(min(len(whole), 8 + 5 * width // size), 0, -1)  # five letters are never narrower than one is high
    shorter = (elided(whole, length).translate(_LACKING) for length in lengths)
    return next((line for line in shorter if font.getlength(line) <= width), "")


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _row(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    return _pasted([(block, (sum(b.width + gap for b in blocks[:n]), 0)) for n, block in enumerate(blocks)])


def _column(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    return _pasted([(block, (0, sum(b.height + gap for b in blocks[:n]))) for n, block in enumerate(blocks)])


def _pasted(placed: Sequence[tuple[Image.Image, tuple[int, int]]]) -> Image.Image:
    size = max(x + block.width for block, (x, _) in placed), max(y + block.height for block, (_, y) in placed)
    canvas = Image.new("RGB", size, _PAPER)
    for block, corner in placed:
        canvas.paste(block, corner)
    return canvas


@MadeOnce
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
