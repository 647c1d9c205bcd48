"""Small networks that together use every operator an exporter must know. Input: n x 8 x 12 x 12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (8, 12, 12)


class Net(nn.Module):
    """`function(layers..., x)`, with the layers as attributes of the first argument."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, nn.Parameter(layer) if isinstance(layer, Tensor) else layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def conv(*args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(8, *args, **kwargs)


def function(of: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(lambda _, x: of(x))


def conv_bn(**kwargs: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, **kwargs), nn.BatchNorm2d(16))


def read_twice() -> nn.Module:
    """Read a convolution's output as well as its batch norm's: the norm may not be folded."""
    return Net(lambda m, x: torch.cat([m.bn(y := m.conv(x)), y], 1), conv=nn.Conv2d(8, 4, 1), bn=nn.BatchNorm2d(4))


def relu_read_twice() -> nn.Module:
    """Read a convolution's output before its ReLU, too: the ReLU may not be fused."""
    return Net(lambda m, x: F.relu(y := m.conv(x)) - y, conv=nn.Conv2d(8, 4, 1))


def shared_layer() -> nn.Module:
    """Call one convolution twice, with and without a batch norm after it."""
    return Net(
        lambda m, x: m.bn(m.conv(x)) + m.conv(F.relu(x)), conv=nn.Conv2d(8, 8, 3, padding=1), bn=nn.BatchNorm2d(8)
    )


def squeeze_excite() -> nn.Module:
    return Net(
        lambda m, x: x * m.gate(m.up(m.act(m.down(x.mean((2, 3), keepdim=True))))),
        down=nn.Conv2d(8, 4, 1),
        act=nn.ReLU(),
        up=nn.Conv2d(4, 8, 1),
        gate=nn.Hardsigmoid(),
    )


def classifier() -> nn.Module:
    return Net(
        lambda m, x: m.linear(torch.flatten(F.relu(m.pool(x)), 1)), pool=nn.AdaptiveAvgPool2d(1), linear=nn.Linear(8, 5)
    )


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def residual(stride: int) -> nn.Module:
    return Net(
        lambda m, x: m.body(x) + m.shortcut(x),
        body=nn.Sequential(nn.ReLU(), nn.Conv2d(8, 16, 3, stride, 1, bias=False), nn.BatchNorm2d(16)),
        shortcut=nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(8, 16, 1, bias=False)),
    )


def attention() -> nn.Module:
    """Attend from each of the 144 pixels to all, with two heads."""

    def forward(m: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (part.reshape(-1, 144, 2, 4).transpose(1, 2) for part in (m.q(tokens), m.k(tokens), m.v(tokens)))
        mixed = torch.softmax(q @ k.transpose(2, 3), -1) @ v
        found: Tensor = tokens + m.out(mixed.transpose(1, 2).reshape(-1, 144, 8))
        return found

    return Net(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8), out=nn.Linear(8, 8))


