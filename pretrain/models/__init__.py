"""Networks that timm lacks, under names that timm knows once `register` was called."""

from pretrain.models import caffe_resnet, cifar_resnet, pyramidnet

# what a program with timm alone cannot build
NAMES = frozenset().union(
    *(module.default_cfgs for module in (caffe_resnet, cifar_resnet, pyramidnet))
)


def register() -> None:
    """Give timm our architectures; `timm.create_model(name)` builds them afterwards."""
    cifar_resnet.register_cifar_resnets()
    caffe_resnet.register_caffe_resnets()
    pyramidnet.register_pyramidnets()


__all__ = ["NAMES", "register"]
