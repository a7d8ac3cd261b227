"""From a configuration to the mix of a moment: schedules are functions of the epoch."""

from pretrain.config import MethodConfig, MixingConfig
from pretrain.mixing.choice import Choice
from pretrain.mixing.cutmix import CutMix
from pretrain.mixing.cutout import Cutout
from pretrain.mixing.mixed import Mix, unmixed
from pretrain.mixing.mixup import Mixup


def mix_at(options: MixingConfig, epoch: float) -> Mix:
    """The mixing at a place of the run.

    Args:
        options: method, its `others`, and the schedule.
        epoch: epochs done, with their fraction. Until `ramp_epochs` the probability rises linearly
            from 0 (the paper's Scheduled CutMix, table 8, over the whole run); from `off_epoch` on
            nothing is mixed (timm's mixup_off_epoch).
    """
    share = min(1.0, epoch / options.ramp_epochs) if options.ramp_epochs else 1.0
    if options.off_epoch is not None and epoch >= options.off_epoch:
        share = 0.0
    methods = [options, *options.others]
    mixes = tuple(_mix(method, share * method.probability) for method in methods)
    if len(mixes) == 1:
        return mixes[0]
    return Choice(mixes=mixes, weights=tuple(method.weight for method in methods))


def _mix(options: MethodConfig, probability: float) -> Mix:
    match options.method:
        case "none":
            return lambda images, labels, num_classes, _: unmixed(images, labels, num_classes)
        case "cutmix":
            return CutMix(
                alpha=options.alpha,
                probability=probability,
                box=options.box,
                granularity=options.granularity,
                partner=options.partner,
            )
        case "mixup":
            return Mixup(
                alpha=options.alpha,
                probability=probability,
                granularity=options.granularity,
                partner=options.partner,
            )
        case "cutout":
            return Cutout(side=options.side, probability=probability)
