"""Other programs write checkpoints, our reader reads them: the worst difference of a feature level.

    python tests/peers/checkpoint_writers.py [--environment DIR] [--python FILE] [WRITER ...]

The programs are installed from PyPI into one environment that borrows torch, timm, torchvision and
Lightning from this one. Each writes its own file of a network with random statistics, and the
levels that the network itself computes; a Markdown table says what arrived here. Files that hold no
names and tensors are recognised, and what the message says is done. It needs the network for pip.
"""

import argparse
import contextlib
import os
import re
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

PACKAGES = (
    *("transformers==5.24.0", "tokenizers==0.23.3", "mmengine-lite==0.10.7", "addict==2.4.0"),
    *("lightly==1.6.0", "lightly-utils==0.0.2", "ema-pytorch==0.8.3", "open_clip_torch==3.3.0"),
    *("efficientnet_pytorch==0.7.1", "paddlepaddle==3.3.1", "keras==3.15.1"),
    *("ftfy", "aenum", "hydra-core", "omegaconf", "yapf", "h5py", "optree", "namex", "opt_einsum"),
    *(
        "opencv-python-headless",
        "astor",
        "decorator",
        "httpx",
        "httpcore",
        "pydantic",
        "termcolor",
        "platformdirs",
    ),
)
IMAGES = torch.linspace(-2, 2, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64).sin()


def stir(network: nn.Module) -> Any:
    """Statistics and affine maps that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 - 0.2)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim == 1 and name.endswith("weight"):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.3 + 0.3)
    return network.eval()


def levels_of(network: Any) -> list[Tensor]:
    """The four stages of torchvision's ResNet, by itself."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(IMAGES))))
    levels = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        levels.append(x)
    return levels


def resnet(depth: int = 18) -> Any:
    """torchvision's."""
    return stir(getattr(torchvision.models, f"resnet{depth}")(num_classes=5))


def transformers_resnet(folder: Path, **options: Any) -> list[Tensor]:
    """ResNetForImageClassification and its processor."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    network = stir(ResNetForImageClassification(ResNetConfig(num_labels=5, **options)))
    network.save_pretrained(folder)
    ConvNextImageProcessor(crop_pct=0.875, size={"shortest_edge": 224}).save_pretrained(folder)
    return list(network(IMAGES, output_hidden_states=True).hidden_states[1:])


def transformers_caffe(folder: Path) -> list[Tensor]:
    """The option that moves the stride."""
    return transformers_resnet(folder, downsample_in_bottleneck=True)


def transformers_convnext(folder: Path) -> list[Tensor]:
    """ConvNextForImageClassification and its processor."""
    from transformers import (
        ConvNextConfig,
        ConvNextForImageClassification,
        ConvNextImageProcessor,
    )

    config = ConvNextConfig(num_labels=5, layer_scale_init_value=0.5)
    network = stir(ConvNextForImageClassification(config))
    network.save_pretrained(folder)
    ConvNextImageProcessor(crop_pct=0.875, size={"shortest_edge": 224}).save_pretrained(folder)
    return list(network(IMAGES, output_hidden_states=True).hidden_states[1:])


def transformers_sharded(folder: Path) -> list[Tensor]:
    """The same in parts of 10 MB, with an index."""
    levels = transformers_resnet(folder)
    from transformers import ResNetForImageClassification

    network = ResNetForImageClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="10MB")
    return levels


def transformers_timm(folder: Path) -> list[Tensor]:
    """TimmWrapper around timm's network."""
    import timm
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    pretrained_cfg = timm.get_pretrained_cfg("resnet18").to_dict()
    config = TimmWrapperConfig(architecture="resnet18", pretrained_cfg=pretrained_cfg)
    config.num_labels = 5
    network = stir(TimmWrapperForImageClassification(config))
    network.save_pretrained(folder)
    return list(network.timm_model.forward_intermediates(IMAGES, intermediates_only=True))


def timm_training(folder: Path) -> list[Tensor]:
    """The saver of its train.py."""
    import timm
    from timm.utils import CheckpointSaver

    network = stir(timm.create_model("resnet18", num_classes=5))
    arguments = argparse.Namespace(model="resnet18", crop_pct=0.9, interpolation="bicubic")
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    saver = CheckpointSaver(network, optimizer, args=arguments, checkpoint_dir=str(folder))
    saver.save_checkpoint(3, metric=70.0)
    (folder / "last.pth.tar").rename(folder / "file.pth")
    return list(network.forward_intermediates(IMAGES, intermediates_only=True))


