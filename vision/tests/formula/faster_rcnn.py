"""torchvision's Faster R-CNN over a ResNet-50 with a feature pyramid, without its preprocessing.

`forward` gives the levels that regions are looked at on, and then what all levels propose, one after another; `found` the boxes at the
end, of which a few are stored, and how many there are before those that overlap are left out.
"""

import torch
from torch import nn


class FasterRcnn(nn.Module):
    # The heads' numbers are logits, and logarithms of sizes: they must not be large.
    gains = {
        "rpn.head.cls_logits.weight": 0.5,
        "rpn.head.bbox_pred.weight": 0.02,
        "roi_heads.box_predictor.cls_score.weight": 2.0,
        "roi_heads.box_predictor.bbox_pred.weight": 0.5,
    }

    def __init__(self):
        super().__init__()
        from torchvision.models.detection import fasterrcnn_resnet50_fpn

        network = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # As it is with the published weights.
                module.eps = 0.0
        self.backbone, self.rpn, self.roi_heads = network.backbone, network.rpn, network.roi_heads

    def forward(self, x):
        features = list(self.backbone(x).values())
        logits, boxes = self.rpn.head(features)
        proposing = [torch.cat(all, 1) for all in zip(logits, boxes)]
        return torch.cat([level.flatten() for level in features[:4] + proposing])

    def found(self, x):
        from torchvision.models.detection.image_list import ImageList

        size = tuple(x.shape[-2:])
        features = self.backbone(x)
        proposals, _ = self.rpn(ImageList(x, [size]), features)
        regions = self.roi_heads.box_roi_pool(features, proposals, [size])
        logits, numbers = self.roi_heads.box_predictor(self.roi_heads.box_head(regions))
        boxes, scores, classes = self.roi_heads.postprocess_detections(logits, numbers, proposals, [size])
        likely = int((logits.softmax(1)[:, 1:] > self.roi_heads.score_thresh).sum())
        rows = zip(boxes[0].tolist(), scores[0].tolist(), classes[0].tolist())
        print(f"{len(proposals[0])} proposals, {likely} candidates, {len(scores[0])} found")
        stored = [[round(side, 3) for side in box] + [round(score, 6), label] for box, score, label in rows]
        return {"candidates": likely, "boxes": stored}
