"""Inputs and outputs of every shape and class, modules of every kind, and what there is to refuse."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo.entry import images, rows, series, zoo

__all__: list[str] = []

# --- sets, graphs, tables


@zoo("own", rows((16,)), fast=True)
def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))


class DeepSets(nn.Module):
    """A sum over a set of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(3, 32), nn.ReLU())
        self.all = nn.Linear(64, 4)

    def forward(self, points: Tensor) -> Tensor:
        each = self.each(points)
        return self.all(torch.cat([each.mean(1), each.amax(1)], 1))


@zoo("own", series(20, 50, 33, channels=3, last=False))
def deep_sets() -> nn.Module:
    return DeepSets()


class PointNet(nn.Module):
    """Shared layers over points, a learned transformation, a label for each point."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.turn, self.label = nn.Linear(16, 9), nn.Conv1d(32, 4, 1)

    def forward(self, points: Tensor) -> Tensor:
        turn = self.turn(self.local(points).amax(2)).view(-1, 3, 3) + torch.eye(3, device=points.device)
        local = self.local(turn @ points)
        return self.label(torch.cat([local, local.amax(2, keepdim=True).expand_as(local)], 1))


@zoo("own", series(20, 50, 33, channels=3))
def point_net() -> nn.Module:
    return PointNet()


class GraphConv(nn.Module):
    """Messages along edges: one graph of any number of nodes and edges."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(16, 16), nn.Linear(24, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index[0], edge_index[1]
        messages = self.message(torch.cat([x[source], x[target]], 1)).relu()
        received = torch.zeros(x.shape[0], 16, device=x.device).index_add(0, target, messages)
        return self.update(torch.cat([x, received], 1))


@zoo("own", lambda: [
    {"x": torch.randn(n, 8), "edge_index": torch.randint(0, 10, (2, e)), "y": torch.zeros(n)}
    for n, e in ((12, 30), (10, 22), (17, 41))
], repair=lambda given: given["edge_index"].remainder_(len(given["x"])))  # fmt: skip
def graph_convolution() -> nn.Module:
    return GraphConv()


class DenseGraph(nn.Module):
    """Convolution with an adjacency matrix, a batch of graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        norm = adjacency / adjacency.abs().sum(-1, keepdim=True).clamp_min(1)
        return self.second(norm @ self.first(norm @ nodes).relu()).mean(1)


@zoo("own", lambda: [
    {"nodes": torch.randn(b, n, 8), "adjacency": torch.randn(b, n, n)} for b, n in ((4, 6), (4, 11), (3, 8))
])  # fmt: skip
def dense_graph() -> nn.Module:
    return DenseGraph()


class Ranker(nn.Module):
    """Embeddings of categories, numbers beside them, a product of towers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 8) for size in (5, 20, 11))
        self.bag = nn.EmbeddingBag(30, 8, mode="mean")
        self.numbers, self.out = nn.Linear(4, 8), nn.Linear(8 + 10, 1)

    def forward(self, categories: Tensor, history: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        parts = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        stacked = torch.stack([*parts, self.bag(history), self.numbers(numbers)], 1)
        i, j = torch.triu_indices(5, 5, 1)
        crossed = (stacked @ stacked.transpose(1, 2))[:, i, j]
        return {"score": self.out(torch.cat([stacked[:, -1], crossed], 1)).sigmoid(), "crossed": crossed}


@zoo("own", lambda: [
    {"categories": torch.randint(0, 5, (n, 3)), "history": torch.randint(0, 30, (n, 6)), "numbers": torch.randn(n, 4)}
    for n in (4, 4, 3)
])  # fmt: skip
def recommender() -> nn.Module:
    return Ranker()


class Nerf(nn.Module):
    """Colours and densities of points, with a positional encoding."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.Sequential(nn.Linear(39, 64), nn.ReLU(), nn.Linear(64, 64)), nn.Linear(67, 4)

    def forward(self, position: Tensor, direction: Tensor) -> dict[str, Tensor]:
        scaled = position[..., None] * 2.0 ** torch.arange(6, device=position.device)
        encoded = torch.cat([position, scaled.sin().flatten(-2), scaled.cos().flatten(-2)], -1)
        out = self.head(torch.cat([self.net(encoded), F.normalize(direction, dim=-1)], -1))
        return {"rgb": out[..., :3].sigmoid(), "density": F.softplus(out[..., 3])}


@zoo("own", rows((3,), (3,)))
def nerf() -> nn.Module:
    return Nerf()


class Vae(nn.Module):
    """Encoder, decoder, and the distribution; noise in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 8), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encoder(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (spread / 2).exp() if self.training else mean
        return self.decoder(z), mean, spread


@zoo("own", rows((16,)))
def vae() -> nn.Module:
    return Vae()


class Kan(nn.Module):
    """Kolmogorov-Arnold layer: a polynomial on each edge."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(8, 4, 5) / 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.tanh()
        terms = [torch.ones_like(x), x]
        for _ in range(3):
            terms.append(2 * x * terms[-1] - terms[-2])
        return torch.einsum("bid,iod->bo", torch.stack(terms, -1), self.weights)


@zoo("own", rows((8,)))
def kolmogorov_arnold() -> nn.Module:
    return Kan()


class Triplet(nn.Module):
    """Three inputs, one net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 8))

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Any:
        a, p, n = (F.normalize(self.net(x), dim=1) for x in (anchor, positive, negative))
        return (a - p).norm(dim=1), (a - n).norm(dim=1), [a, p, n]


