"""What one copy carries arrives as it left."""

import torch

from d2serve.model.image_list import pack, to_device, to_host, unpack


def test_what_is_packed_comes_out_in_its_shapes() -> None:
    tensors = [
        torch.rand(3, 4),
        torch.tensor([5, (1 << 24) - 1]),
        torch.zeros(0, 28, 28),
        torch.rand(2, 3, 3).transpose(0, 2),
    ]
    unpacked = unpack(pack(tensors), [tensor.shape for tensor in tensors])
    for before, after in zip(tensors, unpacked, strict=True):
        assert after.dtype is torch.float32
        assert torch.equal(after, before.float())


def test_on_the_cpu_nothing_is_copied() -> None:
    values = torch.rand(3)
    [same] = to_host([values])
    assert same is values
    assert to_device(values, torch.device("cpu")) is values
