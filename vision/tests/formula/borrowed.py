"""Writes borrowed.json: what timm's and Transformers' networks give with weights that a formula makes.

The formula stands in formula.py and in ../references/formula.rs, so that no weights need to be kept. The tensors of each
network are counted, and their names and shapes summed up, so that the other side can show that it reads just these.

pip install torch torchvision timm "transformers<5"   (from 5 on, it has other names than the published files)
python borrowed.py NAME...    these; the others stay as they are in the file; of -NAME the tensors only
"""

import json
import pathlib
import sys

import timm
import torch

from formula import filled, picture, sampled, seed

FILE = pathlib.Path(__file__).with_name("borrowed.json")
WIDE = [64, 128, 320, 512]
DEPTHS = {
    "mit_b0": [2, 2, 2, 2],
    "mit_b1": [2, 2, 2, 2],
    "mit_b2": [3, 4, 6, 3],
    "mit_b3": [3, 4, 18, 3],
    "mit_b4": [3, 8, 27, 3],
    "mit_b5": [3, 6, 40, 3],
}


def mit(name):
    from transformers import SegformerConfig, SegformerForImageClassification

    channels = [32, 64, 160, 256] if name == "mit_b0" else WIDE
    return SegformerForImageClassification(
        SegformerConfig(hidden_sizes=channels, depths=DEPTHS[name], num_labels=1000)
    )


def dino():
    """DINOv2 with its authors' head: the class token, and the mean of the patches."""
    network = timm.create_model("vit_small_patch14_dinov2", num_classes=1000)
    network.head = torch.nn.Linear(2 * 384, 1000)

    def forward(x):
        x = network.forward_features(x)
        return network.head(torch.cat([x[:, 0], x[:, 1:].mean(1)], 1))

    network.forward = forward
    return network


def make(name):
    """The network, and the side of its picture."""
    if name in DEPTHS:
        return mit(name), 224
    if name == "dinov2_vits14_lc":
        return dino(), 518
    network = timm.create_model(name, num_classes=1000)
    return network, network.default_cfg["input_size"][-1]


def logits(output):
    return getattr(output, "logits", output)


def stored(name):
    network, side = make(name)
    # A gain with which the numbers neither vanish nor explode, nor hang on the biases alone.
    least, most = 0.1, 30.0
    for _ in range(12):
        gain = round((least * most) ** 0.5, 2)
        with torch.no_grad():
            filled(network, gain)
            output = logits(network(picture(side)))
            other = logits(network(torch.zeros(1, 3, side, side)))
        largest = output.abs().max()
        made = (output - other).abs().max()
        print(f"{name}, gain {gain}: up to {largest:.4g}, of which the picture makes {made:.4g}", flush=True)
        if not largest < 300:
            most = gain
        elif made < 0.15 * largest:
            least = gain
        else:
            break
    else:
        raise SystemExit(f"no gain for {name}")
    return sampled(output, gain)


def tensors(name):
    """How many there are, and the sum of what their names and shapes come to."""
    with torch.device("meta"):
        network, _ = make(name)
    tensors = {name: list(value.shape) for name, value in network.state_dict().items() if value.is_floating_point()}
    names = sum(seed(f"{name} {'x'.join(map(str, shape))}") for name, shape in tensors.items())
    return [len(tensors), names % (1 << 64)]


outputs = json.loads(FILE.read_text()) if FILE.exists() else {"tensors": {}}
for name in sys.argv[1:]:
    if name.startswith("-"):
        # Its tensors only.
        name = name[1:]
    else:
        outputs[name] = stored(name)
    outputs["tensors"][name] = tensors(name)
    text = ",\n".join(f'"{name}": {json.dumps(output)}' for name, output in sorted(outputs.items()))
    FILE.write_text("{\n" + text + "\n}\n")