def mmengine_epoch(folder: Path) -> list[Tensor]:
    """epoch_1.pth of its Runner, with its message hub."""
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = resnet()
            self.backbone.fc = nn.Identity()

        def forward(self, inputs: Any, mode: str = "tensor") -> Any:
            return {"loss": self.backbone(inputs).mean() * 0}

    model = Model()
    runner = Runner(
        model,
        work_dir=str(folder / "work"),
        train_dataloader={
            "dataset": [(IMAGES[0],), (IMAGES[1],)],
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.0}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
    )
    runner.train()
    (folder / "work/epoch_1.pth").rename(folder / "file.pth")
    return levels_of(model.backbone.eval())


def lightly_simclr(folder: Path) -> list[Tensor]:
    """Its tutorial's SimCLR as a Lightning module."""
    import lightning
    from lightly.models.modules import SimCLRProjectionHead

    network = resnet()

    class SimCLR(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(network.children())[:-1])
            self.projection_head = SimCLRProjectionHead(512, 512, 128)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    save_by_lightning(SimCLR(), folder)
    return levels_of(network)


def save_by_lightning(module: Any, folder: Path) -> None:
    """Its own checkpoint."""
    import lightning

    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "file.ckpt", weights_only=True)


def lightning_module(folder: Path) -> list[Tensor]:
    """A module that holds the network as `model`."""
    import lightning

    module = lightning.LightningModule()
    module.model = resnet()
    save_by_lightning(module, folder)
    return levels_of(module.model)


def ema_pytorch(folder: Path) -> list[Tensor]:
    """EMA(network), the average and the network itself."""
    from ema_pytorch import EMA

    network = resnet()
    ema = EMA(network, include_online_model=True)
    ema.update()
    torch.save(ema.state_dict(), folder / "file.pt")
    return levels_of(ema.ema_model.eval())


def open_clip_timm(folder: Path) -> list[Tensor]:
    """CLIP around a network of timm: the message says --prefix visual.trunk."""
    import open_clip

    model = open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"timm_model_name": "resnet18", "timm_model_pretrained": False,
                    "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    )  # fmt: skip
    network = stir(model.visual.trunk)
    torch.save({"epoch": 1, "name": "run", "state_dict": model.state_dict()}, folder / "file.pt")
    return list(network.forward_intermediates(IMAGES, intermediates_only=True))


def efficientnet_pytorch(folder: Path) -> list[Tensor]:
    """EfficientNet-B0; the last level is compared, before the head."""
    from efficientnet_pytorch import EfficientNet

    network = stir(EfficientNet.from_name("efficientnet-b0", num_classes=5, image_size=64))
    torch.save(network.state_dict(), folder / "file.pth")
    return [network.extract_endpoints(IMAGES)["reduction_5"]]


def paddle_resnet(folder: Path) -> list[Tensor]:
    """paddle.save of paddle.vision's ResNet-50."""
    import paddle

    paddle.seed(0)
    network = paddle.vision.models.resnet50(num_classes=5)
    for name, value in network.state_dict().items():
        if name.endswith("_mean"):
            value.set_value(paddle.rand(value.shape) * 0.4 - 0.2)
        elif name.endswith("_variance"):
            value.set_value(paddle.rand(value.shape) + 0.5)
        elif value.ndim == 1 and name.endswith("weight"):
            value.set_value(paddle.rand(value.shape) * 0.3 + 0.3)
    network.eval()
    paddle.save(network.state_dict(), str(folder / "file.pdparams"))
    x = paddle.to_tensor(IMAGES.numpy())
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    levels = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        levels.append(torch.from_numpy(x.numpy()))
    return levels


def torch_script(folder: Path) -> list[Tensor]:
    """torch.jit.script."""
    network = resnet()
    torch.jit.script(network).save(folder / "file.pt")
    return levels_of(network)


def torch_export(folder: Path) -> list[Tensor]:
    """torch.export.save."""
    network = resnet()
    torch.export.save(torch.export.export(network, (IMAGES,)), folder / "file.pt2")
    return levels_of(network)


def torch_distributed(folder: Path) -> list[Tensor]:
    """A folder of torch.distributed.checkpoint."""
    import torch.distributed.checkpoint as dcp

    network = resnet()
    dcp.save({"model": network.state_dict()}, checkpoint_id=folder / "step")
    return levels_of(network)


def torch_sharded(folder: Path) -> list[Tensor]:
    """The same by two processes, the network sharded by FSDP."""
    network = resnet()
    torch.multiprocessing.spawn(save_shard, (network, folder), nprocs=2)
    return levels_of(network)


def save_shard(rank: int, network: Any, folder: Path) -> None:
    """One process of two."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    fully_shard(network, mesh=mesh)
    dcp.save({"model": get_model_state_dict(network)}, checkpoint_id=folder / "step")
    dist.destroy_process_group()


def keras_archive(folder: Path) -> list[Tensor]:
    """Recognised alone."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3)).save(
        folder / "file.keras"
    )
    return []


