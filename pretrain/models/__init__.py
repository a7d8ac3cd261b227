"""Networks that timm lacks, under names that timm knows once `register` was called."""

from pretrain.models.cifar_resnet import register_cifar_resnets


def register() -> None:
    """Give timm our architectures; `timm.create_model(name)` builds them afterwards."""
    register_cifar_resnets()


__all__ = ["register"]
