#!/usr/bin/env python3
"""A network's forward pass on a processor: our kernels against onnxruntime, OpenVINO, PyTorch and OpenCV, alternating in one run.

    pip install torch torchvision numpy safetensors onnx onnxruntime openvino opencv-python-headless
    benches/peers.py [--networks googlenet,...] [--peers onnxruntime,openvino] [--threads 1,2] [--batches 1,8] [--rounds N]

Networks and weights are those of vision/tests/formula/formula.py: PyTorch makes the files that everybody reads, ours as
safetensors, the others as ONNX of one batch size, and no pass is timed before every output is within 1e-4 of PyTorch's, relative
to the largest. YOLOX is made by its own package, whose wheel does not install any more; without it, it is passed over:

    pip install wheel loguru tabulate psutil thop
    pip download --no-deps --no-binary :all: --no-build-isolation yolox==0.3.0   (unpack it, and put it in PYTHONPATH)

Every engine is a process of its own, in f32, with as many threads as the row says. In each round each has its turn, in one order
and in the next round in the other: one pass that does not count, and then passes for 0.3 s, but three at the least. Prints the
medians of the rounds' medians in ms, and the median of the per-round ratios (ours / the faster of onnxruntime and OpenVINO, or of
the peers that were asked for; below 1 we are quicker) with an interval of 95 % from resampling the rounds. A second table has
what a user feels besides: p50 and p99 over all passes (p99 where there are 1,000: `--rounds 50 --passes 20 --seconds 0`), the time it
takes to load the network (of PyTorch nothing: the formula makes it), and the most memory, over that of the program before it.
"""

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "vision/tests/formula"))
# The name in formula.py and of our architecture, and what part of the faster peer's time is wanted at batch 1.
NETWORKS = {
    "googlenet": 0.65,
    "squeezenet1_1_torchvision": 0.65,
    "mobilenet_v2_torchvision": 0.85,
    "resnet50": 0.85,
    "inception_v3": 0.85,
    "yolox_nano": 0.85,
    "yolov8n": 0.65,
}
CLOSE = 1e-4


# The engines: each is given a network and images, and answers with what loads it, which answers with what makes a pass.


def onnxruntime(model, images, threads):
    import onnxruntime

    def load():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {session.get_inputs()[0].name: images})

    return load


def openvino(model, images, threads):
    import openvino

    def load():
        # Without the hint a processor with AMX would compute in bf16.
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model), "CPU", options | {"INFERENCE_NUM_THREADS": threads})
        request = compiled.create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(images))

        def once():
            request.infer()
            return [request.get_output_tensor(place).data for place in range(len(compiled.outputs))]

        return once

    return load


def torch(model, images, threads):
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    made, _ = network(pathlib.Path(model).stem)

    def load():
        # Mostly the quicker of its layouts.
        inside = made.to(memory_format=torch.channels_last)
        batch = torch.from_numpy(images).to(memory_format=torch.channels_last)
        return lambda: [output.numpy() for output in levels(inside(batch))]

    return load


def opencv(model, images, threads):
    import cv2

    cv2.setNumThreads(threads)

    def load():
        inside = cv2.dnn.readNetFromONNX(model)
        names = inside.getUnconnectedOutLayersNames()

        def once():
            inside.setInput(images)
            return inside.forward(names)

        return once

    return load


PEERS = {"onnxruntime": onnxruntime, "openvino": openvino, "torch": torch, "opencv": opencv}


