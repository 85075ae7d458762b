#!/usr/bin/env python3
"""What batches and workers give: many clients at one agent over fixed choices of both, and what the agent chooses itself.

    cargo build --release && benches/batching.py [--models squeezenet1_1,mobilenet_v2,digits] [--rounds N]

Starts one agent on loopback, without a relay, that serves the same weights under many names: for each largest batch and number
of workers a model of its own, and one that says neither. So all choices are measured in one process, one after another, and
the rounds repeat them in another order each. Two questions are answered, each by the ratio within a round, whose median and 95 %
interval (a bootstrap over the rounds) are printed:

 * 64 requests at a time: what share of the best choice's answers a second does the automatic one give? Wanted: 0.9.
 * one request at a time: how long does its median request take, compared with one worker that runs no batches? Wanted: 1.

The weights of all but the digits are in ../shared/data; a model whose weights are not there is passed over.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCHES, INSTANCES = (1, 2, 4, 8), (1, 2)
AUTOMATIC, OFF = "automatic", "b1-i1"
POINTS = {
    f"b{batch}-i{workers}": {"max_batch": batch, "instances": workers} for batch in BATCHES for workers in INSTANCES
} | {AUTOMATIC: None}
FOLDERS = {"digits": ROOT / "agent/models/digits"}


def folder_of(model):
    return FOLDERS.get(model, ROOT / "e2e/models" / model)


def toml_value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


def write_model(folder, source, batching):
    """The description in `source`, with absolute paths and another [batching]."""
    spec = tomllib.loads((source / "model.toml").read_text())
    spec["versions"] = str((source / spec.get("versions", ".")).resolve())
    spec["labels"] = str((source / spec.get("labels", "labels.txt")).resolve())
    spec.pop("batching", None)
    if batching is not None:
        spec["batching"] = batching
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text("".join(f"{key} = {toml_value(value)}\n" for key, value in spec.items()))


def with_weights(names):
    """Those of the models, with commas between them, whose weights are there."""
    names = names.split(",")
    models = [name for name in names if has_weights(name)]
    for model in set(names) - set(models):
        print(f"{model} is passed over: its weights are not in {folder_of(model)} or where it says")
    return models


def has_weights(model):
    source = folder_of(model)
    versions = tomllib.loads((source / "model.toml").read_text()).get("versions", ".")
    return any((source / versions).glob("*/model.safetensors"))


def stroke_png(side):
    """A dark stroke on white: a digit for who looks for one, and for the others as good as any picture, but soon decoded."""
    ink = range(side // 5, side - side // 5)
    row = lambda y: bytes(20 if y in ink and x in range(side // 2, side // 2 + side // 12) else 240 for x in range(side))
    rows = b"".join(b"\0" + row(y) for y in range(side))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def programs(given):
    """The folder of the programs."""
    release = given or pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    if not (release / "adit-agent").exists():
        sys.exit(f"there is no adit-agent in {release}: run cargo build --release first")
    return release


class Agent:
    """An agent without relays that serves the models of a folder, as a process of its own."""

    def __init__(self, folder, release):
        self.release, self.url = release, f"http://127.0.0.1:{free_port()}"
        (folder / "agent.toml").write_text(f'[local]\nlisten = "{self.url.removeprefix("http://")}"\n')
        command = [release / "adit-agent", "run", "--config", folder / "agent.toml", "--models", folder / "models"]
        with open(folder / "agent.log", "wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self.wait(folder)
        except BaseException:
            self.stop()
            raise

    def wait(self, folder):
        """Until all of its models can be asked."""
        for _ in range(1200):
            try:
                with urllib.request.urlopen(self.url + "/v2/health/ready", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit(f"the agent was not ready after 120 s: see {folder}")
        index = urllib.request.Request(self.url + "/v2/repository/index", method="POST", data=b"")
        with urllib.request.urlopen(index, timeout=5) as answer:
            broken = [entry for entry in json.load(answer) if entry["state"] != "READY"]
        if broken:
            sys.exit(f"not every model could be loaded: {broken}")

    def measure(self, model, image, concurrency, requests):
        command = [self.release / "adit", "test", "--url", self.url, "--model", model, "--image", image]
        command += ["-n", requests, "-c", concurrency, "--json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"asking {model} failed: {done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def stop(self):
        self.process.kill()
        self.process.wait()


def interval(ratios, seed=11):
    """The median of the rounds' ratios and the 95 % interval of it."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(4000))
    return statistics.median(ratios), medians[100], medians[-101]


