"""A page of simple shapes, as SVG or as PNG: what maps are drawn on. Pillow is imported for pixels only."""

import base64
import io
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

Colour = tuple[int, int, int]
INK, FAINT, PAPER = (28, 30, 33), (95, 100, 112), (255, 255, 255)
ANCHORS = {"start": "l", "middle": "m", "end": "r"}  # Pillow's names


class Canvas:
    """Coordinates are pixels of the SVG, from the top left."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = round(width), round(height)
        self.items: list[tuple[str, Any]] = []

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour, edge: Colour | None = None) -> None:
        self.items.append(("polygon", (points, fill, edge)))

    def rect(self, x: float, y: float, w: float, h: float, fill: Colour, edge: Colour | None = None) -> None:
        self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], fill, edge)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1.0) -> None:
        self.items.append(("line", (points, colour, width)))

    def text(
        self, x: float, y: float, text: str, size: float = 12, fill: Colour = INK, anchor: str = "middle"
    ) -> None:  # fmt: skip
        """One line whose middle is at the height y; anchor: start, middle or end."""
        self.items.append(("text", (x, y, text, size, fill, anchor)))

    def image(self, x: float, y: float, w: float, h: float, pixels: Any) -> None:
        """Pixels [rows, columns, 3], uint8, each of them a rectangle."""
        self.items.append(("image", (x, y, w, h, pixels)))

    # -- as a file -----------------------------------------------------------------------------------------------

    def svg(self) -> str:
        """Text is text: it can be searched, and set in another font."""
        body = "\n".join(getattr(self, f"_svg_{kind}")(*what) for kind, what in self.items)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="system-ui, sans-serif">\n'
            f'<rect width="100%" height="100%" fill="{_hex(PAPER)}"/>\n{body}\n</svg>\n'
        )

    def _svg_polygon(self, points: Sequence[tuple[float, float]], fill: Colour, edge: Colour | None) -> str:
        stroke = f' stroke="{_hex(edge)}"' if edge else ""
        return f'<polygon points="{_points(points)}" fill="{_hex(fill)}"{stroke}/>'

    def _svg_line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> str:
        return f'<polyline points="{_points(points)}" fill="none" stroke="{_hex(colour)}" stroke-width="{width:g}"/>'

    def _svg_text(self, x: float, y: float, text: str, size: float, fill: Colour, anchor: str) -> str:
        return (
            f'<text x="{x:.4g}" y="{y:.4g}" font-size="{size:.3g}" fill="{_hex(fill)}" text-anchor="{anchor}" '
            f'dominant-baseline="central">{escape(text)}</text>'
        )

    def _svg_image(self, x: float, y: float, w: float, h: float, pixels: Any) -> str:
        from PIL import Image

        Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        return (
            f'<image x="{x:.4g}" y="{y:.4g}" width="{w:.4g}" height="{h:.4g}" preserveAspectRatio="none" '
            f'style="image-rendering: pixelated" href="data:image/png;base64,{data}"/>'
        )

    def pixels(self, scale: int = 2) -> Any:
        """A Pillow image, `scale` pixels for each one of the SVG."""
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (self.width * scale, self.height * scale), PAPER)
        draw = ImageDraw.Draw(picture)

        def scaled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
            return [(x * scale, y * scale) for x, y in points]

        for kind, what in self.items:
            if kind == "polygon":
                points, fill, edge = what
                draw.polygon(scaled(points), fill=fill, outline=edge)
            elif kind == "line":
                points, colour, width = what
                draw.line(scaled(points), fill=colour, width=max(1, round(width * scale)), joint="curve")
            elif kind == "text":
                x, y, text, size, fill, anchor = what
                draw.text(
                    (x * scale, y * scale), text, fill=fill, font=font(size * scale), anchor=f"{ANCHORS[anchor]}m"
                )
            else:
                x, y, w, h, array = what
                size = round(w * scale), round(h * scale)
                image = Image.fromarray(array).resize(size, Image.Resampling.NEAREST)
                picture.paste(image, (round(x * scale), round(y * scale)))
        return picture

    def png(self, scale: int = 2) -> bytes:
        self.pixels(scale).save(buffer := io.BytesIO(), "PNG")
        return buffer.getvalue()


@cache
def font(size: float) -> Any:
    """Pillow's own, in which each letter is drawn once."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