def megabytes(field):
    """What the kernel says of this program's memory."""
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def serve(engine, threads, model, given, output):
    """A peer's process; it speaks as vision/benches/forward.rs does, which says how."""
    import numpy

    side = network_side(pathlib.Path(model).stem)
    images = numpy.fromfile(given, numpy.float32).reshape(-1, 3, side, side)
    load = PEERS[engine](model, images, int(threads))
    start, begun = megabytes("VmRSS"), time.perf_counter()
    once = load()
    loaded = (time.perf_counter() - begun) * 1e3
    # OpenCV's names of outputs come in an order of its own: the larger first, as ours are.
    outputs = sorted(once(), key=lambda output: -output.size)
    numpy.concatenate([output.ravel() for output in outputs]).astype(numpy.float32).tofile(output)
    print(loaded, flush=True)
    for line in sys.stdin:
        passes, seconds = line.split()
        once()
        times, all = [], time.perf_counter()
        while len(times) < int(passes) or time.perf_counter() - all < float(seconds):
            begun = time.perf_counter()
            once()
            times.append((time.perf_counter() - begun) * 1e3)
        print(megabytes("VmHWM") - start, *times, flush=True)


# What is measured.


def network_side(name):
    import formula

    return formula.NETWORKS[name][1]


def network(name):
    """In PyTorch, with weights, and the side of its pictures; it gives one output or, of a detector, its levels."""
    import formula
    import torch

    class Levels(torch.nn.Module):
        """As ours and no further: published networks put the levels one behind the other, transposed."""

        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, x):
            if hasattr(self.inside, "levels"):
                return self.inside.levels(x)
            head, outputs = self.inside.head, []
            for place, level in enumerate(self.inside.backbone(x)):
                stem = head.stems[place](level)
                boxes, classes = head.reg_convs[place](stem), head.cls_convs[place](stem)
                sure = [head.obj_preds[place](boxes).sigmoid(), head.cls_preds[place](classes).sigmoid()]
                outputs.append(torch.cat([head.reg_preds[place](boxes), *sure], 1))
            return outputs

    make, side, gain = formula.NETWORKS[name]
    made = formula.filled(make(), gain)
    if hasattr(made, "transform_input"):
        # Pictures are prepared as it was trained, here as in ours; the hook made of them what it would take otherwise.
        made.transform_input = False
        made._forward_pre_hooks.clear()
    return (Levels(made) if name.startswith("yolo") else made), side


def levels(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


class Files:
    """Everything that the engines read, and what they are to answer."""

    def __init__(self, folder, name, images):
        import formula
        import numpy
        import torch
        from safetensors.torch import save_file

        made, side = network(name)
        self.name, self.folder, self.model = name, folder, folder / f"{name}.onnx"
        self.weights, self.images = folder / "weights.safetensors", folder / "images"
        state = (made.inside if name.startswith("yolo") else made).state_dict()
        save_file({key: value for key, value in state.items() if value.is_floating_point()}, self.weights)
        batch = formula.uniform("input", images * 3 * side * side).astype(numpy.float32).reshape(images, 3, side, side)
        batch.tofile(self.images)
        batch = torch.from_numpy(batch)
        with torch.no_grad():
            self.wanted = torch.cat([output.flatten() for output in levels(made(batch))]).numpy()
            with warnings.catch_warnings():
                # The older of the two exporters: it writes one plain node for each layer.
                warnings.simplefilter("ignore", DeprecationWarning)
                torch.onnx.export(made, (batch,), str(self.model), dynamo=False)

    def far(self, output):
        """How far an engine's answer is from PyTorch's."""
        import numpy

        found = numpy.fromfile(output, numpy.float32)
        if found.size != self.wanted.size:
            return float("inf")
        return float(abs(found - self.wanted).max() / abs(self.wanted).max())


class Engine:
    """A process that makes passes when it is asked to."""

    def __init__(self, name, files, threads):
        output = files.folder / f"{name}.output"
        if name == "ours":
            command = ["cargo", "bench", "--quiet", "--bench", "forward", "--"]
            command += [files.name, files.weights, files.images, output]
        else:
            command = [sys.executable, __file__, "--serve", name, threads, files.model, files.images, output]
        both = {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.name, self.medians, self.passes, self.peak = name, [], [], 0.0
        self.process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=os.environ | both, **pipes)
        self.loaded = float(self.answer())
        far = files.far(output)
        if not far < CLOSE:
            sys.exit(f"{name} computes something else: {files.name} differs by {far:.1e} of the largest output")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} has ended")
        return line

    def turn(self, passes, seconds, counts):
        print(passes, seconds, file=self.process.stdin, flush=True)
        self.peak, *times = map(float, self.answer().split())
        if counts:
            self.medians.append(statistics.median(times))
            self.passes += times
        # Threads that wait for more to do spin for a while: not in the next one's turn.
        time.sleep(0.05)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def interval(ratios):
    draw = random.Random(7)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[49], medians[1949]


