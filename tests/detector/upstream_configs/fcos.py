"""FCOS, small."""

from detectron2 import model_zoo
from detectron2.layers import ShapeSpec

model = model_zoo.get_config("common/models/fcos.py").model
dataloader = model_zoo.get_config("common/data/coco.py").dataloader

model.backbone.bottom_up.stages.depth = 18
del model.backbone.bottom_up.stages.stride_in_1x1
model.backbone.bottom_up.stages.norm = model.backbone.bottom_up.stem.norm = "BN"
model.backbone.out_channels = model.backbone.top_block.in_channels = 64
model.backbone.top_block.out_channels = 64
model.head.input_shape = [ShapeSpec(channels=64)] * 5
model.head.conv_dims = [64]
model.num_classes = 5
model.test_score_thresh = 0.1
model.max_detections_per_image = 12
resize = dataloader.test.mapper.augmentations[0]
resize.short_edge_length, resize.max_size = 128, 200
