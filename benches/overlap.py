#!/usr/bin/env python3
"""What decoding costs a busy agent: answers a second to a large photograph and to small pictures, in turn.

    cargo build --release && benches/overlap.py [--models googlenet_bn,mobilenet_v2] [--image PHOTO] [--rounds N]

Starts one agent on loopback, without a relay, and asks it so many requests at a time that its network is always busy. Every model
is served twice: by one worker with one thread, which leaves the other cores to decoding, as a GPU does; and by as many workers as
there are cores, where decoding can only take its time from them. A picture is decoded and prepared while others are in the network.
So in the first case the rate should not tell the photograph from the small picture. The last column is what the rate would fall to
if each request's stages followed one another on the cores that the network has; in the second case nothing better is to be had.

The photograph and the weights are in ../shared/data; a model whose weights are not there is passed over.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

from batching import ROOT, Agent, folder_of, interval, programs, stroke_png, with_weights, write_model

PHOTO = ROOT / "../shared/data/images/photos/cat_1080p.jpg"
SMALL, LARGE = "small", "photograph"


def before_network(report):
    """Milliseconds for decoding and preparing one picture, in the middle."""
    return sum(row["p50"] for row in report["stages"] if row["stage"] in ("decode", "prepare"))


def compare(agent, model, workers, pictures, options):
    rates, costs = {name: [] for name in pictures}, []
    for number in range(options.rounds + 1):
        for name in (SMALL, LARGE) if number % 2 else (LARGE, SMALL):
            report = agent.measure(model, pictures[name], options.clients, options.requests)
            if number:
                rates[name].append(report["requests_per_second"])
        if number:
            costs.append(before_network(agent.measure(model, pictures[LARGE], 1, 20)))
    small, large, cost = statistics.median(rates[SMALL]), statistics.median(rates[LARGE]), statistics.median(costs)
    ratio, low, high = interval([large / small for large, small in zip(rates[LARGE], rates[SMALL])])
    in_a_row = 1 / (1 + small / workers * cost / 1e3)
    print(
        f"| {model.rpartition('-')[0]} | {workers} | {small:.1f} | {large:.1f} | {cost:.1f} | {ratio:.3f}, {low:.3f} to {high:.3f} | {in_a_row:.2f} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="googlenet_bn,mobilenet_v2", help="which, with commas between them")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each with both pictures (9)")
    parser.add_argument("--clients", type=int, default=8, help="requests at a time (8)")
    parser.add_argument("--requests", type=int, default=300, help="requests of each measurement (300)")
    parser.add_argument("--image", type=pathlib.Path, default=PHOTO, help="the photograph (one of 1920 x 1080)")
    parser.add_argument("--release", type=pathlib.Path, help="folder of the programs (target/release)")
    options = parser.parse_args()
    release, cores = programs(options.release), os.cpu_count()
    if not options.image.exists():
        sys.exit(f"there is no {options.image}: --image names another photograph")
    models = with_weights(options.models)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="adit-overlap-"))
    pictures = {SMALL: folder / "small.png", LARGE: options.image}
    pictures[SMALL].write_bytes(stroke_png(224))
    for model in models:
        for workers in {1, cores}:
            batching = {"max_batch": 1, "instances": workers, "threads": 1}
            write_model(folder / "models" / f"{model}-{workers}", folder_of(model), batching)
    agent = Agent(folder, release)
    try:
        print("| model | workers | small, answers/s | photograph, answers/s | to decode and prepare it, ms | ratio | in a row |")
        print("|---|---|---|---|---|---|---|")
        for model in models:
            for workers in sorted({1, cores}):
                compare(agent, f"{model}-{workers}", workers, pictures, options)
    finally:
        agent.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