def split_heads() -> nn.Module:
    """Split the channels of one linear layer in three, of which one is indexed."""

    def forward(m: Any, x: Tensor) -> Tensor:
        parts = torch.chunk(m.linear(x.permute(0, 2, 3, 1)), 3, -1)
        return parts[0] * parts[1] + parts[2]

    return Net(forward, linear=nn.Linear(8, 12))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv-1x1": conv(16, 1),
    "conv-3x3": conv(16, 3, padding=1),
    "conv-3x3-valid": conv(16, 3),
    "conv-no-bias": conv(16, 3, padding=1, bias=False),
    "conv-stride2-even": conv(16, 3, stride=2, padding=1),
    "conv-stride2-odd": lambda: nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 16, 3, stride=2, padding=1)),
    "conv-stride2-1x1": conv(16, 1, stride=2),
    "conv-stride3-5x5": conv(16, 5, stride=3, padding=2),
    "conv-overpadded": conv(16, 3, padding=2),
    "conv-1x3": conv(16, (1, 3), padding=(0, 1)),
    "conv-dilated": conv(16, 3, padding=2, dilation=2),
    "conv-padding-same": conv(16, 3, padding="same"),
    "conv-padding-valid": conv(16, 3, padding="valid"),
    "conv-functional": lambda: Net(lambda m, x: F.conv2d(x, m.w, None, 1, 1), w=torch.randn(6, 8, 3, 3)),
    "grouped-1x1": conv(16, 1, groups=2),
    "grouped-3x3": conv(16, 3, padding=1, groups=4),
    "depthwise": conv(8, 3, padding=1, groups=8),
    "depthwise-5x5-stride2": conv(8, 5, stride=2, padding=2, groups=8),
    "depthwise-dilated": conv(8, 3, padding=2, dilation=2, groups=8),
    "depthwise-multiplier": conv(24, 3, padding=1, groups=8),
    "conv-bn": conv_bn,
    "conv-nobias-bn-relu": lambda: nn.Sequential(conv_bn(bias=False), nn.ReLU()),
    "conv-bn-read-twice": read_twice,
    "conv-relu-read-twice": relu_read_twice,
    "conv-shared": shared_layer,
    "conv-add-relu6": lambda: Net(lambda m, x: F.relu6(m.conv(x) + 3.0), conv=nn.Conv2d(8, 8, 1)),
    "bn-relu": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()),
    "bn-not-affine": lambda: nn.BatchNorm2d(8, affine=False),
    "bn-of-features": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8)),
    "relu": lambda: nn.ReLU(inplace=False),
    "relu-method": function(lambda x: x.relu()),
    "relu6": nn.ReLU6,
    "clamp": function(lambda x: x.clamp(0, 6) + x.clamp(min=0)),
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish-as-written": function(lambda x: x * F.relu6(x + 3.0) / 6.0),
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "avg-pool-same": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "avg-pool-2x2": lambda: nn.AvgPool2d(2, 2),
    "avg-pool-counting": lambda: nn.AvgPool2d(3, 2, 1),
    "max-pool-2x2": lambda: nn.MaxPool2d(2),
    "max-pool-same": lambda: nn.MaxPool2d(3, 1, 1),
    "max-pool-stride2": lambda: nn.MaxPool2d(3, 2, 1),
    "relu-max-pool-stride2": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "adaptive-pool-1": lambda: nn.AdaptiveAvgPool2d(1),
    "adaptive-pool-4": lambda: nn.AdaptiveAvgPool2d((4, 3)),
    "mean": function(lambda x: x.mean((2, 3))),
    "mean-keepdim": function(lambda x: torch.mean(x, [2, 3], keepdim=True)),
    "two-means": function(lambda x: x.mean(3).mean(2)),
    "two-means-keepdim": function(lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True)),
    "mean-of-channels": function(lambda x: x.mean(1)),
    "linear-classifier": classifier,
    "linear-of-image": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 12 * 12, 5)),
    "linear-3d": lambda: Net(lambda m, x: m.linear(x.flatten(2)), linear=nn.Linear(144, 5, bias=False)),
    "add-itself": function(lambda x: x + x),
    "add-pruned": function(lambda x: F.relu(x) + F.relu(x)),
    "subtract-from": function(lambda x: 3.0 - x),
    "divide": function(lambda x: x / (x * x + 1.0)),
    "scalar-arithmetic": function(lambda x: (2 * x - 1) / 4 + torch.mul(x, 0.5)),
    "times-zero": function(lambda x: x * 0.0 + x),
    "constant-per-channel": lambda: Net(
        lambda m, x: x * m.scale + m.map, scale=torch.randn(8, 1, 1), map=torch.randn(12, 12)
    ),
    "constant-folded": lambda: Net(lambda m, x: x * (m.scale.view(1, 8, 1, 1) * 2), scale=torch.randn(8)),
    "squeeze-excite": squeeze_excite,
    "reshape-channels": function(lambda x: x.reshape(x.shape[0], 4, -1, 12).mean(3)),
    "flatten-image": function(lambda x: x.flatten(1)),
    "view-of-sizes": function(lambda x: x.view(x.size(0), x.size(1), -1)),
    "unsqueeze-squeeze": function(lambda x: x.mean((2, 3)).unsqueeze(-1).unsqueeze(-1).squeeze(3) * 2),
    "permute": function(lambda x: x.permute(0, 2, 3, 1) + 1.0),
    "transpose-images": function(lambda x: F.relu(x.transpose(2, 3))),
    "channel-shuffle": function(shuffle),
    "grouped-shuffled": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 1, groups=2), nn.ReLU(), Net(lambda _, x: shuffle(x)), nn.Conv2d(8, 4, 1, groups=2)
    ),
    "cat": function(lambda x: torch.cat([x, F.relu(x), x * 2], dim=1)),
    "cat-transposed": function(lambda x: torch.cat([x.transpose(2, 3), x], dim=-1)),
    "attention": attention,
    "matmul-images": function(lambda x: torch.matmul(x, F.relu(x).transpose(2, 3))),
    "matmul-plain": function(lambda x: torch.bmm(x.flatten(2), F.relu(x).flatten(2).transpose(1, 2))),
    "softmax-of-channels": function(lambda x: F.softmax(3 * x, 1)),
    "softmax-layer": lambda: nn.Softmax(-1),
    "layer-norm": lambda: Net(lambda m, x: m.norm(x.permute(0, 2, 3, 1)), norm=nn.LayerNorm(8)),
    "layer-norm-of-images": lambda: nn.LayerNorm([12, 12], eps=1e-3, elementwise_affine=False),
    "gelu": nn.GELU,
    "gelu-tanh": function(lambda x: F.gelu(x, approximate="tanh")),
    "chunk": split_heads,
    "split-sizes": function(lambda x: torch.cat(torch.split(x, [3, 5], 1)[::-1], 1)),
    "index": function(lambda x: x[:, 2:5, 1:] * x[:, 1:2, -1, 4].reshape(-1, 1, 1, 1)),
    "class-token": lambda: Net(lambda m, x: m.linear(x.flatten(2).transpose(1, 2)[:, 0]), linear=nn.Linear(8, 5)),
    "identity-dropout": lambda: nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.ReLU()),
    "residual": lambda: residual(2),
    "several-outputs": function(lambda x: (F.relu(x), x.mean((2, 3)))),
}