@zoo("own", rows((1, 16, 16), (1, 16, 16), (1, 16, 16)))
def triplet() -> nn.Module:
    return Triplet()


# --- containers


@dataclass
class Sample:
    """A batch of a class of one's own."""

    image: Tensor
    scale: Tensor


@dataclass
class Prediction:
    """A result of a class of one's own."""

    mask: Tensor
    score: Tensor
    auxiliary: list[Tensor] | None = None


class FromDataclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, sample: Sample) -> Prediction:
        mask = self.net(sample.image) * sample.scale[:, None, None, None]
        return Prediction(mask, mask.amax((1, 2, 3)))


@zoo("own", lambda: [Sample(torch.randn(n, 3, 16, 16), torch.rand(n)) for n in (4, 4, 3)], fast=True)
def dataclasses_in_and_out() -> nn.Module:
    return FromDataclass()


class Point(NamedTuple):
    """A result by name and place."""

    x: Tensor
    rest: dict[str, Tensor]


class ToNamedTuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Point:
        y = self.net(x)
        return Point(y, {"twice": y * 2})


@zoo("own", rows((4,)))
def named_tuple_out() -> nn.Module:
    return ToNamedTuple()


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)

    def forward(self, a: Tensor, pair: Any, several: Any, *, d: Any, scale: float = 2.0, flag: bool = False) -> Any:
        first = self.net(a) + pair[0]
        deep = {"x": (pair[1] * scale, several[0] - several[1]), "y": [d["q"].relu(), self.net(d["r"])]}
        return OrderedDict(first=first, deep=deep, flag=flag, none=None)


@zoo("own", lambda: [
    {"a": t(), "pair": (t(), t()), "several": [t(), t()], "d": {"q": t(), "r": t()}, "scale": 0.5, "flag": True}
    for t in (lambda n=n: torch.randn(n, 4) for n in (4, 4, 3))
])  # fmt: skip
def nested_with_constants() -> nn.Module:
    return Nested()