# writer: the package, and what must be said of the file
WRITERS: dict[Any, tuple[str, dict[str, Any]]] = {
    transformers_resnet: ("transformers", {}),
    transformers_caffe: ("transformers", {}),
    transformers_convnext: ("transformers", {}),
    transformers_sharded: ("transformers", {}),
    transformers_timm: ("transformers", {}),
    timm_training: ("timm", {}),
    mmengine_epoch: ("mmengine-lite", {"source": "mmpretrain"}),
    lightly_simclr: ("lightly", {"source": "torchvision"}),
    lightning_module: ("lightning", {"source": "torchvision"}),
    ema_pytorch: ("ema-pytorch", {"source": "torchvision"}),
    open_clip_timm: ("open_clip_torch", {"source": "torchvision"}),
    efficientnet_pytorch: ("efficientnet_pytorch", {"source": "torchvision"}),
    paddle_resnet: ("paddlepaddle", {"source": "torchvision"}),
    torch_script: ("torch", {"source": "torchvision"}),
    torch_export: ("torch", {"source": "torchvision"}),
    torch_distributed: ("torch", {"source": "torchvision"}),
    torch_sharded: ("torch", {"source": "torchvision"}),
    keras_archive: ("keras", {"source": "torchvision"}),
}
BY_NAME = {writer.__name__: writer for writer in WRITERS}


def write(name: str, folder: Path) -> None:
    """In the environment of the programs: the file, and what its network computes."""
    with torch.no_grad() if name != "mmengine_epoch" else contextlib.nullcontext():
        levels = BY_NAME[name](folder)
    package = WRITERS[BY_NAME[name]][0]
    levels = [level.detach() for level in levels]
    torch.save({"levels": levels, "version": version(package)}, folder / "truth.pt")


def find_file(folder: Path) -> Path:
    """What a user would give."""
    files = [path for path in folder.glob("file.*")]
    return files[0] if files else next((p for p in folder.glob("step")), folder)


def read_file(path: Path, given: dict[str, Any]) -> tuple[Any, str]:
    """The backbone, by what messages say where they say it; and what was done."""
    from pretrain.errors import UsageError
    from transfer.formats import Overrides, read

    try:
        return read(path, Overrides(**given)), "read"
    except UsageError as error:
        message = str(error)
    if prefix := re.search(r"try --prefix (\S+)", message):
        return read(path, Overrides(**given, prefix=prefix[1])), f"--prefix {prefix[1]}"
    if python := re.search(r"(torch\.save\(.*\)) makes", message):
        with contextlib.chdir(path.parent):
            exec(python[1], {"torch": torch})
    else:
        return None, f"refused: {message.partition(' is ')[2].partition(':')[0]}"
    return read(path.parent / "weights.pth", Overrides(**given)), "converted as the message says"


def compare(backbone: Any, levels: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of its level."""
    network = backbone.build().eval()
    with torch.no_grad():
        own = network.forward_intermediates(IMAGES, intermediates_only=True)[-len(levels) :]
    pairs = zip(own, levels, strict=True)
    return max(float((one - two).abs().max() / two.abs().max()) for one, two in pairs)


def main() -> None:
    """Install, write, read; a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("writers", nargs="*", metavar="WRITER", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--environment", type=Path, help="Kept there.")
    parser.add_argument("--python", type=Path, help="One that has the programs already.")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.writers[0], options.write)
        return
    from environments import make_environment, reason

    with tempfile.TemporaryDirectory() as temporary:
        place = options.environment or Path(temporary, "environment")
        python = options.python or make_environment(
            place, ("wcwidth",), borrow=True, alone=PACKAGES
        )
        print("| program | version | writes | here | worst level difference |")
        print("|---|---|---|---|---|")
        for name in options.writers or BY_NAME:
            folder = Path(temporary, name)
            folder.mkdir()
            package, given = WRITERS[BY_NAME[name]]
            command = [str(python), __file__, name, "--write", str(folder)]
            row = [package, "", name.replace("_", " "), "", ""]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
                truth = torch.load(folder / "truth.pt", weights_only=True)
                row[1] = truth["version"]
                backbone, row[3] = read_file(find_file(folder), given)
                if backbone is not None:
                    row[3] += f": {backbone.spec.arch}"
                    row[4] = f"{compare(backbone, truth['levels']):.1e}"
            except subprocess.CalledProcessError as error:
                row[3] = f"not written: {reason(error)}"
            except Exception as error:
                row[3] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
