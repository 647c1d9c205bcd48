"""Standard networks, built here in torch with random weights: what `any_graph.py` predicts and measures.

They follow the papers in their shapes, which is what latency depends on. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish, "silu": nn.SiLU, "leaky": partial(nn.LeakyReLU, 0.1),
}  # fmt: skip


def cbr(c: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: str | None = "relu") -> nn.Sequential:
    """Return a convolution with batch norm and activation."""
    rows: list[nn.Module] = [nn.Conv2d(c, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*rows, *([ACTIVATIONS[act]()] if act else []))


class Residual(nn.Module):
    def __init__(self, body: nn.Module, skip: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.skip, self.after = body, skip or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.skip(x) + self.body(x))


class Branches(nn.Module):
    """Branches side by side, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Head(nn.Module):
    def __init__(self, c: int, classes: int = 1000) -> None:
        super().__init__()
        self.linear = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


def resnet(depths: Sequence[int], bottleneck: bool, groups: int = 1, width: int = 64) -> nn.Module:
    """He et al. 2016; with groups, Xie et al. 2017."""
    rows: list[nn.Module] = [cbr(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for stage, depth in enumerate(depths):
        w, o = width * 2**stage, (256 if bottleneck else 64) * 2**stage
        for block in range(depth):
            s = 2 if stage and not block else 1
            if bottleneck:
                body = nn.Sequential(cbr(c, w, 1), cbr(w, w, 3, s, groups), cbr(w, o, 1, act=None))
            else:
                body = nn.Sequential(cbr(c, o, 3, s), cbr(o, o, act=None))
            rows.append(Residual(body, cbr(c, o, 1, s, act=None) if s > 1 or c != o else None, nn.ReLU()))
            c = o
    return nn.Sequential(*rows, Head(c))


class SE(nn.Module):
    def __init__(self, c: int, squeezed: int, hard: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, squeezed, 1), nn.Conv2d(squeezed, c, 1)
        self.gate, self.act = (nn.Hardsigmoid(), nn.ReLU()) if hard else (nn.Sigmoid(), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))))


def inverted(c: int, o: int, e: int, k: int, s: int, act: str, se: int = 0) -> nn.Module:
    """Sandler et al. 2018; with `se` channels of squeeze and excitation, Howard et al. 2019."""
    rows = [cbr(c, e, 1, act=act)] if e != c else []
    rows.append(cbr(e, e, k, s, e, act))
    if se:
        rows.append(SE(e, se, act != "silu"))
    body = nn.Sequential(*rows, cbr(e, o, 1, act=None))
    return Residual(body) if s == 1 and c == o else body


def mobilenet_v1() -> nn.Module:
    plan = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    plan += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    rows = [nn.Sequential(cbr(c, c, 3, s, c), cbr(c, o, 1)) for c, o, s in plan]
    return nn.Sequential(cbr(3, 32, 3, 2), *rows, Head(1024))


def mobilenet_v2(width: float = 1.0) -> nn.Module:
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    c, rows = int(32 * width), [cbr(3, int(32 * width), 3, 2, act="relu6")]
    for t, out, n, s in plan:
        for i in range(n):
            o = max(8, int(out * width) // 8 * 8)
            rows.append(inverted(c, o, c * t, 3, s if i == 0 else 1, "relu6"))
            c = o
    return nn.Sequential(*rows, cbr(c, 1280, 1, act="relu6"), Head(1280))


def mobilenet_v3() -> nn.Module:
    plan = [
        (16, 16, 3, 1, "relu", 0), (64, 24, 3, 2, "relu", 0), (72, 24, 3, 1, "relu", 0), (72, 40, 5, 2, "relu", 24),
        (120, 40, 5, 1, "relu", 32), (120, 40, 5, 1, "relu", 32), (240, 80, 3, 2, "hswish", 0),
        (200, 80, 3, 1, "hswish", 0), (184, 80, 3, 1, "hswish", 0), (184, 80, 3, 1, "hswish", 0),
        (480, 112, 3, 1, "hswish", 120), (672, 112, 3, 1, "hswish", 168), (672, 160, 5, 2, "hswish", 168),
        (960, 160, 5, 1, "hswish", 240), (960, 160, 5, 1, "hswish", 240),
    ]  # fmt: skip
    c, rows = 16, [cbr(3, 16, 3, 2, act="hswish")]
    for e, o, k, s, act, se in plan:
        rows.append(inverted(c, o, e, k, s, act, se))
        c = o
    return nn.Sequential(*rows, cbr(160, 960, 1, act="hswish"), Head(960))


def efficientnet_b0() -> nn.Module:
    """Tan and Le 2019."""
    plan = [
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
    ]
    c, rows = 32, [cbr(3, 32, 3, 2, act="silu")]
    for t, o, n, s, k in [*plan, (6, 320, 1, 1, 3)]:
        for i in range(n):
            rows.append(inverted(c, o, c * t, k, s if i == 0 else 1, "silu", max(1, c // 4)))
            c = o
    return nn.Sequential(*rows, cbr(320, 1280, 1, act="silu"), Head(1280))


def vgg(plan: Sequence[int], norm: bool = False) -> nn.Module:
    c, rows = 3, []
    for o in plan:
        if not o:
            rows.append(nn.MaxPool2d(2, 2))
            continue
        rows.append(cbr(c, o) if norm else nn.Sequential(nn.Conv2d(c, o, 3, padding=1), nn.ReLU()))
        c = o
    dense = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*rows, nn.Flatten(), *dense)


def alexnet() -> nn.Module:
    rows: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2)]
    rows += [nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1)]
    rows += [nn.ReLU(), nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten()]
    return nn.Sequential(
        *rows, nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)
    )


