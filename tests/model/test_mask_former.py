"""Parts of MaskFormer and Mask2Former that goldens do not isolate."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.model.deformable_attention import POINTS, MSDeformAttn, sampling_grid
from d2serve.model.optimize import optimize
from d2serve.model.transformer_decoder import MaskedTransformerDecoder
from tests.goldens.cases import TINY

DIM, HEADS = 16, 2
SINGLE_CELLS = [(1, 1), (1, 5), (4, 1)]
USUAL = [(3, 4), (6, 8), (12, 16)]


def attend_by_grid_sample(
    attention: MSDeformAttn, query: Tensor, cells: Tensor, sizes: list[tuple[int, int]]
) -> Tensor:
    """Deformable attention in torch's usual operators (Zhu et al. 2021, equation 3)."""
    count = len(query)
    values = attention.value_proj(cells).view(count, HEADS, -1)
    offsets = attention.sampling_offsets(query).view(count, HEADS, len(sizes), POINTS, 2)
    weights = attention.attention_weights(query).view(count, HEADS, -1).softmax(dim=2)
    weights = weights.view(count, HEADS, len(sizes), POINTS)
    centres = torch.cat(
        [
            torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(1)
            for h, w in sizes
        ]
    )
    sums = torch.zeros(count, HEADS, DIM // HEADS)
    start = 0
    for level, (height, width) in enumerate(sizes):
        own = values[start : start + height * width].permute(1, 2, 0).unflatten(2, (height, width))
        shift = offsets[:, :, level] / torch.tensor([width, height])
        grid = 2 * (centres[:, None, None] + shift) - 1
        samples = F.grid_sample(own, grid.transpose(0, 1), align_corners=False)
        sums += torch.einsum("hcqp,qhp->qhc", samples, weights[:, :, level])
        start += height * width
    return attention.output_proj(sums.flatten(1))


@pytest.mark.parametrize("sizes", [USUAL, SINGLE_CELLS], ids=["usual", "single_cells"])
def test_deformable_attention_equals_grid_sample(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    attention = MSDeformAttn(DIM, len(sizes), HEADS)
    # Many positions are outside of the maps.
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=1.0)
    count = sum(height * width for height, width in sizes)
    query, cells = torch.randn(count, DIM), torch.randn(count, DIM)
    expected = attend_by_grid_sample(attention, query, cells, sizes)
    joined, grid = attention.join(), sampling_grid(sizes, HEADS, cells.device)
    found = joined(query, joined.values(cells), grid, slice(0, count))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_images_of_one_padded_size_do_not_affect_one_another() -> None:
    model = next(model for model in TINY if model.name == "mask2former_panoptic").build()
    torch.manual_seed(0)
    images = [torch.rand(3, height, width) * 255 for height, width in ((90, 64), (70, 40))]
    sizes = [(90, 64), (70, 40)]
    for network in (model, optimize(model)):
        together = network(images, sizes)
        for image, size, output in zip(images, sizes, together, strict=True):
            [alone] = network([image], [size])
            assert alone.queries is not None
            assert output.queries is not None
            assert output.queries.padded_hw == alone.queries.padded_hw == (96, 64)
            torch.testing.assert_close(
                output.queries.mask_logits, alone.queries.mask_logits, atol=1e-3, rtol=1e-4
            )
            torch.testing.assert_close(
                output.queries.class_logits, alone.queries.class_logits, atol=1e-4, rtol=1e-4
            )


def test_queries_with_an_empty_mask_attend_to_all_cells() -> None:
    model = next(model for model in TINY if model.name == "mask2former_panoptic").build()
    decoder = model.get_submodule("sem_seg_head.predictor")
    assert isinstance(decoder, MaskedTransformerDecoder)
    queries = torch.randn(1, 12, 32)
    embeddings = decoder.mask_embed(decoder.decoder_norm(queries))
    # Of the two cells the first is outside of the first query's mask, and both of its opposite's.
    cells = torch.stack((-embeddings[0, 0], embeddings[0, 0]), dim=1)[None, :, None]
    assert decoder._allowed(queries, cells)[0, 0].tolist() == [False, True]
    assert decoder._allowed(queries, -embeddings[0, 0][None, :, None, None])[0, 0].tolist() == [
        True
    ]