def crowd(agent, model, image, options):
    """Answers a second of every choice, by round."""
    rates, order = {point: [] for point in POINTS}, list(POINTS)
    shuffle = random.Random(7)
    for number in range(options.rounds + options.warm):
        shuffle.shuffle(order)
        for point in order:
            report = agent.measure(f"{model}-{point}", image, options.clients, options.requests)
            if number >= options.warm:
                rates[point].append(report["requests_per_second"])
    middle = {point: statistics.median(values) for point, values in rates.items()}
    best = max((point for point in POINTS if point != AUTOMATIC), key=middle.get)
    print(f"\n{model}, {options.clients} at a time: answers a second (median of {options.rounds} rounds)\n")
    print("| workers | " + " | ".join(f"batches of {batch}" for batch in BATCHES) + " |")
    print("|---|" + "---|" * len(BATCHES))
    for workers in INSTANCES:
        print(f"| {workers} | " + " | ".join(f"{middle[f'b{batch}-i{workers}']:.1f}" for batch in BATCHES) + " |")
    ratio, low, high = interval([ours / theirs for ours, theirs in zip(rates[AUTOMATIC], rates[best])])
    print(f"\nautomatic: {middle[AUTOMATIC]:.1f}, which is {ratio:.3f} of the best ({best}), interval {low:.3f} to {high:.3f}")


def lone(agent, model, image, options):
    """The median delay of a request that is alone, by round, with and without."""
    delays = {AUTOMATIC: [], OFF: []}
    for number in range(options.rounds + 1):
        order = [AUTOMATIC, OFF] if number % 2 else [OFF, AUTOMATIC]
        for point in order:
            report = agent.measure(f"{model}-{point}", image, 1, options.alone)
            if number:
                delays[point].append(report["delay_ms"]["p50"])
    ratio, low, high = interval([ours / theirs for ours, theirs in zip(delays[AUTOMATIC], delays[OFF])])
    middle = {point: statistics.median(values) for point, values in delays.items()}
    print(
        f"{model}, one at a time: p50 {middle[AUTOMATIC]:.2f} ms automatic, {middle[OFF]:.2f} ms with batches off and one "
        f"worker: ratio {ratio:.3f}, interval {low:.3f} to {high:.3f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="squeezenet1_1,mobilenet_v2,digits", help="which, with commas between them")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each with every choice (9)")
    parser.add_argument("--warm", type=int, default=2, help="rounds before them, in which sizes are found out (2)")
    parser.add_argument("--clients", type=int, default=64, help="requests at a time (64)")
    parser.add_argument("--requests", type=int, default=512, help="requests of each measurement (512)")
    parser.add_argument("--alone", type=int, default=100, help="requests of each measurement one at a time (100)")
    parser.add_argument("--image", type=pathlib.Path, help="the picture (a stroke on white, of 280 x 280 pixels)")
    parser.add_argument("--release", type=pathlib.Path, help="folder of the programs (target/release)")
    options = parser.parse_args()
    release = programs(options.release)
    models = with_weights(options.models)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="adit-batching-"))
    if options.image is None:
        options.image = folder / "stroke.png"
        options.image.write_bytes(stroke_png(280))
    for model in models:
        for point, batching in POINTS.items():
            write_model(folder / "models" / f"{model}-{point}", folder_of(model), batching)
    agent = Agent(folder, release)
    try:
        for model in models:
            crowd(agent, model, options.image, options)
            lone(agent, model, options.image, options)
    finally:
        agent.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
