#!/usr/bin/env python3
"""From a photograph's bytes to a network's input: ours against Pillow and OpenCV, alternating in one run.

    pip install pillow opencv-python-headless numpy
    benches/images.py [--rounds N] [PHOTO...]

Each uses one thread. Every way ends with the same thing: 3 x 224 x 224 floats, the shorter side made 256, the middle cut
out, normalised. Rows that can be compared do the same work:

  full     all pixels decoded, antialiased resizing (Pillow BILINEAR; OpenCV INTER_AREA, its only antialiased one)
  scaled   decoded at a smaller scale: ours as it chooses; Pillow draft() to the same; OpenCV IMREAD_REDUCED to the same

and for knowing only, as it does less: OpenCV full with INTER_LINEAR, which sees four pixels for each that it makes.
Prints medians in ms, and for each of the others the median of the per-round ratios (ours / theirs: below 1 we are
quicker) with an interval of 95 % from resampling the rounds.
"""

import argparse
import io
import os
import pathlib
import random
import statistics
import subprocess
import time

os.environ["OMP_NUM_THREADS"] = "1"
import cv2  # noqa: E402
import numpy  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEAN = numpy.array([0.485, 0.456, 0.406], numpy.float32)
STD = numpy.array([0.229, 0.224, 0.225], numpy.float32)
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def fitted(width, height):
    ratio = 256 / min(width, height)
    return max(256, round(width * ratio)), max(256, round(height * ratio))


def divided(width, height):
    """By what our pipeline divides: four pixels must be left for each that is made."""
    across, down = fitted(width, height)
    return next((by for by in (8, 4, 2) if width >= across * 4 * by and height >= down * 4 * by), 1)


def normalised(rgb):
    planes = (rgb.astype(numpy.float32) / 255 - MEAN) / STD
    return numpy.ascontiguousarray(planes.transpose(2, 0, 1))


def pillow(data, by):
    image = Image.open(io.BytesIO(data))
    across, down = fitted(*image.size)
    if by > 1:
        image.draft("RGB", (image.width // by, image.height // by))
    image = ImageOps.exif_transpose(image).convert("RGB").resize((across, down), Image.BILINEAR)
    left, top = (across - 224) // 2, (down - 224) // 2
    return normalised(numpy.asarray(image.crop((left, top, left + 224, top + 224))))


def opencv(data, by, how):
    image = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), REDUCED[by])
    across, down = fitted(image.shape[1], image.shape[0])
    image = cv2.resize(image, (across, down), interpolation=how)
    left, top = (across - 224) // 2, (down - 224) // 2
    image = image[top : top + 224, left : left + 224]
    return normalised(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


class Ours:
    """The bench program of the vision crate, asked round by round."""

    def __init__(self):
        command = ["cargo", "bench", "--quiet", "-p", "adit-vision", "--bench", "image", "--", "--serve"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def time(self, way, photo):
        print(way, 224, photo, file=self.process.stdin, flush=True)
        return sum(float(number) for number in self.process.stdout.readline().split()) / 1e3

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def timed(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def interval(ratios):
    draw = random.Random(7)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[49], medians[1949]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("photos", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    photos = options.photos or [
        ROOT / "../shared/data/images/photos" / name for name in ("harbour_12mp.jpg", "cat_1080p.jpg", "dog.jpg")
    ]
    cv2.setNumThreads(1)
    ours = Ours()
    print("| photo | row | ours ms | against | ms | ours / theirs | 95 % |")
    print("|---|---|---|---|---|---|---|")
    for photo in photos:
        photo = photo.resolve()
        data = photo.read_bytes()
        by = divided(*Image.open(io.BytesIO(data)).size)
        table(ours, photo, data, "full", 1, options.rounds)
        if by > 1:
            table(ours, photo, data, "scaled", by, options.rounds)
    ours.stop()


def table(ours, photo, data, way, by, rounds):
    ways = {
        "ours": lambda: ours.time(way, photo),
        "Pillow": lambda: timed(lambda: pillow(data, by)),
        "OpenCV area": lambda: timed(lambda: opencv(data, by, cv2.INTER_AREA)),
        "OpenCV linear": lambda: timed(lambda: opencv(data, by, cv2.INTER_LINEAR)),
    }
    times = {name: [] for name in ways}
    for number in range(rounds + 1):
        # Whoever comes second finds the machine as the first left it: take turns.
        order = list(ways) if number % 2 else list(reversed(ways))
        for name in order:
            taken = ways[name]()
            if number:  # the first round warms up
                times[name].append(taken * 1e3)
    row = way if by == 1 else f"{way} 1/{by}"
    for name in list(ways)[1:]:
        ratios = [mine / theirs for mine, theirs in zip(times["ours"], times[name])]
        low, high = interval(ratios)
        print(
            f"| {photo.name} | {row} | {statistics.median(times['ours']):.2f} | {name} | {statistics.median(times[name]):.2f} "
            f"| {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
