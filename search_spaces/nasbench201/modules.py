"""The networks of NAS-Bench-201 as torch modules."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from latlab.search_spaces.torch_modules import Zero, batch_norm, conv, linear

__all__ = ["Cell", "Network", "Residual", "Sum", "Tail", "operation", "stem"]


def _relu_conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), conv(in_channels, out_channels, kernel, stride), batch_norm(out_channels))


def operation(op: str, channels: int) -> nn.Module | None:
    """Return the module of an edge's operation, None for the identity, which needs no module."""
    if op == "nor_conv_1x1":
        return _relu_conv_bn(channels, channels, 1)
    if op == "nor_conv_3x3":
        return _relu_conv_bn(channels, channels, 3)
    if op == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return Zero() if op == "none" else None


class Cell(nn.Module):
    """A cell of the given edges (node, source, operation); the module of an edge is named `edge<node>_<source>`.

    A cell without edges returns zeros.
    """

    def __init__(self, edges: Sequence[tuple[int, int, str]], channels: int) -> None:
        super().__init__()
        self.inputs: dict[int, list[tuple[int, str | None]]] = {1: [], 2: [], 3: []}
        for node, source, op in edges or [(3, 0, "none")]:
            module = operation(op, channels)
            name = f"edge{node}_{source}"
            if module is not None:
                self.add_module(name, module)
            self.inputs[node].append((source, None if module is None else name))

    def forward(self, x: Tensor) -> Tensor:
        nodes = {0: x}
        for node, inputs in self.inputs.items():
            for source, name in inputs:
                term = nodes[source] if name is None else self.get_submodule(name)(nodes[source])
                nodes[node] = nodes[node] + term if node in nodes else term
        return nodes[3]


class Residual(nn.Module):
    """The residual block between two stages, which halves the size and doubles the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_a = _relu_conv_bn(in_channels, out_channels, 3, 2)
        self.conv_b = _relu_conv_bn(out_channels, out_channels, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, stride=2), conv(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_b(self.conv_a(x))
        shortcut: Tensor = self.shortcut(x)
        return y + shortcut


class Sum(nn.Module):
    """An addition as a network of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x


def stem() -> nn.Sequential:
    """Return the module before the cells."""
    return nn.Sequential(conv(3, 16, 3), batch_norm(16))


class Tail(nn.Module):
    """The modules after the cells: batch norm, ReLU, mean, classifier.

    Args:
        earlier: modules of a subclass that run before, so that exported files list weights in that order.
    """

    def __init__(self, num_classes: int, **earlier: nn.Module) -> None:
        super().__init__()
        for name, module in earlier.items():
            self.add_module(name, module)
        self.last = nn.Sequential(batch_norm(64), nn.ReLU())
        self.classifier = linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.last(x).mean((2, 3)))
        return y


class Network(Tail):
    """A network: stem, three stages of five cells with 16, 32 and 64 channels, residual blocks between them, tail."""

    stem: nn.Sequential
    body: nn.Sequential

    def __init__(self, edges: Sequence[tuple[int, int, str]], num_classes: int) -> None:
        body: list[nn.Module] = [Cell(edges, 16) for _ in range(5)]
        for channels in (32, 64):
            body.append(Residual(channels // 2, channels))
            body += [Cell(edges, channels) for _ in range(5)]
        super().__init__(num_classes, stem=stem(), body=nn.Sequential(*body))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.body(self.stem(x)))