def network(name: str) -> nn.Module:
    """Return a network in eval mode, with seeded weights and batch-norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = NETWORKS[name]()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)
                if layer.affine:
                    nn.init.normal_(layer.weight, 1.0, 0.2)
                    nn.init.normal_(layer.bias)
    return module.eval()


UNSUPPORTED_BY_TFLITE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "function": (function(lambda x: torch.cumsum(x, 1)), "cumsum"),
    "method": (function(lambda x: x.cumsum(1)), "cumsum"),
    "layer": (lambda: nn.GroupNorm(2, 8), "GroupNorm"),
    "padding-mode": (conv(4, 3, padding=1, padding_mode="reflect"), "reflect"),
    "arguments": (function(lambda x: x.mean(1, dtype=torch.float64)), "mean"),
    "ceil-mode": (lambda: nn.MaxPool2d(5, 2, ceil_mode=True), "ceil_mode"),
    "uncounted-padding": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), "not counted"),
    "ranks": (function(lambda x: x + x.mean((0, 1))), "ranks"),
    "matrix-of-weights": (lambda: Net(lambda m, x: x @ m.w, w=torch.randn(12, 3)), "nn.Linear"),
    "step": (function(lambda x: x[:, ::2]), "index"),
    "control-flow": (function(lambda x: x if x.sum() > 0 else -x), "depends on the input"),
}
"""Networks that the TFLite writer must refuse, and what its message must name."""
