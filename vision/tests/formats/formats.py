#!/usr/bin/env python3
"""Makes formats.json: one small picture in many formats, and the pixels that Pillow reads from each.

    pip install pillow numpy opencv-python-headless && ./formats.py > formats.json

Each entry: its name, the file in base64, width, height, and the RGB bytes in base64 as Pillow gives them after
ImageOps.exif_transpose and convert("RGB"). Of 16-bit grey, which Pillow clips to white, the upper 8 bits.
"""

import base64
import io
import json
import sys

import cv2
import numpy
from PIL import Image, ImageCms, ImageOps

WIDTH, HEIGHT = 21, 18


def picture():
    """Colours that differ in every direction, so that no turn goes unseen; smooth, as photographs are."""
    x, y = numpy.meshgrid(numpy.arange(WIDTH), numpy.arange(HEIGHT))
    planes = [x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), (x * 3 + y * 7) % 256]
    return Image.fromarray(numpy.stack(planes, -1).astype(numpy.uint8))


def stored(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def cases():
    rgb = picture()
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    palette = rgb.quantize(16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"jpeg baseline {name}", stored(rgb, "JPEG", quality=90, subsampling=subsampling)
        yield f"jpeg progressive {name}", stored(rgb, "JPEG", quality=90, subsampling=subsampling, progressive=True)
    yield "jpeg restart markers", stored(rgb, "JPEG", restart_marker_blocks=1)
    yield "jpeg grey", stored(rgb.convert("L"), "JPEG")
    yield "jpeg grey progressive", stored(rgb.convert("L"), "JPEG", progressive=True)
    yield "jpeg cmyk", stored(rgb.convert("CMYK"), "JPEG")
    yield "jpeg rgb", stored(rgb, "JPEG", keep_rgb=True)
    yield "jpeg profile", stored(rgb, "JPEG", icc_profile=profile)
    yield "jpeg long profile", stored(rgb, "JPEG", icc_profile=profile + bytes(66_000))
    for orientation in range(1, 9):
        yield f"jpeg orientation {orientation}", stored(rgb, "JPEG", exif=exif(orientation))
        yield f"png orientation {orientation}", stored(rgb, "PNG", exif=exif(orientation))
    yield "webp orientation 6", stored(rgb, "WEBP", lossless=True, exif=exif(6))
    yield "jpeg orientation 77", stored(rgb, "JPEG", exif=exif(77))
    yield "png", stored(rgb, "PNG")
    yield "png profile", stored(rgb, "PNG", icc_profile=profile)
    yield "png alpha", stored(alpha, "PNG")
    yield "png grey", stored(rgb.convert("L"), "PNG")
    yield "png grey alpha", stored(alpha.convert("LA"), "PNG")
    yield "png bits", stored(rgb.convert("1"), "PNG")
    yield "png palette", stored(palette, "PNG")
    yield "png palette 2 bits", stored(rgb.quantize(4), "PNG", bits=2)
    yield "png palette transparent", stored(palette, "PNG", transparency=3)
    yield "png colour key", stored(rgb, "PNG", transparency=(0, 0, 0))
    wide = numpy.asarray(rgb).astype(numpy.uint16) * 251 + 77
    yield "png 16 bits", cv2.imencode(".png", wide)[1].tobytes()
    yield "png 16 bits alpha", cv2.imencode(".png", numpy.dstack([wide, wide[..., 0]]))[1].tobytes()
    yield "png 16 bits grey", cv2.imencode(".png", wide[..., 0])[1].tobytes()
    yield "webp lossless", stored(rgb, "WEBP", lossless=True)
    yield "webp lossless alpha", stored(alpha, "WEBP", lossless=True, exact=True)
    yield "webp lossy", stored(rgb, "WEBP", quality=80)
    yield "webp lossy alpha", stored(alpha, "WEBP", quality=80, exact=True)
    yield "webp profile", stored(rgb, "WEBP", lossless=True, icc_profile=profile)
    second = ImageOps.invert(rgb)
    yield "webp animated", stored(rgb, "WEBP", lossless=True, save_all=True, append_images=[second])
    yield "bmp", stored(rgb, "BMP")
    yield "bmp palette", stored(palette, "BMP")
    yield "bmp grey", stored(rgb.convert("L"), "BMP")
    yield "bmp bits", stored(rgb.convert("1"), "BMP")
    yield "bmp alpha", stored(alpha, "BMP")
    yield "gif", stored(palette, "GIF")
    yield "gif interlaced", stored(palette, "GIF", interlace=True)
    yield "gif transparent", stored(palette, "GIF", transparency=3)
    yield "gif animated", stored(palette, "GIF", save_all=True, append_images=[second.quantize(16)])


def pixels(name, data):
    if name == "png 16 bits grey":
        grey = (cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_UNCHANGED) >> 8).astype(numpy.uint8)
        return Image.fromarray(grey).convert("RGB")
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def main():
    def text(data):
        return base64.b64encode(data).decode()

    entries = []
    for name, data in cases():
        seen = pixels(name, data)
        size = {"width": seen.width, "height": seen.height}
        entries.append({"name": name, "file": text(data), **size, "rgb": text(seen.tobytes())})
    json.dump(entries, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    main()
