"""What a backbone is measured against: the same network with random weights."""

from pretrain.backbone import Backbone, Provenance
from pretrain.training import derive


def untrained(backbone: Backbone, seed: int) -> Backbone:
    """Its architecture and preprocessing with weights drawn from the seed of a run."""
    spec = backbone.spec
    network = spec.create(spec.num_classes, derive(seed, "weights"))
    return Backbone.of(network, spec, origin(seed))


def origin(seed: int) -> Provenance:
    """Of such a backbone."""
    return Provenance(seed=seed, source="from scratch")
