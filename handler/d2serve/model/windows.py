"""Shifted windows over a grid of cells (Liu et al. 2021, Swin Transformer)."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Added to the logits of pairs of cells that the shift has brought together; as in the original.
MASKED = -100.0


@dataclass(frozen=True)
class ShiftedWindows:
    """The cells of each window, grouped by the mask that the window needs.

    After a cyclic shift only the windows of the last row and column have cells that are not
    neighbours: three of four groups need a mask, and those are small.

    Attributes:
        cells: Int64[windows * L], for each window its L cells as indices of N * H * W cells of the
            padded grids.
        positions: Int64[N * H * W], the inverse of `cells`, without the padding.
        counts: number of windows of each group.
        masks: for each group Float32[L, L], which is added to the logits; None without a mask.
    """

    cells: Tensor
    positions: Tensor
    counts: tuple[int, ...]
    masks: tuple[Tensor | None, ...]


def make_windows(
    images: int, size_hw: tuple[int, int], window: int, shift: int, device: torch.device
) -> ShiftedWindows:
    """Divide grids, padded at right and bottom, into windows after a cyclic shift.

    Args:
        images: number of grids.
        size_hw: height and width of a grid in cells.
        window: side of a window in cells.
        shift: rows and columns that the grid is moved up and left, less than `window`.
        device: of the result.
    """
    height, width = size_hw
    rows, columns = -(-height // window), -(-width // window)
    padded_hw = (rows * window, columns * window)
    cells = torch.arange(images * padded_hw[0] * padded_hw[1], device=device)
    shifted = cells.view(images, *padded_hw).roll((-shift, -shift), dims=(1, 2))
    windows = shifted.view(images, rows, window, columns, window).transpose(2, 3)
    groups = [windows] if shift == 0 else _groups(windows)
    flat = [group.reshape(-1, window * window) for group in groups]
    ordered = torch.cat(flat).flatten()
    positions = torch.empty_like(cells)
    positions[ordered] = cells
    inside = positions.view(images, *padded_hw)[:, :height, :width]
    masks = (None,) if shift == 0 else _masks(window, shift, device)
    return ShiftedWindows(ordered, inside.flatten(), tuple(len(each) for each in flat), masks)


def _groups(windows: Tensor) -> list[Tensor]:
    """Split [N, rows, columns, ...] into inner windows, last row, last column and corner."""
    above, last_row = windows[:, :-1], windows[:, -1:]
    return [above[:, :, :-1], last_row[:, :, :-1], above[:, :, -1:], last_row[:, :, -1:]]


def _masks(window: int, shift: int, device: torch.device) -> tuple[Tensor | None, ...]:
    moved = (torch.arange(window, device=device) >= window - shift).float()
    by_row, by_column = (each.flatten() for each in torch.meshgrid(moved, moved, indexing="ij"))
    rows = (by_row[:, None] != by_row).float() * MASKED
    columns = (by_column[:, None] != by_column).float() * MASKED
    return None, rows, columns, torch.minimum(rows, columns)


def relative_indices(window: int, device: torch.device) -> Tensor:
    """The row of a table of (2 * window - 1)^2 relative positions for each pair of a window's
    cells, Int64[L * L]."""
    axis = torch.arange(window, device=device)
    distances = axis[:, None] - axis + window - 1
    rows = distances[:, None, :, None] * (2 * window - 1)
    return (rows + distances[None, :, None, :]).flatten()
