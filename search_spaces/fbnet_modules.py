"""FBNet's networks as torch modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from latlab.search_spaces.fbnet import LAYERS, STEM_CHANNELS, Op, Position, Setting, positions
from latlab.search_spaces.modules import ChannelShuffle, batch_norm, conv, linear

__all__ = ["Block", "Network"]


def _conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(conv(in_channels, out_channels, kernel, stride, groups), batch_norm(out_channels), nn.ReLU())


class Block(nn.Module):
    """1x1 (groups) - shuffle - depthwise - 1x1 (groups), and the identity where shapes allow it."""

    def __init__(self, position: Position, op: Op) -> None:
        super().__init__()
        middle = position.in_channels * op.expansion
        self.expand = _conv_bn_relu(position.in_channels, middle, groups=op.groups)
        self.shuffle = ChannelShuffle(middle, op.groups, position.size) if op.groups > 1 else None
        self.depthwise = _conv_bn_relu(middle, middle, op.kernel, position.stride, groups=middle)
        self.project = nn.Sequential(
            conv(middle, position.out_channels, groups=op.groups), batch_norm(position.out_channels)
        )
        self.has_identity = position.is_identity_shaped

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(x)
        if self.shuffle is not None:
            y = self.shuffle(y)
        y = self.project(self.depthwise(y))
        return x + y if self.has_identity else y


class Network(nn.Module):
    """Stem, 22 layers, head. A skip that keeps the shape has no module at all."""

    def __init__(self, setting: Setting, ops: Sequence[Op | None]) -> None:
        super().__init__()
        self.stem = _conv_bn_relu(3, STEM_CHANNELS, 3, setting.stem_stride)
        body: OrderedDict[str, nn.Module] = OrderedDict()
        places = positions(setting)
        assert len(ops) == LAYERS
        for place, op in zip(places, ops, strict=True):
            name = place.name.replace(".", "_")
            if op is not None:
                body[name] = Block(place, op)
            elif not place.is_identity_shaped:
                body[name] = _conv_bn_relu(place.in_channels, place.out_channels, stride=place.stride)
        self.body = nn.Sequential(body)
        self.head = _conv_bn_relu(places[-1].out_channels, setting.head_channels)
        self.classifier = linear(setting.head_channels, setting.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.body(self.stem(x)))
        y: Tensor = self.classifier(x.mean((2, 3)))
        return y
