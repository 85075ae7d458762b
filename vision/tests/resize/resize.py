"""Writes pillow.json: small pictures and what Pillow's BILINEAR and BICUBIC make of them.

pip install pillow && python resize.py
"""

import json
import pathlib
import random

from PIL import Image

FILTERS = ["BILINEAR", "BICUBIC"]
SIZES = [(7, 5), (16, 12), (24, 9), (31, 40), (1, 1), (24, 18), (3, 18)]


def picture(channels, width, height):
    random.seed(channels)
    data = bytes(random.choice([0, 255, random.randrange(256)]) for _ in range(width * height * channels))
    mode = "RGB" if channels == 3 else "L"
    image = Image.frombytes(mode, (width, height), data)
    resized = [
        {"filter": f, "width": w, "height": h, "bytes": list(image.resize((w, h), Image.Resampling[f]).tobytes())}
        for f in FILTERS
        for w, h in SIZES
    ]
    return {"channels": channels, "width": width, "height": height, "bytes": list(data), "resized": resized}


pictures = [picture(3, 24, 18), picture(1, 24, 18)]
pathlib.Path(__file__).with_name("pillow.json").write_text(json.dumps(pictures) + "\n")
