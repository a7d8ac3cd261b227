#!/usr/bin/env bash
# Package:   Keras 3.15.1, layers.CutMix and layers.MixUp on labels that are class numbers
# Behaviour: labels of shape (batch, 1), as keras.datasets.cifar10.load_data() returns them, are not
#            refused. Their numbers are averaged: of class 2 and class 8 at equal weight comes 5.0, and
#            the losses for class numbers cut that to the class 5. Labels of shape (batch,) become a
#            matrix (batch, batch) of such averages.
# Seen:      6,400 pictures of 10 classes, labels (64, 1), cast to integers as
#            SparseCategoricalCrossentropy casts them: 44 % are trained as a class of which nothing is
#            in the picture after CutMix, 52 % after MixUp. The loss is finite and says nothing.
# Hurts:     whoever adds the layer to a pipeline that has worked with class numbers, with
#            sparse_categorical_crossentropy as before. Training runs, the loss falls more slowly, and
#            CutMix seems to do harm. (torchvision and timm turn class numbers into one-hot labels
#            themselves.)
# Way out:   keras.ops.one_hot(labels, classes) before the layer, and CategoricalCrossentropy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 numpy==2.4.6

cat > see.py <<'PYTHON'
import os

os.environ["KERAS_BACKEND"] = "jax"
import keras
import numpy as np

CLASSES, BATCH, SIDE = 10, 64, 32
rng = np.random.default_rng(0)


def images_of(labels):
    """Pictures in which every pixel is the number of the class, and its square."""
    classes = labels.astype("float32").reshape(-1, 1, 1, 1)
    channels = np.concatenate([classes, classes**2, classes], axis=3)
    return np.broadcast_to(channels, (BATCH, SIDE, SIDE, 3))


def absent(layer):
    """Share of pictures whose label is a class of which they show nothing."""
    missing = []
    for _ in range(100):
        labels = rng.integers(0, CLASSES, (BATCH, 1))
        one_hot = np.eye(CLASSES, dtype="float32")[labels[:, 0]]
        # the same draws tell who is in a picture: labels of both kinds go through as one table
        table = np.concatenate([labels, one_hot], axis=1)
        mixed = layer({"images": images_of(labels), "labels": table}, training=True)
        table = np.asarray(mixed["labels"])
        shown = table[:, 1:] > 1e-6
        number = table[:, 0].astype("int32")
        missing.append(~shown[np.arange(BATCH), number])
    return np.mean(missing)


for name, layer in {
    "CutMix": keras.layers.CutMix(seed=0),
    "MixUp": keras.layers.MixUp(alpha=1.0, seed=0),
}.items():
    labels = rng.integers(0, CLASSES, (BATCH, 1))
    column = np.asarray(layer({"images": images_of(labels), "labels": labels})["labels"])
    flat = np.asarray(layer({"images": images_of(labels), "labels": labels[:, 0]})["labels"])
    outputs = np.full((BATCH, CLASSES), 0.1, "float32")
    loss = float(keras.losses.SparseCategoricalCrossentropy()(column, outputs))
    share = absent(layer)
    print(f"{name}: labels {labels[:4, 0]} become {column[:4, 0].round(2)}; loss {loss:.2f}")
    print(f"{name}: labels of shape {labels[:, 0].shape} become {flat.shape}")
    print(f"{name}: {share:.0%} are trained as a class that is not in the picture")
    assert column.shape == (BATCH, 1) and np.isfinite(loss), "the behaviour has changed"
    assert flat.shape == (BATCH, BATCH) and share > 0.3, "the behaviour has changed"
PYTHON
env/bin/python see.py
