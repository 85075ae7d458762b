"""SSDs: torchvision's own SSDlite, and those of pytorch-ssd over MobileNet V1 and V2 in plain PyTorch, from their description; names of
tensors as in the published files.

`forward` gives, one level after another, what each cell states: four numbers of a box for each of six priors, then their classes.
"""

import math

import torch
from torch import nn


def joined(levels):
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)


def split(output, classes):
    """Numbers of boxes [priors, 4], logits [priors, classes]."""
    return output[0, :, :24].reshape(-1, 4), output[0, :, 24:].reshape(-1, classes)


def unit(inputs, outputs, kernel, stride, activation, groups=1):
    norm = nn.BatchNorm2d(outputs)
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), norm, activation()]


class PytorchSsd(nn.Module):
    CLASSES = 21

    def boxes(self, output):
        """Corners in pixels of 300 x 300, and probabilities, the background's as 0."""
        stated, logits = split(output, self.CLASSES)
        priors = []
        steps = [(19, 16), (10, 32), (5, 64), (3, 100), (2, 150), (1, 300)]
        for level, (side, step) in enumerate(steps):
            small, large = 60 + 45 * level, 105 + 45 * level
            for row in range(side):
                for column in range(side):
                    middle = [(column + 0.5) * step / 300, (row + 0.5) * step / 300]
                    square = math.sqrt(small * large)
                    sizes = [(small, small), (square, square)]
                    for ratio in (2, 3):
                        long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
                        sizes += [(long, short), (short, long)]
                    priors += [middle + [min(side / 300, 1.0) for side in size] for size in sizes]
        priors = torch.tensor(priors)
        middles = priors[:, :2] + stated[:, :2] * 0.1 * priors[:, 2:]
        sizes = priors[:, 2:] * (stated[:, 2:] * 0.2).exp()
        scores = logits.softmax(1)
        scores[:, 0] = 0
        return torch.cat([middles - sizes / 2, middles + sizes / 2], 1) * 300, scores

    def heads(self, levels):
        return joined(
            torch.cat([boxes(level), classes(level)], 1)
            for boxes, classes, level in zip(self.regression_headers, self.classification_headers, levels)
        )


class v1(PytorchSsd):
    def __init__(self):
        super().__init__()

        def block(inputs, outputs, stride):
            each = unit(inputs, inputs, 3, stride, nn.ReLU, inputs)
            return nn.Sequential(*each, *unit(inputs, outputs, 1, 1, nn.ReLU))

        channels = [32, 64, 128, 128, 256, 256] + 6 * [512] + [1024, 1024]
        blocks = [block(a, b, 2 if place in (1, 3, 5, 11) else 1) for place, (a, b) in enumerate(zip(channels, channels[1:]))]
        self.base_net = nn.ModuleList([nn.Sequential(*unit(3, 32, 3, 2, nn.ReLU)), *blocks])

        def extra(inputs, inside, outputs):
            return nn.Sequential(
                nn.Conv2d(inputs, inside, 1), nn.ReLU(), nn.Conv2d(inside, outputs, 3, 2, 1), nn.ReLU()
            )

        self.extras = nn.ModuleList(extra(*all) for all in [(1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256)])
        levels = [512, 1024, 512, 256, 256, 256]
        self.regression_headers = nn.ModuleList(nn.Conv2d(inputs, 24, 3, 1, 1) for inputs in levels)
        self.classification_headers = nn.ModuleList(nn.Conv2d(inputs, 6 * self.CLASSES, 3, 1, 1) for inputs in levels)

    def forward(self, x):
        seen = []
        for layer in [*self.base_net, *self.extras]:
            x = layer(x)
            seen.append(x)
        return self.heads([seen[11], *seen[13:]])


class Inverted(nn.Module):
    def __init__(self, inputs, inside, outputs, stride):
        super().__init__()
        first = unit(inputs, inside, 1, 1, nn.ReLU6) if inside != inputs else []
        self.conv = nn.Sequential(*first, *unit(inside, inside, 3, stride, nn.ReLU6, inside), *unit(inside, outputs, 1, 1, nn.Identity)[:2])
        self.add = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.add else self.conv(x)


class lite_v2(PytorchSsd):
    def __init__(self):
        super().__init__()
        layers, inputs = [nn.Sequential(*unit(3, 32, 3, 2, nn.ReLU6))], 32
        table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        for expansion, outputs, repetitions, stride in table:
            for repetition in range(repetitions):
                layers.append(Inverted(inputs, expansion * inputs, outputs, stride if repetition == 0 else 1))
                inputs = outputs
        self.base_net = nn.ModuleList([*layers, nn.Sequential(*unit(320, 1280, 1, 1, nn.ReLU6))])
        self.extras = nn.ModuleList(
            Inverted(*all, 2) for all in [(1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 64)]
        )

        def heads(outputs):
            def separable(inputs):
                return nn.Sequential(
                    nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs),
                    nn.BatchNorm2d(inputs),
                    nn.ReLU6(),
                    nn.Conv2d(inputs, outputs, 1),
                )

            return nn.ModuleList([*map(separable, [576, 1280, 512, 256, 256]), nn.Conv2d(64, outputs, 1)])

        self.regression_headers, self.classification_headers = heads(24), heads(6 * self.CLASSES)

    def forward(self, x):
        levels = []
        for place, layer in enumerate(self.base_net):
            if place == 14:
                levels.append(layer.conv[:3](x))
            x = layer(x)
        levels.append(x)
        for layer in self.extras:
            levels.append(layer(levels[-1]))
        return self.heads(levels)


class Torchvision(nn.Module):
    """torchvision's, without the preprocessing and what chooses among boxes."""

    def __init__(self):
        super().__init__()
        from torchvision.models.detection import ssdlite320_mobilenet_v3_large

        network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        self.backbone, self.head = network.backbone, network.head
        self.anchors, self.coder = network.anchor_generator, network.box_coder

    def forward(self, x):
        self.levels = list(self.backbone(x).values())
        heads = self.head.regression_head.module_list, self.head.classification_head.module_list
        return joined(torch.cat([heads[0][i](level), heads[1][i](level)], 1) for i, level in enumerate(self.levels))

    def boxes(self, output):
        """Corners in pixels of 320 x 320, and probabilities, the background's as 0."""
        from torchvision.models.detection.image_list import ImageList

        stated, logits = split(output, 91)
        images = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
        corners = self.coder.decode_single(stated, self.anchors(images, self.levels)[0])
        scores = logits.softmax(1)
        scores[:, 0] = 0
        return corners, scores
