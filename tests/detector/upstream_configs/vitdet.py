"""ViTDet, very small: two blocks, one of them with windows."""

from detectron2 import model_zoo

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
dataloader = model_zoo.get_config("common/data/coco.py").dataloader

SIDE = 128
net = model.backbone.net
net.img_size, net.embed_dim, net.depth, net.num_heads = SIDE, 16, 2, 2
net.window_size, net.window_block_indexes, net.drop_path_rate = 4, [0], 0.0
model.backbone.square_pad = SIDE
model.backbone.out_channels = 16
model.proposal_generator.head.in_channels = 16
model.proposal_generator.head.conv_dims = [16]
model.roi_heads.num_classes = 5
model.roi_heads.box_head.input_shape.channels = 16
model.roi_heads.box_head.conv_dims = [16]
model.roi_heads.box_head.fc_dims = [32]
model.roi_heads.box_predictor.input_shape.channels = 32
model.roi_heads.mask_head.input_shape.channels = 16
model.roi_heads.mask_head.conv_dims = [16, 16]
resize = dataloader.test.mapper.augmentations[0]
resize.short_edge_length = resize.max_size = SIDE
dataloader.train.mapper.image_format = "RGB"
