"""Parts of Mask DINO that goldens do not isolate."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.deformable_attention import POINTS, MSDeformAttn, sampled_maps
from d2serve.model.mask_dino_decoder import cell_boxes, inverse_sigmoid, mask_boxes, sine_boxes
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.model.structures import QueryOutput
from tests.goldens.cases import TINY

DIM, HEADS = 16, 2
SIZES = [(3, 4), (6, 8), (1, 5)]


def built(name: str) -> Network:
    return next(model for model in TINY if model.name == name).build()


def attend_by_grid_sample(
    attention: MSDeformAttn, query: Tensor, boxes: Tensor, cells: Tensor
) -> Tensor:
    """Deformable attention around boxes in torch's usual operators (Zhu et al. 2021, A.4)."""
    count, levels = len(query), len(SIZES)
    values = attention.value_proj(cells).view(len(cells), HEADS, -1)
    offsets = attention.sampling_offsets(query).view(count, HEADS, levels, POINTS, 2)
    weights = attention.attention_weights(query).view(count, HEADS, -1).softmax(dim=2)
    weights = weights.view(count, HEADS, levels, POINTS)
    places = boxes[:, None, None, None, :2] + offsets / POINTS * boxes[:, None, None, None, 2:] / 2
    sums, start = torch.zeros(count, HEADS, DIM // HEADS), 0
    for level, (height, width) in enumerate(SIZES):
        own = values[start : start + height * width].permute(1, 2, 0).unflatten(2, (height, width))
        grid = 2 * places[:, :, level] - 1
        samples = F.grid_sample(own, grid.transpose(0, 1), align_corners=False)
        sums += torch.einsum("hcqp,qhp->qhc", samples, weights[:, :, level])
        start += height * width
    return attention.output_proj(sums.flatten(1))


def test_deformable_attention_around_boxes_equals_grid_sample() -> None:
    torch.manual_seed(0)
    attention = MSDeformAttn(DIM, len(SIZES), HEADS)
    # Many positions are outside of the maps.
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=1.0)
    query, boxes = torch.randn(7, DIM), torch.rand(7, 4)
    cells = torch.randn(sum(height * width for height, width in SIZES), DIM)
    joined, maps = attention.join(), sampled_maps(SIZES, HEADS, cells.device)
    found = joined.at_boxes(query, boxes, joined.values(cells), maps)
    expected = attend_by_grid_sample(attention, query, boxes, cells)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def queries(network: Network, images: list[Tensor]) -> list[QueryOutput]:
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    outputs = [output.queries for output in network(images, sizes)]
    assert None not in outputs
    return [output for output in outputs if output is not None]


def test_images_of_one_padded_size_do_not_affect_one_another() -> None:
    model = built("mask_dino_instance")
    torch.manual_seed(0)
    images = [torch.rand(3, height, width) * 255 for height, width in ((90, 64), (70, 40))]
    for network in (model, optimize(model)):
        together = queries(network, images)
        for image, output in zip(images, together, strict=True):
            [alone] = queries(network, [image])
            assert output.padded_hw == alone.padded_hw == (96, 64)
            assert output.boxes is not None
            assert alone.boxes is not None
            torch.testing.assert_close(output.boxes, alone.boxes, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(output.mask_logits, alone.mask_logits, atol=1e-3, rtol=1e-3)


def test_half_precision_keeps_boxes_and_scores_in_float32() -> None:
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255
    network = optimize(built("mask_dino_panoptic"), torch.bfloat16)
    [output] = queries(network, [image])
    weights = network.get_parameter("sem_seg_head.predictor._bbox_embed.layers.0.weight")
    assert weights.dtype is torch.float32
    assert output.boxes is not None
    assert (output.class_logits.dtype, output.boxes.dtype) == (torch.float32, torch.float32)
    assert output.boxes.isfinite().all()


def test_a_small_image_has_fewer_queries() -> None:
    predictor = built("mask_dino_instance").get_submodule("sem_seg_head.predictor")
    for side, count in ((1, 4), (2, 12)):
        maps = [torch.randn(1, 32, side, side) for _ in range(4)]
        scores, embeddings, boxes = predictor(maps, torch.randn(1, 16, 4, 4))
        assert scores.shape[1] == embeddings.shape[1] == boxes.shape[1] == count


def test_boxes_of_cells_grow_from_map_to_map() -> None:
    boxes = cell_boxes([(1, 2), (2, 100)], torch.device("cpu"))
    sizes = boxes.sigmoid()
    torch.testing.assert_close(sizes[0], torch.tensor([0.25, 0.5, 0.05, 0.05]))
    torch.testing.assert_close(sizes[3], torch.tensor([0.015, 0.25, 0.1, 0.1]))
    # The centres of the first and the last column are within a hundredth of the border.
    assert boxes.isinf().all(dim=1).nonzero().flatten().tolist() == [2, 101, 102, 201]


@pytest.mark.parametrize("is_tight", [True, False])
def test_boxes_around_masks(is_tight: bool) -> None:
    masks = torch.zeros((1, 3, 4, 8), dtype=torch.bool)
    masks[0, 0, 1:3, 2] = True
    masks[0, 0, 2, 5] = True
    masks[0, 1, 3, 7] = True
    boxes = mask_boxes(masks, is_tight)[0]
    first = [4, 2, 4, 2] if is_tight else [3.5, 1.5, 3, 1]
    last = [7.5, 3.5, 1, 1] if is_tight else [7, 3, 0, 0]
    shares = torch.tensor([8, 4, 8, 4])
    torch.testing.assert_close(boxes[:2], torch.tensor([first, last]) / shares)
    # Without a pixel: nothing at the first corner, or at the last one.
    corner = 0.0 if is_tight else 1.0
    torch.testing.assert_close(
        inverse_sigmoid(boxes[2]).sigmoid(), torch.tensor([corner, corner, 0, 0]), atol=2e-5, rtol=0
    )


def test_positions_of_boxes() -> None:
    waves = sine_boxes(torch.tensor([0.25, 0.5, 0.125, 1.0]), 8)
    angles = [
        share * 2 * math.pi / scale for share in (0.5, 0.25, 0.125, 1.0) for scale in (1, 100)
    ]
    expected = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
    torch.testing.assert_close(waves, torch.tensor(expected), atol=1e-6, rtol=1e-5)
