"""Images and video: torchvision, timm, and what people build themselves."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo.entry import images, rows, zoo

__all__: list[str] = []

FREE = images((64, 96), (96, 64), (80, 80), (72, 104))
"""Images of any height and width."""
STEPS = images((64, 96), (96, 64), (128, 96), (96, 128))
"""Heights and widths that are multiples of 32."""

# --- torchvision


def tv(name: str, **options: Any) -> nn.Module:
    """A model of torchvision, without weights to download."""
    import torchvision

    module: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return module


@zoo("torchvision", images(64), fast=True)
def resnet18() -> nn.Module:
    return tv("resnet18", num_classes=10)


@zoo("torchvision", FREE)
def resnet18_free_size() -> nn.Module:
    return tv("resnet18", num_classes=10)


@zoo("torchvision", images(64))
def mobilenet_v3_small() -> nn.Module:
    return tv("mobilenet_v3_small", num_classes=10)


@zoo("torchvision", images(64))
def efficientnet_b0() -> nn.Module:
    return tv("efficientnet_b0", num_classes=10)


@zoo("torchvision", images(64))
def shufflenet_v2() -> nn.Module:
    return tv("shufflenet_v2_x0_5", num_classes=10)


@zoo("torchvision", images(64))
def squeezenet() -> nn.Module:
    return tv("squeezenet1_1", num_classes=10)


@zoo("torchvision", images(64))
def mnasnet() -> nn.Module:
    return tv("mnasnet0_5", num_classes=10)


@zoo("torchvision", images(64))
def regnet() -> nn.Module:
    return tv("regnet_y_400mf", num_classes=10)


@zoo("torchvision", images(64))
def densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=8, block_config=(2, 2, 2), num_init_features=16, num_classes=10)


@zoo("torchvision", images(64))
def googlenet() -> nn.Module:
    return tv("googlenet", num_classes=10, init_weights=False)


@zoo("torchvision", images(64))
def vgg() -> nn.Module:
    from torchvision.models.vgg import make_layers

    features = make_layers([16, "M", 32, "M", 64, 64, "M"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(64 * 49, 10))


@zoo("torchvision", images(64))
def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=10)


@zoo("torchvision", images(64))
def swin_transformer() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10)


@zoo("torchvision", images(64))
def maxvit() -> nn.Module:
    from torchvision.models import MaxVit

    return MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=10)


@zoo("torchvision", FREE)
def lraspp() -> nn.Module:
    return tv("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=4)


@zoo("torchvision", FREE)
def deeplab() -> nn.Module:
    return tv("deeplabv3_mobilenet_v3_large", weights_backbone=None, num_classes=4, aux_loss=True)


@zoo("torchvision", rows((3, 8, 32, 32)))
def video_r2plus1d() -> nn.Module:
    from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

    return VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [1, 1, 1, 1], R2Plus1dStem, num_classes=5)


@zoo("torchvision", rows((3, 8, 32, 32)))
def video_swin() -> nn.Module:
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 24, [2, 2], [2, 4], [4, 4, 4], num_classes=5)


def detection(sides: int = 64) -> Any:
    """Batches of detectors: lists of images and of targets."""
    return lambda: [([torch.rand(3, sides, sides) for _ in range(2)], [{}, {}]) for _ in range(3)]


@zoo("torchvision", detection(), refused="torch.export could not trace RetinaNet")
def retinanet() -> nn.Module:
    return tv("retinanet_resnet50_fpn", weights_backbone=None, num_classes=4, min_size=64, max_size=64)


@zoo("torchvision", detection(), refused="torch.export could not trace FasterRCNN")
def faster_rcnn() -> nn.Module:
    return tv("fasterrcnn_mobilenet_v3_large_320_fpn", weights_backbone=None, num_classes=4)


@zoo("torchvision", detection(320), refused="torch.export could not trace SSD")
def ssdlite() -> nn.Module:
    return tv("ssdlite320_mobilenet_v3_large", weights_backbone=None, num_classes=4)


class DetectorCore(nn.Module):
    """The network of a detector without the lists around it: boxes and scores of every anchor."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
        return result


@zoo("torchvision", images(64))
def fcos_core() -> nn.Module:
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    return DetectorCore(FCOS(backbone, num_classes=4))


@zoo("torchvision", images(320))
def ssdlite_core() -> nn.Module:
    return DetectorCore(ssdlite())


# --- timm


def timm_model(name: str, **options: Any) -> nn.Module:
    """A model of timm, without weights to download."""
    import timm

    module: nn.Module = timm.create_model(name, **{"num_classes": 10, **options})
    return module


@zoo("timm", images(64))
def convnext_atto() -> nn.Module:
    return timm_model("convnext_atto", depths=(1, 1, 2, 1))


@zoo("timm", images(64), fast=True)
def vit_tiny() -> nn.Module:
    return timm_model("vit_tiny_patch16_224", img_size=64, depth=2)


@zoo("timm", images(56))
def swin_tiny() -> nn.Module:
    return timm_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), embed_dim=24, num_heads=(2, 4))


@zoo("timm", images(64))
def mobilenetv4() -> nn.Module:
    return timm_model("mobilenetv4_conv_small_050")


@zoo("timm", images(64))
def mobilevit() -> nn.Module:
    return timm_model("mobilevit_xxs")


@zoo("timm", images(64))
def efficientvit() -> nn.Module:
    return timm_model("efficientvit_b0")


@zoo("timm", images(64))
def edgenext() -> nn.Module:
    return timm_model("edgenext_xx_small")


@zoo("timm", images(64))
def ghostnet() -> nn.Module:
    return timm_model("ghostnet_050")


@zoo("timm", images(64))
def repvgg() -> nn.Module:
    return timm_model("repvgg_a0")


