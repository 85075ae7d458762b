#!/usr/bin/env python3
"""What a reload costs those who are being answered, and what it leaves behind.

    cargo build --release && benches/reload.py [--reloads N] [--row N] [--gap SECONDS] [--model NAME] [--trainings N]

Starts an agent with one model on its local listener. First measures its capacity (closed loop), then asks at half of that
(open loop: a request is sent when it is due, and timed from then) while new versions of the model are published by a rename,
one after another. Prints failed requests, and the p99 of the requests that were due in a second with a swap, pooled, against that
of all others. Then publishes versions in a row, and prints the agent's memory over them. With ../shared/data the model is the
one that is named, else it is the digits, whose weights are part of the repository.

With `--trainings` the digits are served, and each new version is trained and published beside the serving agent by `adit-agent
train digits`, at the lowest priority; the seconds with its swap are held against all others, those of training among them.
"""

import argparse
import concurrent.futures
import http.client
import json
import math
import os
import pathlib
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
# More than one Python process can send on time.
FASTEST = 150.0
WORKERS = 64


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stroke():
    """A handwritten one, white on black, as a PNG of 28 x 28."""
    rows = b"".join(b"\0" + bytes(255 if 4 <= y < 24 and 13 <= x < 16 else 0 for x in range(28)) for y in range(28))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Subject:
    """The folder of the model that is reloaded."""

    def __init__(self, root, name):
        source = ROOT / "e2e" / "models" / name / "model.toml"
        if DATA.is_dir() and source.exists():
            text = source.read_text().replace("../../../../shared/data", str(DATA))
            places = dict(line.split(" = ", 1) for line in text.splitlines() if line.startswith(("versions", "labels")))
            versions = pathlib.Path(json.loads(places["versions"]))
            self.image = next(path for path in sorted((DATA / "images" / "photos").iterdir()) if path.suffix == ".jpg").read_bytes()
            text = "\n".join(line for line in text.splitlines() if not line.startswith("versions"))
        else:
            name, versions = "digits", ROOT / "agent" / "models" / "digits"
            text = f'labels = "{versions}/labels.txt"\n' + (versions / "model.toml").read_text()
            self.image = stroke()
        self.name, self.folder, self.newest = name, root / name, 0
        self.weights = sorted(versions.glob("*/model.safetensors"))[-1]
        self.folder.mkdir(parents=True)
        (self.folder / "model.toml").write_text(text + "\n")
        self.publish()

    def train(self, release):
        """One more version, from training for one epoch; the one before the last goes."""
        self.newest += 1
        command = ["nice", "-n", "19", release / "adit-agent", "train", "digits", "--data", DATA / "mnist"]
        command += ["--model-path", self.folder, "--epochs", "1", "--version", str(self.newest)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(f"training failed: {done.stderr or done.stdout}")
        shutil.rmtree(self.folder / str(self.newest - 2), ignore_errors=True)

    def publish(self):
        """One more version, whole at once; the one before the last goes."""
        self.newest += 1
        beside = self.folder / "coming"
        beside.mkdir()
        shutil.copyfile(self.weights, beside / "model.safetensors")
        beside.rename(self.folder / str(self.newest))
        shutil.rmtree(self.folder / str(self.newest - 2), ignore_errors=True)


class Agent:
    def __init__(self, folder, subject, release):
        self.subject, self.port = subject, free_port()
        (folder / "agent.toml").write_text(
            f'[local]\nlisten = "127.0.0.1:{self.port}"\n[serving]\nmodels = "{subject.folder.parent}"\n'
        )
        self.log = open(folder / "agent.log", "wb")
        command = [release / "adit-agent", "run", "--config", folder / "agent.toml"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self.kept = threading.local()
        self.until_newest(60)

    def ask(self, method, path, body=b"", headers=None):
        """Status and body, over a connection that this thread keeps."""
        for attempt in (0, 1):
            connection = getattr(self.kept, "connection", None)
            if connection is None:
                connection = self.kept.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection.request(method, path, body, headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self.kept.connection = None
                # Only a kept connection may have been ended by the other side while nobody asked.
                if attempt:
                    raise

    def infer(self):
        path = f"/v2/models/{self.subject.name}/infer"
        return self.ask("POST", path, self.subject.image, {"content-type": "image/jpeg"})[0]

    def until_newest(self, limit):
        end = time.monotonic() + limit
        wanted = str(self.subject.newest)
        while time.monotonic() < end:
            try:
                _, body = self.ask("POST", "/v2/repository/index")
                versions = [(entry["version"], entry["state"]) for entry in json.loads(body)]
                if versions == [(wanted, "READY")]:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        sys.exit(f"version {self.subject.newest} was not served within {limit} s")

    def memory(self):
        """Resident bytes."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        sys.exit("no VmRSS")

    def stop(self):
        self.process.kill()
        self.process.wait()


def capacity(agent, seconds):
    """Requests a second that it answers when four always wait."""
    end = time.monotonic() + seconds

    def one(_):
        count = 0
        while time.monotonic() < end:
            agent.infer()
            count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        begun = time.monotonic()
        return sum(pool.map(one, range(4))) / (time.monotonic() - begun)


def p99(times):
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]


def reloads(agent, rate, count, gap, publish):
    """Samples (due, seconds, status) of an open loop, and the intervals of the swaps."""
    samples, swaps, stop = [], [], threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS)

    def one(due):
        try:
            status = agent.infer()
        except (OSError, http.client.HTTPException) as error:
            status = repr(error)
        samples.append((due, time.monotonic() - due, status))

    def pace():
        due = time.monotonic()
        while not stop.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(one, due)
            due += 1 / rate

    pacer = threading.Thread(target=pace)
    pacer.start()
    time.sleep(gap)
    for number in range(count):
        begun = publish()
        agent.until_newest(120)
        swaps.append((begun, time.monotonic()))
        time.sleep(gap)
    stop.set()
    pacer.join()
    pool.shutdown()
    return samples, swaps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=30, help="reloads under load (30)")
    parser.add_argument("--row", type=int, default=100, help="reloads in a row, for memory (100)")
    parser.add_argument("--gap", type=float, default=8.0, help="seconds between two reloads under load (8)")
    parser.add_argument("--trainings", type=int, default=0, help="instead, versions of the digits trained under load (0)")
    parser.add_argument("--model", default="mobilenet_v2", help="a folder of e2e/models (mobilenet_v2)")
    parser.add_argument("--release", type=pathlib.Path, help="folder of the programs (target/release)")
    options = parser.parse_args()
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    release = options.release or pathlib.Path(target) / "release"
    if not (release / "adit-agent").exists():
        sys.exit(f"there is no adit-agent in {release}: run cargo build --release first")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="adit-reload-"))
    if options.trainings:
        options.model, options.reloads, options.row = "digits", options.trainings, 0
    subject = Subject(folder / "models", options.model)
    agent = Agent(folder, subject, release)
    sound = True
    try:
        if options.reloads:
            sound &= under_load(agent, options, release)
        if options.row:
            sound &= in_a_row(agent, options)
    finally:
        agent.stop()
    shutil.rmtree(folder)
    sys.exit(0 if sound else 1)


def under_load(agent, options, release):
    def publish():
        begun = time.monotonic()
        if options.trainings:
            agent.subject.train(release)
            # Its version was in the folder when it ended, at the latest.
            return time.monotonic() - 1
        agent.subject.publish()
        return begun

    capacity(agent, 3)
    full = capacity(agent, 10)
    rate = min(full / 2, FASTEST)
    print(f"{agent.subject.name}: capacity {full:.1f}/s, asked at {rate:.1f}/s")
    samples, swaps = reloads(agent, rate, options.reloads, options.gap, publish)
    seconds = {second for begun, ended in swaps for second in range(int(begun), int(ended) + 1)}
    during = [took for due, took, status in samples if status == 200 and int(due) in seconds]
    between = [took for due, took, status in samples if status == 200 and int(due) not in seconds]
    failed = [status for _, _, status in samples if status != 200]
    swap = statistics.median(ended - begun for begun, ended in swaps)
    ratio = p99(during) / p99(between)
    print(f"{len(swaps)} reloads, median {swap:.2f} s from published to served alone; {len(samples)} requests, {len(failed)} failed")
    print("| | requests | p50 ms | p99 ms |\n|---|---|---|---|")
    for name, times in (("seconds with a swap", during), ("seconds without", between)):
        print(f"| {name} | {len(times)} | {statistics.median(times) * 1e3:.1f} | {p99(times) * 1e3:.1f} |")
    print(f"p99 ratio {ratio:.2f} (at most 2)")
    if failed:
        print("failed:", failed[:5])
    return not failed and ratio <= 2


def in_a_row(agent, options):
    memory = []
    for _ in range(options.row):
        agent.subject.publish()
        agent.until_newest(120)
        if agent.infer() != 200:
            sys.exit("a request failed")
        memory.append(agent.memory() / 2**20)
    fifth = max(1, options.row // 5)
    early, late = statistics.mean(memory[fifth : 2 * fifth]), statistics.mean(memory[-fifth:])
    growth = late / early - 1
    shown = ", ".join(f"{one:.0f}" for one in memory[:: max(1, options.row // 20)])
    print(f"{options.row} reloads in a row, MiB resident: {shown}")
    print(f"mean of the second fifth {early:.1f} MiB, of the last {late:.1f} MiB: {growth * 100:+.1f} % (within 5 %)")
    return abs(growth) <= 0.05


if __name__ == "__main__":
    main()