def squeezenet() -> nn.Module:
    def fire(c: int, s: int, e: int) -> nn.Module:
        return nn.Sequential(cbr(c, s, 1), Branches(cbr(s, e, 1), cbr(s, e, 3)))

    rows: list[nn.Module] = [cbr(3, 64, 3, 2), nn.MaxPool2d(3, 2), fire(64, 16, 64), fire(128, 16, 64)]
    rows += [nn.MaxPool2d(3, 2), fire(128, 32, 128), fire(256, 32, 128), nn.MaxPool2d(3, 2), fire(256, 48, 192)]
    rows += [fire(384, 48, 192), fire(384, 64, 256), fire(512, 64, 256), nn.Conv2d(512, 1000, 1), nn.ReLU()]
    return nn.Sequential(*rows, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def densenet(depths: Sequence[int] = (6, 12, 24, 16), growth: int = 32) -> nn.Module:
    """Huang et al. 2017, norms after convolutions."""
    rows: list[nn.Module] = [cbr(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            rows.append(Branches(nn.Identity(), nn.Sequential(cbr(c, 4 * growth, 1), cbr(4 * growth, growth))))
            c += growth
        if stage < len(depths) - 1:
            rows += [cbr(c, c // 2, 1), nn.AvgPool2d(2, 2)]
            c //= 2
    return nn.Sequential(*rows, Head(c))


def inception() -> nn.Module:
    """Szegedy et al. 2015."""

    def block(c: int, a: int, b: tuple[int, int], d: tuple[int, int], e: int) -> nn.Module:
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), cbr(c, e, 1))
        wide = nn.Sequential(cbr(c, d[0], 1), cbr(*d, 5))
        return Branches(cbr(c, a, 1), nn.Sequential(cbr(c, b[0], 1), cbr(*b)), wide, pool)

    rows: list[nn.Module] = [cbr(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1), cbr(64, 64, 1), cbr(64, 192)]
    rows += [nn.MaxPool2d(3, 2, 1), block(192, 64, (96, 128), (16, 32), 32), block(256, 128, (128, 192), (32, 96), 64)]
    rows += [nn.MaxPool2d(3, 2, 1), block(480, 192, (96, 208), (16, 48), 64), block(512, 160, (112, 224), (24, 64), 64)]
    rows += [block(512, 256, (160, 320), (32, 128), 128), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*rows, block(832, 384, (192, 384), (48, 128), 128), Head(1024))


class LayerNorm2d(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)


def convnext(widths: Sequence[int] = (96, 192, 384, 768), depths: Sequence[int] = (3, 3, 9, 3)) -> nn.Module:
    """Liu et al. 2022."""
    rows: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0])]
    for stage, (c, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            rows += [LayerNorm2d(widths[stage - 1]), nn.Conv2d(widths[stage - 1], c, 2, 2)]
        rows += [ConvNextBlock(c) for _ in range(depth)]
    return nn.Sequential(*rows, Head(widths[-1]))


class Attention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads, self.d = nn.Linear(d, 3 * d), nn.Linear(d, d), heads, d

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (one.reshape(n, t, self.heads, -1).transpose(1, 2) for one in self.qkv(x).chunk(3, 2))
        scores = torch.softmax(q @ k.transpose(2, 3) * (self.d // self.heads) ** -0.5, 3)
        return self.out((scores @ v).transpose(1, 2).reshape(n, t, self.d))


class TransformerBlock(nn.Module):
    def __init__(self, d: int, heads: int, wide: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(d), Attention(d, heads), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, wide), nn.GELU(), nn.Linear(wide, d))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Dosovitskiy et al. 2021, its mean as the class token."""

    def __init__(self, d: int, heads: int, depth: int, patch: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, d, patch, patch)
        self.blocks = nn.Sequential(*(TransformerBlock(d, heads, 4 * d) for _ in range(depth)), nn.LayerNorm(d))
        self.head = nn.Linear(d, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Mixer(nn.Module):
    """Tolstikhin et al. 2021."""

    def __init__(self, d: int = 256, tokens: int = 196, depth: int = 8) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, d, 16, 16)
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(tokens, d), nn.GELU(), nn.Linear(d, tokens)) for _ in range(depth)
        )
        self.along = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d)) for _ in range(depth)
        )
        self.head = nn.Linear(d, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for across, along in zip(self.across, self.along, strict=True):
            x = x + across(x.transpose(1, 2)).transpose(1, 2)
            x = x + along(x)
        return self.head(x.mean(1))


def double(c: int, o: int) -> nn.Module:
    return nn.Sequential(cbr(c, o), cbr(o, o))


class UNet(nn.Module):
    """Ronneberger et al. 2015, with nearest or transposed up-sampling."""

    def __init__(self, w: int = 16, transposed: bool = False) -> None:
        super().__init__()
        widths = [w, 2 * w, 4 * w, 8 * w]
        self.down = nn.ModuleList(double(c, o) for c, o in zip([3, *widths], widths, strict=False))
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(c, o, 2, 2) if transposed else nn.Sequential(nn.Upsample(scale_factor=2), cbr(c, o, 1))
            for c, o in ups
        )
        self.up = nn.ModuleList(double(2 * o, o) for _, o in ups)
        self.head = nn.Conv2d(w, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for at, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if at else x)
            kept.append(x)
        for grow, block, skip in zip(self.grow, self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([grow(x), skip], 1))
        return self.head(x)


class TinyYolo(nn.Module):
    """A small one-stage detector with two heads (after Redmon and Farhadi 2018)."""

    def __init__(self, act: str = "leaky") -> None:
        super().__init__()
        down = [3, 16, 32, 64, 128]
        rows = [nn.Sequential(cbr(c, o, act=act), nn.MaxPool2d(2, 2)) for c, o in pairwise(down)]
        self.early = nn.Sequential(*rows, cbr(128, 256, act=act))
        self.late = nn.Sequential(nn.MaxPool2d(2, 2), cbr(256, 512, act=act), cbr(512, 256, 1, act=act))
        self.big = nn.Sequential(cbr(256, 512, act=act), nn.Conv2d(512, 255, 1))
        self.mid = nn.Sequential(cbr(256, 128, 1, act=act), nn.Upsample(scale_factor=2))
        self.small = nn.Sequential(cbr(384, 256, act=act), nn.Conv2d(256, 255, 1))

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        late = self.late(early)
        fine = self.small(torch.cat([self.mid(late), early], 1))
        return torch.cat([torch.sigmoid(self.big(late)).flatten(2), torch.sigmoid(fine).flatten(2)], 2)


class SSDLite(nn.Module):
    """MobileNetV2 with detection heads of depthwise convolutions on four scales."""

    def __init__(self) -> None:
        super().__init__()
        rows = list(mobilenet_v2())
        self.first, self.second = nn.Sequential(*rows[:14]), nn.Sequential(*rows[14:19])
        self.more = nn.ModuleList(inverted(c, o, c // 2, 3, 2, "relu6") for c, o in ((1280, 512), (512, 256)))
        self.heads = nn.ModuleList(
            nn.Sequential(cbr(c, c, 3, 1, c, "relu6"), nn.Conv2d(c, 6 * 25, 1)) for c in (96, 1280, 512, 256)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.first(x)]
        maps.append(self.second(maps[0]))
        for block in self.more:
            maps.append(block(maps[-1]))
        return torch.cat([head(one).flatten(2) for head, one in zip(self.heads, maps, strict=True)], 2)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], d: int, h: int, layers: int = 1, both: bool = False) -> None:
        super().__init__()
        self.rnn = kind(d, h, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(h * (1 + both), 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].mean(1))


class Sequence1d(nn.Module):
    """Dilated convolutions over time (after Bai et al. 2018)."""

    def __init__(self, c: int = 64, depth: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv1d(40, c, 1)
        self.body = nn.ModuleList(nn.Conv1d(c, c, 3, padding=2 ** (i % 4), dilation=2 ** (i % 4)) for i in range(depth))
        self.head = nn.Linear(c, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.transpose(1, 2))
        for conv in self.body:
            x = x + F.relu(conv(x))
        return self.head(x.mean(2))


class Encoder(nn.Module):
    """A Transformer encoder of embedded tokens (Vaswani et al. 2017)."""

    def __init__(self, d: int, heads: int, wide: int, depth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(TransformerBlock(d, heads, wide) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean(1)


def super_resolution() -> nn.Module:
    return nn.Sequential(cbr(3, 64, 5), cbr(64, 32), nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2))


def denoiser() -> nn.Module:
    return Residual(nn.Sequential(cbr(1, 64), *(cbr(64, 64) for _ in range(8)), nn.Conv2d(64, 1, 3, padding=1)))


def autoencoder() -> nn.Module:
    down = [nn.Sequential(nn.Conv2d(c, o, 4, 2, 1), nn.ReLU()) for c, o in ((3, 32), (32, 64), (64, 128))]
    up = [nn.Sequential(nn.ConvTranspose2d(c, o, 4, 2, 1), nn.ReLU()) for c, o in ((128, 64), (64, 32))]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Sigmoid())


def mlp(widths: Sequence[int]) -> nn.Module:
    return nn.Sequential(*(m for c, o in pairwise(widths) for m in (nn.Linear(c, o), nn.ReLU())))


VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
IMAGE = (3, 224, 224)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: resnet((2, 2, 2, 2), False), IMAGE),
    "resnet34": (lambda: resnet((3, 4, 6, 3), False), IMAGE),
    "resnet50": (lambda: resnet((3, 4, 6, 3), True), IMAGE),
    "resnext50": (lambda: resnet((3, 4, 6, 3), True, 32, 128), IMAGE),
    "resnet18 at 128": (lambda: resnet((2, 2, 2, 2), False), (3, 128, 128)),
    "mobilenet_v1": (mobilenet_v1, IMAGE),
    "mobilenet_v2": (mobilenet_v2, IMAGE),
    "mobilenet_v2 x0.5 at 160": (lambda: mobilenet_v2(0.5), (3, 160, 160)),
    "mobilenet_v3": (mobilenet_v3, IMAGE),
    "efficientnet_b0": (efficientnet_b0, IMAGE),
    "vgg11": (lambda: vgg(VGG11), IMAGE),
    "vgg16": (lambda: vgg(VGG16, True), IMAGE),
    "alexnet": (alexnet, IMAGE),
    "squeezenet": (squeezenet, IMAGE),
    "densenet121": (densenet, IMAGE),
    "inception": (inception, IMAGE),
    "convnext_tiny": (convnext, IMAGE),
    "convnext_pico": (lambda: convnext((64, 128, 256, 512), (2, 2, 6, 2)), IMAGE),
    "vit_tiny": (lambda: ViT(192, 3, 12), IMAGE),
    "vit_small at 32": (lambda: ViT(384, 6, 8, 32), IMAGE),
    "mixer": (Mixer, IMAGE),
    "unet": (UNet, (3, 128, 128)),
    "unet transposed": (lambda: UNet(32, True), (3, 96, 96)),
    "tiny_yolo": (TinyYolo, (3, 320, 320)),
    "tiny_yolo silu": (lambda: TinyYolo("silu"), (3, 256, 256)),
    "ssdlite": (SSDLite, (3, 320, 320)),
    "lstm": (lambda: Recurrent(nn.LSTM, 40, 128), (100, 40)),
    "bilstm": (lambda: Recurrent(nn.LSTM, 128, 256, 2, True), (50, 128)),
    "gru": (lambda: Recurrent(nn.GRU, 80, 256, 2), (80, 80)),
    "tcn": (Sequence1d, (200, 40)),
    "encoder small": (lambda: Encoder(128, 2, 512, 2), (128, 128)),
    "encoder base": (lambda: Encoder(512, 8, 2048, 4), (64, 512)),
    "super_resolution": (super_resolution, (3, 128, 128)),
    "denoiser": (denoiser, (1, 96, 96)),
    "autoencoder": (autoencoder, (3, 128, 128)),
    "mlp": (lambda: mlp((784, 1024, 1024, 512, 10)), (784,)),
}
"""What makes each network, and the shape of its input without the batch."""