class Returns(nn.Module):
    """Buffers, an input, one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)
        self.register_buffer("anchors", torch.arange(12.0).reshape(3, 4))

    def forward(self, x: Tensor, unused: Tensor) -> Any:
        y = self.net(x)
        return y, y, x, y.view(-1, 2, 2), self.anchors, x.shape[0]


@zoo("own", rows((4,), (7,)))
def returns_anything() -> nn.Module:
    return Returns()


# --- partly in PyTorch


class Between(nn.Module):
    """Singular values stay in PyTorch, with engines before and behind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.register_buffer("k", torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        h = torch.linalg.svdvals(h.unsqueeze(-1) * self.k + torch.eye(8, device=x.device)) + h
        return self.c(self.b(h).relu())


@zoo("own", rows((8,)), fast=True)
def between_engines() -> nn.Module:
    return Between()


class Selects(nn.Module):
    """As many rows as the data say."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.net(x)
        return self.head(y[y.sum(-1) > 0]), y


@zoo("own", rows((4,)))
def selects_rows() -> nn.Module:
    return Selects()


# --- precisions


@zoo("own", images(32, dtype=torch.float16), fast=True)
def half_resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10).half()


@zoo("own", images(64, dtype=torch.bfloat16))
def bfloat16_vit() -> nn.Module:
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=10).bfloat16()


class Autocast(nn.Module):
    def __init__(self, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(8, 16), nn.Linear(16, 2), (device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.kind[0], dtype=self.kind[1]):
            h = self.a(x).relu()
        return self.b(h.float())


@zoo("own", rows((8,)), tolerance=2e-2)
def autocast_inside() -> nn.Module:
    return Autocast("cpu", torch.bfloat16)


@zoo("own", rows((8,)))
def autocast_for_cuda_inside() -> nn.Module:
    return Autocast("cuda", torch.float16)


@zoo("own", rows((8,), dtype=torch.float64), settings={"precision": "32"})
def float64() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU()).double()


# --- kinds of modules


class Classifier(L.LightningModule):
    """With metrics, a loss with weights, and hyperparameters."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, classes)
        self.metrics = MetricCollection([MulticlassAccuracy(classes), MulticlassF1Score(classes)])
        self.loss = nn.CrossEntropyLoss(weight=torch.rand(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).flatten(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self(batch[0])
        self.metrics.update(logits, batch[1])
        return self.loss(logits, batch[1])

    def predict_step(self, batch: Any) -> dict[str, Tensor]:
        p = self((batch[0] - 0.45) / 0.22).softmax(-1)
        return {"probability": p.amax(-1), "class": p.argmax(-1)}


@zoo("lightning", images(16), fast=True)
def lightning_with_metrics() -> nn.Module:
    return Classifier()


@zoo("lightning", images(16), method="predict_step")
def predict_step() -> nn.Module:
    return Classifier()


class Configured(L.LightningModule):
    """Makes its layers in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module | None = None

    def configure_model(self) -> None:
        if self.net is None:
            self.net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        assert self.net is not None, "a Trainer calls configure_model"
        return self.net(x)


@zoo("lightning", rows((8,)))
def configure_model() -> nn.Module:
    module = Configured()
    module.configure_model()
    return module


class CompiledInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net: Any = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        self.head = nn.Linear(8, 2)
        self.head.compile()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


@zoo("own", rows((8,)), fast=True)
def compiled_submodules() -> nn.Module:
    return CompiledInside()


@zoo("own", rows((8,)))
def compiled_whole() -> nn.Module:
    module: Any = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)))
    return module


class Lora(nn.Module):
    """A frozen layer with a low-rank correction."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x)) * 0.5


@zoo("own", rows((8,)))
def lora() -> nn.Module:
    return nn.Sequential(Lora(nn.Linear(8, 16)), nn.ReLU(), Lora(nn.Linear(16, 2)))


@zoo("own", rows((3, 16)))
def parametrized() -> nn.Module:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 8, 3))
    return nn.Sequential(normed, nn.ReLU(), nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(112, 4)))


@zoo("own", rows((3, 16)))
def weight_norm_by_hooks() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and in many a model
        normed = nn.utils.weight_norm(nn.Conv1d(3, 8, 3))
    return nn.Sequential(normed, nn.ReLU(), nn.Flatten(), nn.utils.spectral_norm(nn.Linear(112, 4)))


@zoo("own", rows((8,)))
def frozen_quantizer() -> nn.Module:
    class VectorQuantizer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.codes = nn.Linear(8, 4), nn.Embedding(16, 4)

        def forward(self, x: Tensor) -> Any:
            h = self.encoder(x)
            index = torch.cdist(h, self.codes.weight).argmin(-1)
            return self.codes(index), index

    return VectorQuantizer()


class Counts(nn.Module):
    """Writes to a buffer whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.net(x) + self.calls


@zoo("own", rows((4,)), refused="forward writes to the buffer calls")
def counts_its_calls() -> nn.Module:
    return Counts()
