"""Writes outputs.json: what torchvision's, timm's and YOLOX's own networks give with weights that a formula makes, and what YOLOv8
and the SSDs of pytorch-ssd give as yolov8.py and ssd.py have them.

The same formula stands in ../references/formula.rs, so that no weights need to be kept.

pip install torch torchvision timm loguru tabulate thop psutil opencv-python-headless
pip download --no-deps --no-binary :all: --no-build-isolation yolox==0.3.0   (unpack it, and put it in PYTHONPATH)
python formula.py NAME...   these, or all; the others stay as they are in the file
"""

import json
import math
import pathlib
import sys

import numpy as np
import torch

MASK = (1 << 64) - 1


def seed(name):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def uniform(name, count):
    """From -1 to before 1: SplitMix64 at the places that follow the name's hash, of which 24 bits are taken."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / float(1 << 23) - 1.0


def tensor(name, shape, gain):
    values = uniform(name, int(np.prod(shape)))
    part = name.rsplit(".", 1)[-1]
    if part == "running_var":
        values = 1.0 + 0.25 * values
    elif part == "gamma" or (part == "weight" and len(shape) == 1):
        values = 1.0 + 0.25 * values
    elif part == "weight":
        values = values * np.sqrt(gain / np.prod(shape[1:]))
    else:
        values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def filled(network, gain):
    state = {
        name: tensor(name, tuple(value.shape), getattr(network, "gains", {}).get(name, gain)) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network.eval()


def picture(side):
    """Of one side, or of a height and a width."""
    height, width = side if isinstance(side, tuple) else (side, side)
    return torch.from_numpy(uniform("input", 3 * height * width).astype(np.float32).reshape(1, 3, height, width))


def torchvision(name):
    from torchvision import models

    return getattr(models, name)()


def transforming(name):
    """One that makes a mean and a deviation of 0.5 of ImageNet's: it is handed ImageNet's, made of what ours is handed."""
    from torchvision import models

    network = getattr(models, name)(aux_logits=False, init_weights=False, transform_input=True)
    mean, deviation = (torch.tensor(all).view(3, 1, 1) for all in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    network.register_forward_pre_hook(lambda _, inputs: ((inputs[0] * 0.5 + 0.5 - mean) / deviation,))
    return network


def of_timm(name):
    import timm

    return timm.create_model(name)


def yolox(depth, width, depthwise):
    from yolox.models import YOLOPAFPN, YOLOX, YOLOXHead

    channels = [256, 512, 1024]
    network = YOLOX(
        YOLOPAFPN(depth, width, in_channels=channels, depthwise=depthwise),
        YOLOXHead(80, width, in_channels=channels, depthwise=depthwise),
    )
    # As the release's own experiments set it.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    network.head.decode_in_inference = False
    return network


def yolov8(size):
    from yolov8 import Yolov8

    return Yolov8(size)


def ssd(name):
    import ssd

    return getattr(ssd, name)()


def faster_rcnn():
    from faster_rcnn import FasterRcnn

    return FasterRcnn()


def sampled(output, gain):
    """Every so many numbers, and the largest."""
    flat = output.flatten()
    # No divisor in common, or it would be the same few columns of each row.
    step = next(step for step in range(max(1, flat.numel() // 300), flat.numel()) if math.gcd(step, flat.numel()) == 1)
    numbers = [float(f"{number:.7g}") for number in flat[::step].tolist()]
    return {"gain": gain, "elements": flat.numel(), "step": step, "largest": float(flat.abs().max()), "values": numbers}


# How to make it, the side of its picture, and a gain with which its numbers neither vanish nor explode.
NETWORKS = {
    "resnet18": (lambda: torchvision("resnet18"), 224, 5.0),
    "resnet34": (lambda: torchvision("resnet34"), 224, 4.0),
    "resnet50": (lambda: torchvision("resnet50"), 224, 4.0),
    "resnet101": (lambda: torchvision("resnet101"), 224, 3.0),
    "resnet152": (lambda: torchvision("resnet152"), 224, 3.0),
    "vgg11": (lambda: of_timm("vgg11"), 224, 6.0),
    "vgg16": (lambda: of_timm("vgg16"), 224, 6.0),
    "squeezenet1_0": (lambda: torchvision("squeezenet1_0"), 224, 6.0),
    "squeezenet1_1_torchvision": (lambda: torchvision("squeezenet1_1"), 224, 6.0),
    "googlenet": (lambda: transforming("googlenet"), 224, 6.0),
    "inception_v3": (lambda: transforming("inception_v3"), 299, 6.0),
    "mobilenetv1_100": (lambda: of_timm("mobilenetv1_100"), 224, 7.0),
    "mobilenet_v2_torchvision": (lambda: torchvision("mobilenet_v2"), 224, 7.0),
    "mobilenet_v3_large": (lambda: torchvision("mobilenet_v3_large"), 224, 6.0),
    "mobilenet_v3_small": (lambda: torchvision("mobilenet_v3_small"), 224, 7.0),
    "yolox_nano": (lambda: yolox(0.33, 0.25, True), 416, 5.7),
    "yolox_tiny": (lambda: yolox(0.33, 0.375, False), 416, 6.3),
    "yolox_m": (lambda: yolox(0.67, 0.75, False), 640, 5.8),
    "yolov8n": (lambda: yolov8("n"), 640, 7.0),
    "ssd_mobilenet_v1": (lambda: ssd("v1"), 300, 6.0),
    "ssdlite_mobilenet_v2": (lambda: ssd("lite_v2"), 300, 6.0),
    "ssdlite320_mobilenet_v3_large": (lambda: ssd("Torchvision"), 320, 6.0),
    "fasterrcnn_resnet50_fpn": (faster_rcnn, (800, 1344), 4.0),
    "yolov8m": (lambda: yolov8("m"), 640, 6.8),
}


def main():
    file = pathlib.Path(__file__).with_name("outputs.json")
    outputs = json.loads(file.read_text()) if file.exists() else {}
    for name in sys.argv[1:] or NETWORKS:
        make, side, gain = NETWORKS[name]
        with torch.no_grad():
            network = filled(make(), gain)
            output = network(picture(side))
            other = network(torch.zeros_like(picture(side)))
        outputs[name] = sampled(output, gain)
        if hasattr(network, "boxes"):
            with torch.no_grad():
                corners, scores = network.boxes(output)
            outputs[f"{name} corners"], outputs[f"{name} scores"] = sampled(corners, gain), sampled(scores, gain)
        if hasattr(network, "found"):
            with torch.no_grad():
                outputs[f"{name} found"] = network.found(picture(side))
        # If the output hung on the biases alone, agreement would show little.
        print(f"{name}: up to {output.abs().max():.4g}, of which the picture makes {(output - other).abs().max():.4g}")
        assert (output - other).abs().max() > 0.1 * output.abs().max()
    text = ",\n".join(f'"{name}": {json.dumps(output)}' for name, output in outputs.items())
    file.write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