@zoo("timm", images(64))
def mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=64, patch_size=16, num_blocks=2, embed_dim=64)


@zoo("timm", images(64))
def poolformer() -> nn.Module:
    from timm.models.metaformer import MetaFormer

    return MetaFormer(num_classes=10, depths=(1, 1, 1, 1), dims=(16, 32, 48, 64))


@zoo("timm", images(64))
def xcit() -> nn.Module:
    return timm_model("xcit_nano_12_p16_224", img_size=64, depth=2)


@zoo("timm", images(64))
def eva02() -> nn.Module:
    return timm_model("eva02_tiny_patch14_224", img_size=64, depth=2, patch_size=8)


@zoo("timm", images(64))
def beit() -> nn.Module:
    return timm_model("beit_base_patch16_224", img_size=64, depth=2, embed_dim=64, num_heads=2)


@zoo("timm", images(64))
def coatnet() -> nn.Module:
    return timm_model("coatnet_pico_rw_224", img_size=64)


@zoo("timm", STEPS)
def features_pyramid() -> nn.Module:
    return timm_model("resnet10t", features_only=True, num_classes=0)


@zoo("timm", STEPS)
def vit_any_size() -> nn.Module:
    return timm_model("vit_tiny_patch16_224", img_size=64, depth=2, dynamic_img_size=True)


# --- what people write themselves


def block(i: int, o: int) -> nn.Module:
    """Convolution, normalisation, activation."""
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class UNet(nn.Module):
    """Segmentation; goes back to the size of what it is joined with."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.a, self.b, self.c, self.d = block(3, 8), block(8, 16), block(24, 8), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        corners = None if self.mode == "nearest" else False
        b = F.interpolate(b, size=a.shape[-2:], mode=self.mode, align_corners=corners)
        return self.d(self.c(torch.cat([b, a], 1)))


@zoo("own", FREE, fast=True)
def unet_bilinear() -> nn.Module:
    return UNet("bilinear")


@zoo("own", FREE)
def unet_nearest() -> nn.Module:
    return UNet("nearest")


class TransposedUNet(UNet):
    """Goes up with a transposed convolution."""

    def __init__(self) -> None:
        super().__init__("")
        self.up = nn.ConvTranspose2d(16, 16, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.d(self.c(torch.cat([self.up(self.b(F.max_pool2d(a, 2))), a], 1)))


@zoo("own", STEPS)
def unet_transposed() -> nn.Module:
    return TransposedUNet()


@zoo("own", FREE)
def super_resolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2))


@zoo("own", rows((16,)))
def gan_generator() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (16, 1, 1)),
        nn.ConvTranspose2d(16, 32, 4, 1, 0), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


class SpatialTransformer(nn.Module):
    """Straightens its input before it looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(nn.Flatten(), nn.Linear(256, 6))
        self.what = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.where(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.what(F.grid_sample(x, grid, align_corners=False))


@zoo("own", images(16, channels=1))
def spatial_transformer() -> nn.Module:
    return SpatialTransformer()


class Diffusion(nn.Module):
    """Denoiser: an image, the number of the step, and a context to attend to."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
        self.first, self.second, self.last = nn.Conv2d(3, 16, 3, padding=1), block(16, 16), nn.Conv2d(16, 3, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.attention = nn.MultiheadAttention(16, 2, kdim=8, vdim=8, batch_first=True)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-torch.arange(8, device=t.device) / 2)
        emb = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        h = self.norm(self.first(x)) + emb[:, :, None, None]
        flat = h.flatten(2).transpose(1, 2)
        flat = flat + self.attention(flat, context, context, need_weights=False)[0]
        return self.last(self.second(flat.transpose(1, 2).reshape(h.shape)))


@zoo("own", lambda: [
    (torch.randn(n, 3, 16, 16), torch.randint(0, 1000, (n,)), torch.randn(n, k, 8)) for n, k in ((4, 7), (4, 5), (3, 9))
])  # fmt: skip
def diffusion_unet() -> nn.Module:
    return Diffusion()


class Detr(nn.Module):
    """Boxes from queries."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 32, 8, 8), nn.ReLU(), nn.Conv2d(32, 32, 2, 2))
        self.transformer = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.query = nn.Parameter(torch.randn(10, 32))
        self.rows, self.columns = nn.Parameter(torch.rand(50, 16)), nn.Parameter(torch.rand(50, 16))
        self.classes, self.boxes = nn.Linear(32, 5), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        height, width = h.shape[-2:]
        columns = self.columns[:width].unsqueeze(0).repeat(height, 1, 1)
        place = torch.cat([columns, self.rows[:height].unsqueeze(1).repeat(1, width, 1)], -1).flatten(0, 1)
        query = self.query.unsqueeze(0).expand(x.shape[0], -1, -1)
        out = self.transformer(place + h.flatten(2).transpose(1, 2), query)
        return {"logits": self.classes(out), "boxes": self.boxes(out).sigmoid()}


@zoo("own", images(64))
def detr() -> nn.Module:
    return Detr()


class Nms(nn.Module):
    """A detector for one image, to the end: non-maximum suppression stays in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(block(3, 8), nn.Conv2d(8, 5, 8, 8))

    def forward(self, x: Tensor) -> Any:
        from torchvision.ops import nms

        out = self.net(x)[0].flatten(1).t()
        boxes = torch.cat([out[:, :2], out[:, :2] + out[:, 2:4].exp()], 1)
        keep = nms(boxes, out[:, 4], 0.5)
        return {"boxes": boxes[keep], "scores": out[keep, 4]}


@zoo("own", lambda: [(torch.randn(1, 3, 32, 32), []) for _ in range(3)])
def detector_with_nms() -> nn.Module:
    return Nms()