def measured(files, threads, options):
    """All engines, run in turns."""
    engines = [Engine(name, files, threads) for name in ["ours", *options.peers]]
    for number in range(options.rounds + 1):
        # Whoever comes second finds the machine as the first left it.
        for engine in engines if number % 2 else reversed(engines):
            engine.turn(options.passes, options.seconds, number > 0)  # the first round warms up
    for engine in engines:
        engine.stop()
    return engines


def row(files, images, threads, engines):
    ours, *peers = engines
    bar = [peer for peer in peers if peer.name in ("onnxruntime", "openvino")] or peers
    faster = min(bar, key=lambda peer: statistics.median(peer.medians))
    ratios = [mine / theirs for mine, theirs in zip(ours.medians, faster.medians)]
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    goal = "-"
    if images == 1 and len(bar) == 2:
        wanted = NETWORKS[files.name]
        goal = f"{wanted}: " + ("met" if ratio <= wanted else f"missed by {ratio - wanted:.3f}")
    times = " | ".join(f"{statistics.median(engine.medians):.2f}" for engine in engines)
    against = f"{ratio:.2f}, {low:.2f} to {high:.2f} ({faster.name})"
    print(f"| {files.name} | {images} | {threads} | {times} | {against} | {goal} |", flush=True)


def besides(files, images, threads, engine):
    passes = engine.passes
    p99 = f"{statistics.quantiles(passes, n=100)[98]:.2f}" if len(passes) >= 1000 else "-"
    return (
        f"| {files.name} | {images} | {threads} | {engine.name} | {len(passes)} | {statistics.median(passes):.2f} | {p99} "
        f"| {engine.loaded:.0f} | {engine.peak:.0f} |"
    )


def numbers(text):
    return [int(number) for number in text.split(",")]


def words(known):
    def among(text):
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose among {', '.join(known)}")
        return chosen

    return among


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bar = ["onnxruntime", "openvino"]
    parser.add_argument("--networks", type=words(NETWORKS), default=list(NETWORKS), help="with commas between them (all)")
    parser.add_argument("--peers", type=words(PEERS), default=bar, help="against whom (onnxruntime,openvino)")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="of each engine (1,2)")
    parser.add_argument("--batches", type=numbers, default=[1, 8], help="images in a pass (1,8)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (15)")
    parser.add_argument("--passes", type=int, default=3, help="passes of a turn, at the least (3)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn, at the least (0.3)")
    options = parser.parse_args()
    subprocess.run(["cargo", "bench", "--quiet", "--bench", "forward", "--no-run"], cwd=ROOT, check=True)
    print("load of the machine before: %.2f %.2f %.2f\n" % os.getloadavg())
    print(f"| network | batch | threads | ours ms | {' ms | '.join(options.peers)} ms | ours / faster, 95 % | goal |")
    print("|---" * (6 + len(options.peers)) + "|", flush=True)
    second = []
    for name in options.networks:
        for images in options.batches:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    files = Files(pathlib.Path(folder), name, images)
                except ModuleNotFoundError as missing:
                    print(f"{name} is passed over: {missing}", file=sys.stderr)
                    break
                for threads in options.threads:
                    engines = measured(files, threads, options)
                    row(files, images, threads, engines)
                    second += [besides(files, images, threads, engine) for engine in engines]
    print("\n| network | batch | threads | engine | passes | p50 ms | p99 ms | loaded in ms | MB at most |")
    print("|---" * 9 + "|")
    print("\n".join(second))
    print("\nload of the machine after: %.2f %.2f %.2f" % os.getloadavg())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
