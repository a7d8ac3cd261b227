"""What is odd about captions that scores and training take as they are: a line each."""

import re
from collections import Counter
from collections.abc import Iterable

# Of scripts that put no space between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
# Korean has spaces, and so has a German compound beside the next one.
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)
# letters between two spaces: 1.3 to 4.2 where words are parted, 9 to 30 where they are not
_LEAST_LETTERS = 6

# What programs put around and into captions for themselves, and who does.
MARKS = (
    *("<start>", "<end>", "<pad>", "<unk>"),  # here; sgrvinod's and yunjey's tutorials
    *("<s>", "</s>"),  # im2txt; fairseq, BART, RoBERTa, T5
    *("<bos>", "<eos>"),  # torchtext's usage, Gemma
    *("startseq", "endseq"),  # Keras's tutorials on Flickr8k
    *("<|startoftext|>", "<|endoftext|>"),  # CLIP; GPT-2, so ClipCap and GIT's kin
    *("<|im_start|>", "<|im_end|>"),  # Qwen-VL
    *("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"),  # BERT, so Oscar, VinVL, GIT
    *("[DEC]", "[ENC]"),  # BLIP
)
_MARK = re.compile(
    "|".join(re.escape(m) if not m.isalpha() else rf"\b{m}\b" for m in MARKS), re.IGNORECASE
)


def caption_notes(
    source: object, captions: Iterable[tuple[object, str]], tokenizer: str, option: str
) -> list[str]:
    """Notes on sentences without spaces, marks of a program, and one caption for all images.

    Args:
        source: what holds the captions, for the notes.
        captions: the id of an image, and a caption of it.
        tokenizer: that they are scored or trained with.
        option: that chooses it.
    """
    pairs = list(captions)
    notes = []
    unspaced = [text for _, text in pairs if is_unspaced(text)]
    if tokenizer != "characters" and 2 * len(unspaced) > len(pairs):
        notes.append(
            f"{source}: {len(unspaced):,} of {len(pairs):,} captions have almost no spaces, the "
            f"first is {unspaced[0]!r:.60}. With the tokenizer {tokenizer} such a sentence is one "
            f"word, and scores say little; {option} characters takes each character as one."
        )
    marked = [(image_id, text) for image_id, text in pairs if _MARK.search(text)]
    if marked:
        counts = Counter(mark.lower() for _, text in marked for mark in set(_MARK.findall(text)))
        names = ", ".join(f"{mark} in {count:,}" for mark, count in counts.most_common())
        image_id, text = marked[0]
        notes.append(
            f"{source}: {len(marked):,} of {len(pairs):,} captions hold marks of a program "
            f"({names}), the first is {text!r:.60} of image {image_id}. They count as words; "
            "remove them."
        )
    num_images = len({image_id for image_id, _ in pairs})
    if num_images > 1 and len({text.strip() for _, text in pairs}) == 1:
        notes.append(f"{source}: all {num_images:,} images have the same caption, {pairs[0][1]!r}.")
    return notes


def is_unspaced(text: str) -> bool:
    """Whether a caption is mostly of a script without spaces, and has almost none."""
    pieces = text.split()
    count = len(_UNSPACED.findall(text))
    return count >= _LEAST_LETTERS * len(pieces) > 0 and 2 * count > sum(map(len, pieces))
