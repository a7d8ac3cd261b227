"""Captioning transfer, from a backbone to the scores of its sentences. Reads top to bottom."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from pretrain import torch_file
from pretrain.backbone import Backbone
from pretrain.errors import UserError
from pretrain.progress import say
from pretrain.run import Result, Run, environment, plain, write_text
from pretrain.training import Course, Loader, derive, schedule, seed_ambient
from transfer.captioning.coco import CaptionedImage, choose_splits, read_coco
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.features import encode_images
from transfer.captioning.nic import Nic, greedy
from transfer.captioning.page import write_page
from transfer.captioning.scores import score
from transfer.captioning.vocabulary import PAD, Vocabulary, build_vocabulary


@dataclass(frozen=True)
class Prepared:
    """What a configuration comes to, before the first step."""

    train: Sequence[CaptionedImage]
    val: Sequence[CaptionedImage]
    vocabulary: Vocabulary
    model: Nic


def prepare(backbone: Backbone, config: CaptioningConfig) -> Prepared:
    """Read the tree and build the captioner; every mistake a user can make shows here."""
    if config.data is None:
        raise UserError("no data: give --data DIR with an MS-COCO tree")
    root = Path(config.data)
    train_split, val_split = choose_splits(root, config.coco.train, config.coco.val)
    train, val = read_coco(root, train_split), read_coco(root, val_split)
    sentences = (caption for image in train for caption in image.captions)
    vocabulary = build_vocabulary(sentences, config.coco.min_count)
    width = backbone.build(num_classes=0).num_features
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        model = Nic(width, len(vocabulary), config.nic)  # type: ignore[arg-type]
    return Prepared(train, val, vocabulary, model)


@dataclass(frozen=True)
class _Sentences:
    """A sample is (feature (F,), words (T,)): one caption of one image."""

    features: Tensor
    words: Sequence[Tensor]
    image_of: Sequence[int]

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[self.image_of[index]], self.words[index]


def _collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    features, words = zip(*samples, strict=True)
    return torch.stack(features), pad_sequence(list(words), batch_first=True, padding_value=PAD)


def finetune(backbone: Backbone, config: CaptioningConfig, run: Run, fabric: Fabric) -> Result:
    """Train NIC on the frozen features of a backbone and score its greedy captions.

    Leaves RUN/captioner.pth, RUN/captions.json (COCO results), a page and the result.

    Raises:
        UserError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM; the same call continues to the same bits.
    """
    # ---- set up
    ready = prepare(backbone, config)
    words = [
        torch.tensor(ready.vocabulary.encode(caption))
        for image in ready.train
        for caption in image.captions
    ]
    image_of = [place for place, image in enumerate(ready.train) for _ in image.captions]
    if len(words) < config.batch_size:
        raise UserError(
            f"batch_size is {config.batch_size}, but there are only {len(words)} training "
            "captions. Give a smaller batch_size."
        )
    paths = [image.path for image in (*ready.train, *ready.val)]
    features = encode_images(
        backbone, paths, fabric, image_size=config.coco.image_size, workers=config.workers
    )
    train = Loader(
        _Sentences(features[: len(ready.train)], words, image_of),
        batch_size=config.batch_size,
        seed=config.seed,
        workers=0,  # a sample is a row of a tensor: a process would cost more than it brings
        shuffle=True,
        drop_last=True,
        collate=_collate,
    )
    run.start(plain(config), backbone.fingerprint())
    optimizer = torch.optim.Adam(ready.model.parameters(), lr=config.adam.lr)
    model, optimizer = fabric.setup(ready.model, optimizer)
    rates = schedule(
        optimizer,
        config.adam.schedule,
        steps_per_epoch=len(train),
        epochs=config.epochs,
        milestones=config.adam.milestones,
    )
    course = Course(
        run,
        fabric,
        model,
        optimizer,
        rates,
        train,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=1,
    )

    # ---- train
    with course.running(f"captioner from {backbone.name}"):
        for epoch in course.epochs():
            model.train()
            for _, (part,) in course.steps(epoch):
                images, sentences = part.batch
                logits = model(images, sentences)
                loss = functional.cross_entropy(
                    logits.flatten(0, 1), sentences.flatten(), ignore_index=PAD
                )
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                if config.adam.clip is not None:
                    fabric.clip_gradients(
                        model, optimizer, max_norm=config.adam.clip, error_if_nonfinite=False
                    )
                optimizer.step()
                course.sums += loss.detach().float()
            (mean,), speed = course.means(), course.speed
            course.finish_epoch({"loss": mean, "captions_per_second": round(speed, 1)})
            say(f"epoch {epoch + 1}/{config.epochs}  loss {mean:.3f}  {speed:.0f} captions/s")

    # ---- score, and leave the captioner, the page and, last, the result
    captioner = model.module.eval()
    held_out = features[len(ready.train) :].to(fabric.device)
    numbers = greedy(captioner, held_out, config.nic.max_length).tolist()
    said = {
        image.image_id: ready.vocabulary.decode(row)
        for image, row in zip(ready.val, numbers, strict=True)
    }
    scores = score({image.image_id: image.captions for image in ready.val}, said)
    rows = [{"image_id": image_id, "caption": caption} for image_id, caption in said.items()]
    write_text(run.folder / "captions.json", json.dumps(rows))
    content = {
        "format": "captioner/1",
        "backbone": backbone.describe(),
        "config": plain(config),
        "words": list(ready.vocabulary.words),
        "state_dict": captioner.state_dict(),
    }
    torch_file.write(run.folder / "captioner.pth", content)
    write_page(run.folder / "captions.html", ready.val, said, scores, backbone.name)
    result = Result(
        task="captioning",
        metric="CIDEr",
        metrics={**scores.corpus, "loss": run.read_log()[-1]["loss"], **_variety(said)},
        backbone=backbone.describe(),
        data={
            "name": Path(config.data or "").name,
            "train": len(ready.train),
            "val": len(ready.val),
            "words": len(ready.vocabulary),
        },
        seed=config.seed,
        config=plain(config),
        seconds=round(course.seconds, 1),
        environment=environment(fabric.device),
    )
    run.finish(result)
    return result


def _variety(said: dict[Any, str]) -> dict[str, int]:
    """How many different sentences there are: one for all images is the classic failure."""
    return {"different_captions": len(set(said.values()))}
