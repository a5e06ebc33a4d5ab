"""The scoring network on raw uint8 pixels: normalisation is part of the first convolution."""

from __future__ import annotations

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from ..checkpoint import Checkpoint
from ..network import MEAN, STD, ScoringNetwork

CENTRE = 116
"""Subtracted from each pixel: the errors of rounded weights grow with the size of the inputs."""

_COLUMNS = 4
"""Pixels of a row that become one position of 4·3 channels: integer kernels take channels by fours."""


class PixelNetwork(ScoringNetwork):
    """A scoring network whose first convolution takes pixels minus `CENTRE` instead of normalised values.

    A border that was zero after normalisation is the mean colour, rounded to whole levels, in a `PixelConvolution`.

    Args:
        trunk: its batch norms are folded; it is changed in place.
        checkpoint: the regressor's weights.
        patches: D, patches per image.
        exemplars: M that it is made for, or None; see `ScoringNetwork`.
    """

    def __init__(self, trunk: nn.Module, checkpoint: Checkpoint, patches: int, *, exemplars: int | None = None) -> None:
        super().__init__(trunk, checkpoint, patches, exemplars=exemplars)
        name, convolution = next((n, m) for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d))
        _take_pixels(convolution)
        self.first: PixelConvolution | None = None
        if convolution.stride[0] < _COLUMNS and isinstance(_operator_after(trunk, name), nn.ReLU | nn.ReLU6):
            self.first = PixelConvolution(convolution)
            parent, _, child = name.rpartition(".")
            setattr(trunk.get_submodule(parent), child, nn.Identity())

    def patch_features(self, patches: Tensor) -> Tensor:
        """Compute the features of N patches, float32 [N, C], as `ScoringNetwork.patch_features` does."""
        x = (patches.float() - CENTRE).permute(0, 3, 1, 2) if self.first is None else self.first(patches)
        out: Tensor = self.trunk(x)
        return out


class PixelConvolution(nn.Module):
    """A convolution of three channels and a small stride, with the ReLU that follows, on four columns at once.

    Integer kernels take their channels by fours, and three are slow. In the bytes of an image, [H, W, 3], four
    neighbours of a row are twelve channels of one position, [H, W / 4, 12], without any copy. A kernel that covers
    the windows of all outputs whose first column is in a group of four, with zeros where a window ends early, gives
    these outputs as its channels.

    Args:
        convolution: takes pixels; has a bias, a square kernel and a stride of 1 or 2. Where it pads as TensorFlow does
            ("same", timm's Conv2dSame), the padding follows from the size of the patches.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight, stride, bias = convolution.weight.detach(), int(convolution.stride[0]), convolution.bias
        assert bias is not None
        assert isinstance(convolution.padding, tuple)
        self.channels, _, height, width = weight.shape
        self.stride, self.width, self.padding = stride, width, int(convolution.padding[0])
        self.same = isinstance(convolution, Conv2dSame)
        self.outputs = _COLUMNS // stride
        self.groups = -(-((self.outputs - 1) * stride + width) // _COLUMNS)
        count = self.outputs * self.channels
        self.convolution = nn.Conv2d(_COLUMNS * 3, count, (height, self.groups), stride=(stride, 1))
        self._set(weight.permute(0, 2, 3, 1), bias.detach())
        self.register_buffer("border", torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8))

    def forward(self, patches: Tensor) -> Tensor:
        """Apply convolution and ReLU to uint8 patches [N, P, P, 3]; return float [N, channels, H', W']."""
        N, P = patches.shape[:2]
        before, after = self._padding(P)
        wanted = (P + before + after - self.width) // self.stride + 1
        columns = (-(-wanted // self.outputs) - 1 + self.groups) * _COLUMNS
        rows = P + before + after
        x = self._with_border(patches, 2, before, max(0, columns - P - before))
        x = self._with_border(x, 1, before, after)[:, :, :columns]
        x = x.reshape(N, rows, columns // _COLUMNS, _COLUMNS * 3).float() - CENTRE
        x = x.permute(0, 3, 1, 2)
        x = torch.relu(self.convolution(x)).permute(0, 2, 3, 1)
        x = x.reshape(N, x.shape[1], -1, self.channels)
        # A slice that takes everything would be exported, too, and keep ONNX Runtime from computing on in integers.
        x = x if x.shape[2] == wanted else x[:, :, :wanted]
        return x.permute(0, 3, 1, 2)

    def repeat_first_output(self) -> None:
        """Give all outputs of a position the weights and bias of the first one, which may have been rounded."""
        kernel = self.convolution.weight.detach()[: self.channels].permute(0, 2, 3, 1)
        columns = kernel.reshape(self.channels, len(kernel[0]), self.groups * _COLUMNS, 3)
        assert self.convolution.bias is not None
        self._set(columns[:, :, : self.width].clone(), self.convolution.bias.detach()[: self.channels])

    def _set(self, weight: Tensor, bias: Tensor) -> None:
        """Set weights, [C, h, w, 3], and bias, [C], of all outputs of a position."""
        kernel = torch.zeros(self.outputs, self.channels, weight.shape[1], self.groups * _COLUMNS, 3)
        for output in range(self.outputs):
            kernel[output, :, :, output * self.stride : output * self.stride + self.width] = weight
        kernel = kernel.reshape(self.outputs * self.channels, weight.shape[1], self.groups, _COLUMNS * 3)
        self.convolution.weight = nn.Parameter(kernel.permute(0, 3, 1, 2).contiguous(), requires_grad=False)
        self.convolution.bias = nn.Parameter(bias.repeat(self.outputs), requires_grad=False)

    def _padding(self, P: int) -> tuple[int, int]:
        """Return the padding before (above, on the left) and after (below, on the right)."""
        if not self.same:
            return self.padding, self.padding
        total = max(0, (-(-P // self.stride) - 1) * self.stride + self.width - P)
        return total // 2, total - total // 2

    def _with_border(self, x: Tensor, axis: int, before: int, after: int) -> Tensor:
        """Add strips of the border's colour to both ends of an axis; only whole runs of bytes are copied."""
        shape = list(x.shape)

        def strip(size: int) -> list[Tensor]:
            if not size:
                return []
            one = self.get_buffer("border").expand(1, *shape[1:axis], size, *shape[axis + 1 : 3], 3).contiguous()
            return [one.expand(shape[0], -1, -1, -1)]

        parts = [*strip(before), x, *strip(after)]
        return torch.cat(parts, dim=axis) if len(parts) > 1 else x


def _operator_after(trunk: nn.Module, name: str) -> nn.Module | None:
    """Return the first module without submodules, other than an identity, registered after a convolution."""
    leaves = [(n, m) for n, m in trunk.named_modules() if not list(m.children())]
    index = next(index for index, (leaf, _) in enumerate(leaves) if leaf == name)
    return next((module for _, module in leaves[index + 1 :] if not isinstance(module, nn.Identity)), None)


def _take_pixels(convolution: nn.Conv2d) -> None:
    """Fold normalisation into a convolution's weights and bias, computed in float64."""
    mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    weight = convolution.weight.detach().double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if convolution.bias is None else convolution.bias.double()
    bias = bias + (weight * ((CENTRE / 255 - mean) / std).view(1, 3, 1, 1)).sum((1, 2, 3))
    weight = weight / (255 * std).view(1, 3, 1, 1)
    convolution.weight = nn.Parameter(weight.float(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
