"""The networks of FBNet as torch modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from latlab.search_spaces.fbnet.skeleton import LAYERS, STEM_CHANNELS, Op, Position, Setting, positions
from latlab.search_spaces.torch_modules import ChannelShuffle, batch_norm, conv, linear

__all__ = ["Block", "Network", "Tail", "layer", "stem"]


def _conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(conv(in_channels, out_channels, kernel, stride, groups), batch_norm(out_channels), nn.ReLU())


class Block(nn.Module):
    """An inverted bottleneck: 1x1 in groups, shuffle, depthwise, 1x1 in groups; plus the input where shapes allow."""

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


def stem(setting: Setting) -> nn.Sequential:
    """Return the module before the 22 layers."""
    return _conv_bn_relu(3, STEM_CHANNELS, 3, setting.stem_stride)


def layer(position: Position, op: Op | None) -> nn.Module | None:
    """Return the module of one of the 22 layers, None where it returns its input."""
    if op is not None:
        return Block(position, op)
    if position.is_identity_shaped:
        return None
    return _conv_bn_relu(position.in_channels, position.out_channels, stride=position.stride)


class Tail(nn.Module):
    """The modules after the 22 layers: 1x1 convolution, mean, classifier.

    Args:
        earlier: modules of a subclass that run before, so that exported files list weights in that order.
    """

    def __init__(self, setting: Setting, **earlier: nn.Module) -> None:
        super().__init__()
        for name, module in earlier.items():
            self.add_module(name, module)
        self.head = _conv_bn_relu(positions(setting)[-1].out_channels, setting.head_channels)
        self.classifier = linear(setting.head_channels, setting.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.head(x).mean((2, 3)))
        return y


class Network(Tail):
    """A network: stem, 22 layers, tail. A skip that keeps the shape has no module."""

    stem: nn.Sequential
    body: nn.Sequential

    def __init__(self, setting: Setting, ops: Sequence[Op | None]) -> None:
        body: OrderedDict[str, nn.Module] = OrderedDict()
        places = positions(setting)
        assert len(ops) == LAYERS
        for place, op in zip(places, ops, strict=True):
            made = layer(place, op)
            if made is not None:
                body[place.name.replace(".", "_")] = made
        super().__init__(setting, stem=stem(setting), body=nn.Sequential(body))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.body(self.stem(x)))
