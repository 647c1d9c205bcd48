"""OFA's MobileNetV3 networks as torch modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from latlab.search_spaces.ofa_mobilenetv3.skeleton import Block, widths
from latlab.search_spaces.torch_modules import HardSigmoid, HardSwish, batch_norm, conv, linear

__all__ = ["InvertedBottleneck", "Network", "SqueezeExcite", "Tail", "stem"]


def _mean(x: Tensor, as_written: bool) -> Tensor:
    """Return the mean over height and width, which are kept as 1 x 1; as written it is two means in a row."""
    if as_written:
        return x.mean(3, keepdim=True).mean(2, keepdim=True)
    return x.mean((2, 3), keepdim=True)


def _activation(has_hswish: bool, as_written: bool) -> nn.Module:
    if not has_hswish:
        return nn.ReLU()
    return HardSwish() if as_written else nn.Hardswish()


class SqueezeExcite(nn.Module):
    """Squeeze and excite: it scales each channel by a learned function of the means of all channels."""

    def __init__(self, channels: int, middle: int, as_written: bool) -> None:
        super().__init__()
        self.reduce = conv(channels, middle, bias=True)
        self.relu = nn.ReLU()
        self.expand = conv(middle, channels, bias=True)
        self.gate = HardSigmoid() if as_written else nn.Hardsigmoid()
        self.as_written = as_written

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.expand(self.relu(self.reduce(_mean(x, self.as_written)))))
        return x * scale


class InvertedBottleneck(nn.Module):
    """An inverted bottleneck: 1x1, depthwise, squeeze and excite, 1x1; plus its input where shapes allow it."""

    def __init__(self, block: Block, as_written: bool) -> None:
        super().__init__()
        middle = block.middle_channels
        body: OrderedDict[str, nn.Module] = OrderedDict()
        if block.has_expansion:
            body["expand"] = nn.Sequential(
                conv(block.in_channels, middle),
                batch_norm(middle),
                _activation(block.has_hswish, as_written),
            )
        body["depthwise"] = nn.Sequential(
            conv(middle, middle, block.kernel, block.stride, groups=middle),
            batch_norm(middle),
            _activation(block.has_hswish, as_written),
        )
        if block.has_se:
            body["se"] = SqueezeExcite(middle, block.se_channels, as_written)
        body["project"] = nn.Sequential(conv(middle, block.out_channels), batch_norm(block.out_channels))
        self.body = nn.Sequential(body)
        self.has_identity = block.has_identity

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.has_identity else y


def stem(channels: int, as_written: bool) -> nn.Sequential:
    """Return the module before the blocks."""
    return nn.Sequential(conv(3, channels, 3, 2), batch_norm(channels), _activation(True, as_written))


class Tail(nn.Module):
    """The modules after the blocks: final expansion, mean, feature mix, classifier.

    Args:
        earlier: modules of a subclass that run before, so that exported files list weights in that order.
    """

    def __init__(self, width: float, num_classes: int, as_written: bool, **earlier: nn.Module) -> None:
        super().__init__()
        for name, module in earlier.items():
            self.add_module(name, module)
        *_, last, final, mixed = widths(width)
        self.final = nn.Sequential(conv(last, final), batch_norm(final), _activation(True, as_written))
        self.mix = nn.Sequential(conv(final, mixed), _activation(True, as_written))
        self.classifier = linear(mixed, num_classes)
        self.as_written = as_written

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(_mean(self.final(x), self.as_written))
        y: Tensor = self.classifier(x.flatten(1))
        return y


class Network(Tail):
    """A network: stem, blocks, tail."""

    stem: nn.Sequential
    body: nn.Sequential

    def __init__(self, blocks: Sequence[Block], width: float, num_classes: int, as_written: bool) -> None:
        first = stem(blocks[0].in_channels, as_written)
        body: OrderedDict[str, nn.Module] = OrderedDict(
            (block.name.replace(".", "_"), InvertedBottleneck(block, as_written)) for block in blocks
        )
        super().__init__(width, num_classes, as_written, stem=first, body=nn.Sequential(body))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.body(self.stem(x)))
