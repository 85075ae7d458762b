#!/usr/bin/env python3
"""What the path costs: relay and tunnel against the agent's own listener, alternating in one run.

    cargo build --release && benches/path.py [--rounds N] [--requests N]

Starts a relay and an agent as separate processes on loopback, with a stand-in model whose forward pass takes no time, so
that all there is to measure is the path. Each round asks the same questions of both ways in turn: one request at a time and
sixteen at a time, with a digit of a few KB and with a body of some 150 KB. Prints medians over the rounds, and the median of
the per-round ratios, which is what can be compared between machines.
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
import urllib.request
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAND_IN = """architecture = "stand_in"
[stand_in]
forward = "0ms"
"""


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def noise_png(side):
    """A picture that does not compress, so that its size is known: about 3 * side * side bytes."""
    noise = random.Random(7)
    rows = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


class House:
    """A relay and an agent as processes of their own."""

    def __init__(self, folder, release):
        self.folder, self.release, self.processes = folder, release, []
        self.https, self.local = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
        self.admin, self.tunnel = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)

    def run(self, program, *arguments):
        done = subprocess.run([self.release / program, *map(str, arguments)], capture_output=True, text=True, check=True)
        return done.stdout

    def start(self):
        certs, models = self.folder / "certs", self.folder / "models" / "still"
        models.mkdir(parents=True)
        (models / "model.toml").write_text(STAND_IN)
        self.run("adit-certs", "init", "--dir", certs, "--name", "localhost", "127.0.0.1")
        self.run("adit-certs", "issue", "agent", "bench", "--dir", certs)
        (self.folder / "relay.toml").write_text(
            f'tls = "{certs}/relay"\nstate = "{self.folder}/relay"\n'
            f'[front]\nlisten = "127.0.0.1:{self.https}"\n[tunnel]\nlisten = "127.0.0.1:{self.tunnel}"\n'
            f'[admin]\nlisten = "127.0.0.1:{self.admin}"\n'
        )
        (self.folder / "agent.toml").write_text(
            f'[[relay]]\naddress = "127.0.0.1:{self.tunnel}"\n[local]\nlisten = "127.0.0.1:{self.local}"\n'
        )
        self.key = self.run("adit-relay", "key", "new", "bench", "--keys", self.folder / "relay" / "keys.toml").strip()
        self.spawn("adit-relay", "run", "--config", self.folder / "relay.toml")
        tls, models = certs / "agents" / "bench", self.folder / "models"
        self.spawn("adit-agent", "run", "--config", self.folder / "agent.toml", "--tls-dir", tls, "--models", models)
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/fleet", timeout=5) as fleet:
                    if "READY" in fleet.read().decode():
                        return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"the agent was not ready after 30 s: see {self.folder}")

    def spawn(self, program, *arguments):
        with open(self.folder / f"{program}.log", "wb") as log:
            command = [self.release / program, *map(str, arguments)]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def measure(self, way, image, concurrency, requests):
        if way == "relay":
            reach = ["--url", f"https://localhost:{self.https}", "--ca", self.folder / "certs/relay/ca.pem", "--key", self.key]
        else:
            reach = ["--url", f"http://127.0.0.1:{self.local}"]
        report = self.run(
            "adit", "test", *reach, "--model", "still", "--image", image, "-n", requests, "-c", concurrency, "--json"
        )
        return json.loads(report)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each with both ways (7)")
    parser.add_argument("--requests", type=int, default=1000, help="requests of each measurement (1000)")
    parser.add_argument("--release", type=pathlib.Path, help="folder of the programs (target/release)")
    options = parser.parse_args()
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    release = options.release or pathlib.Path(target) / "release"
    if not (release / "adit-relay").exists():
        sys.exit(f"there is no adit-relay in {release}: run cargo build --release first")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="adit-path-"))
    house = House(folder, release)
    try:
        house.start()
        images = {"small": folder / "small.png", "150 KB": folder / "large.png"}
        images["small"].write_bytes(noise_png(18))
        images["150 KB"].write_bytes(noise_png(224))
        print("| image | at a time | local p50 / p99 ms | relay p50 / p99 ms | p50 ratio | local req/s | relay req/s | rate ratio |")
        print("|---|---|---|---|---|---|---|---|")
        for name, image in images.items():
            for concurrency in (1, 16):
                table(house, name, image, concurrency, options)
    finally:
        house.stop()
    shutil.rmtree(folder)


def table(house, name, image, concurrency, options):
    runs = {"local": [], "relay": []}
    for round_number in range(options.rounds + 1):
        for way in runs:
            report = house.measure(way, image, concurrency, options.requests)
            if round_number:  # the first one warms both ways up
                runs[way].append(figures(report))
    middle = {way: [statistics.median(column) for column in zip(*rows)] for way, rows in runs.items()}
    pairs = list(zip(runs["local"], runs["relay"]))
    p50 = statistics.median(relay[0] / local[0] for local, relay in pairs)
    rate = statistics.median(relay[2] / local[2] for local, relay in pairs)
    local, relay = middle["local"], middle["relay"]
    print(
        f"| {name} | {concurrency} | {local[0]:.2f} / {local[1]:.2f} | {relay[0]:.2f} / {relay[1]:.2f} | {p50:.2f} "
        f"| {local[2]:.0f} | {relay[2]:.0f} | {rate:.2f} |",
        flush=True,
    )


def figures(report):
    """Median delay, 99th percentile (both in ms) and answers a second."""
    return report["delay_ms"]["p50"], report["delay_ms"]["p99"], report["requests_per_second"]


if __name__ == "__main__":
    main()
