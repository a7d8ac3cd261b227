"""What the tests of the caption scores share."""

import gzip
import json

import pytest

from tests.conftest import FIXTURES
from tests.transfer.scores.reference import own_captions


@pytest.fixture(scope="session")
def own():
    """Twenty images of our own: references, captions, what pycocoevalcap with Java made of them."""
    scored = json.loads((FIXTURES / "caption_scores.json").read_text(encoding="utf-8"))
    return *own_captions(), scored


@pytest.fixture(scope="session")
def golden(shared):
    """A function from a name to the reference data of that name."""

    def load(name):
        return json.loads(gzip.decompress((shared / "golden" / "captions" / name).read_bytes()))

    return load


@pytest.fixture(scope="session")
def coco(golden):
    """References and five sets of captions of 2,500 MS-COCO images, and their scores."""
    references = {}
    for name in ("all", "minus_one"):
        references[name] = by_id = {}
        for entry in golden(f"coco_a/refs_{name}.json.gz")["annotations"]:
            by_id.setdefault(entry["image_id"], []).append(entry["caption"])
    captions = {
        name: {
            entry["image_id"]: entry["caption"] for entry in golden(f"coco_a/hyp_{name}.json.gz")
        }
        for name in ("human", "noisy", "constant", "nn_tfidf", "nn_single")
    }
    return references, captions, golden("coco_a/scores.json.gz")["sets"]


@pytest.fixture(scope="session")
def meteor(request, tmp_path_factory):
    """METEOR with its index in pytest's own cache."""
    from transfer.captioning.scores import Meteor
    from transfer.captioning.scores.meteor import find_folder

    if find_folder() is None:
        pytest.skip("METEOR's data is missing: pycocoevalcap is not installed")
    patch = pytest.MonkeyPatch()
    cache = getattr(request.config, "cache", None)  # None with -p no:cacheprovider
    folder = cache.mkdir("caption-scores") if cache else tmp_path_factory.mktemp("caption-scores")
    patch.setenv("XDG_CACHE_HOME", str(folder))
    yield Meteor.open()
    patch.undo()
