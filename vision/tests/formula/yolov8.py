"""YOLOv8 in plain PyTorch, from its description: layers numbered as in the published files, so that the names of tensors agree.

What it is made of: a convolution with norm and SiLU; C2f, a cross stage partial layer that keeps what every bottleneck gives; SPPF, three
max pools one after another; and a head that states the distance of each side of a box from the middle of its cell as a distribution over
the lengths from 0 to 15.
"""

import torch
from torch import nn

# Depth, width, and the most channels before the width is taken.
SIZES = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.25, 512),
}
CLASSES, LENGTHS = 80, 16


class Unit(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return nn.functional.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels, add):
        super().__init__()
        self.cv1, self.cv2, self.add = Unit(channels, channels, 3), Unit(channels, channels, 3), add

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class Partial(nn.Module):
    def __init__(self, inputs, outputs, repeats, add):
        super().__init__()
        half = outputs // 2
        self.cv1 = Unit(inputs, 2 * half, 1)
        self.cv2 = Unit((2 + repeats) * half, outputs, 1)
        self.m = nn.ModuleList(Bottleneck(half, add) for _ in range(repeats))
        self.half = half

    def forward(self, x):
        # By a number, not in two: as a graph it is one plain step for whoever runs it.
        kept = list(self.cv1(x).split(self.half, 1))
        for bottleneck in self.m:
            kept.append(bottleneck(kept[-1]))
        return self.cv2(torch.cat(kept, 1))


class Pyramid(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.cv1, self.cv2 = Unit(channels, channels // 2, 1), Unit(2 * channels, channels, 1)

    def forward(self, x):
        kept = [self.cv1(x)]
        for _ in range(3):
            kept.append(nn.functional.max_pool2d(kept[-1], 5, 1, 2))
        return self.cv2(torch.cat(kept, 1))


class Head(nn.Module):
    def __init__(self, levels):
        super().__init__()
        sides, classes = max(levels[0] // 4, 4 * LENGTHS), max(levels[0], CLASSES)

        def part(inputs, inside, outputs):
            return nn.Sequential(Unit(inputs, inside, 3), Unit(inside, inside, 3), nn.Conv2d(inside, outputs, 1))

        self.cv2 = nn.ModuleList(part(inputs, sides, 4 * LENGTHS) for inputs in levels)
        self.cv3 = nn.ModuleList(part(inputs, classes, CLASSES) for inputs in levels)

    def forward(self, levels):
        return [torch.cat([self.cv2[i](x), self.cv3[i](x).sigmoid()], 1) for i, x in enumerate(levels)]


class Yolov8(nn.Module):
    def __init__(self, size):
        super().__init__()
        depth, width, most = SIZES[size]

        def c(described):
            return -int(-min(described, most) * width // 8) * 8

        def n(described):
            return max(round(described * depth), 1)

        again = nn.Upsample(scale_factor=2)
        self.model = nn.ModuleList(
            [
                Unit(3, c(64), 3, 2),
                Unit(c(64), c(128), 3, 2),
                Partial(c(128), c(128), n(3), True),
                Unit(c(128), c(256), 3, 2),
                Partial(c(256), c(256), n(6), True),
                Unit(c(256), c(512), 3, 2),
                Partial(c(512), c(512), n(6), True),
                Unit(c(512), c(1024), 3, 2),
                Partial(c(1024), c(1024), n(3), True),
                Pyramid(c(1024)),
                again,
                nn.Identity(),
                Partial(c(1024) + c(512), c(512), n(3), False),
                again,
                nn.Identity(),
                Partial(c(512) + c(256), c(256), n(3), False),
                Unit(c(256), c(256), 3, 2),
                nn.Identity(),
                Partial(c(256) + c(512), c(512), n(3), False),
                Unit(c(512), c(512), 3, 2),
                nn.Identity(),
                Partial(c(512) + c(1024), c(1024), n(3), False),
                Head([c(256), c(512), c(1024)]),
            ]
        )

    def levels(self, x):
        # What is joined to what the layer before gives.
        joined = {11: 6, 14: 4, 17: 12, 20: 9}
        seen = []
        for place, layer in enumerate(self.model[:-1]):
            x = torch.cat([x, seen[joined[place]]], 1) if place in joined else layer(x)
            seen.append(x)
        return self.model[-1]([seen[15], seen[18], seen[21]])

    def forward(self, x):
        """[1, places, 64 + 80]."""
        return torch.cat([level.flatten(2).transpose(1, 2) for level in self.levels(x)], 1)

    def boxes(self, output):
        """Corners in pixels [places, 4] and scores [places, 80] of what `forward` gives for 640 x 640."""
        sides = output[0, :, : 4 * LENGTHS].reshape(-1, 4, LENGTHS).softmax(2) @ torch.arange(float(LENGTHS))
        middles, strides = [], []
        for stride in (8, 16, 32):
            along = torch.arange(640 // stride) + 0.5
            y, x = torch.meshgrid(along, along, indexing="ij")
            middles.append(torch.stack([x, y], 2).reshape(-1, 2))
            strides.append(torch.full((len(middles[-1]), 1), float(stride)))
        middles, strides = torch.cat(middles), torch.cat(strides)
        corners = torch.cat([middles - sides[:, :2], middles + sides[:, 2:]], 1) * strides
        return corners, output[0, :, 4 * LENGTHS :]
