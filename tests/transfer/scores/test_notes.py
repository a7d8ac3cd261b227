"""What is said about captions that are scored and trained on as they are."""

import pytest

from transfer.captioning.scores.notes import MARKS, caption_notes, is_unspaced


def notes(*texts: str, tokenizer: str = "ptb") -> list[str]:
    return caption_notes("a.json", enumerate(texts), tokenizer, "--tokenizer")


@pytest.mark.parametrize(
    "text",
    [
        "一个穿着红色衣服的男人骑着一匹马",
        "街道上停着许多汽车。",
        "茶色い犬が芝生の上を走っています。",
        "スケートボードに乗る人",
        "ผู้ชายสวมเสื้อสีแดงกำลังขี่ม้า",
        "สุนัขสีน้ำตาลวิ่งอยู่บนสนามหญ้า มีคนเดินอยู่ข้างหลัง",  # Thai parts clauses by a space
        "បុរសម្នាក់កំពុងជិះសេះ",
        "一辆红色的BMW汽车停在路边",
    ],
)
def test_sentences_without_spaces(text):
    assert is_unspaced(text)
    for tokenizer in ("ptb", "none"):
        (note,) = notes(text, text + "狗", "a dog", tokenizer=tokenizer)
        assert note.startswith("a.json: 2 of 3 captions have almost no spaces, the first is ")
        assert f"With the tokenizer {tokenizer} such a sentence is one word" in note
        assert "; --tokenizer characters takes each character as one." in note
    assert not notes(text, text + "狗", tokenizer="characters")
    assert not notes(text, "a dog")  # not most of them


@pytest.mark.parametrize(
    "text",
    [
        "Donaudampfschifffahrtsgesellschaftskapitän",
        "motorcyclist",
        "велосипедистка",
        "빨간 옷을 입은 남자가 말을 타고 있다",
        "رجل يركب حصانا",
        "एक आदमी घोड़े पर सवार है",
        "一个 穿着 红色 衣服 的 男人 骑着 一匹 马",
        "茶色い 犬 が 芝生 の 上 を 走っ て い ます",
        "ผู้ชาย สวม เสื้อ สี แดง กำลัง ขี่ ม้า",
        "一匹马",
        "a photo of the restaurant 全聚德烤鸭店前门店",
        "",
    ],
)
def test_captions_with_spaces_and_single_words(text):
    assert not is_unspaced(text)
    assert not notes(text, "a dog")


def test_marks_of_programs():
    (note,) = notes("a dog", "<start> a dog <end>", "a cat <END>", "a [SEP]", "a dog<|endoftext|>")
    assert note == (
        "a.json: 4 of 5 captions hold marks of a program (<end> in 2, <start> in 1, [sep] in 1, "
        "<|endoftext|> in 1), the first is '<start> a dog <end>' of image 1. They count as words; "
        "remove them."
    )
    for mark in MARKS:
        assert f"({mark.lower()} in 1)" in notes("a dog", f"{mark} a dog")[0]
    assert not notes("a <b>bold</b> dog [sic]", "the start of an end, a sep", "startsequence")


def test_one_caption_for_all_images():
    assert notes("a dog", "a dog ") == ["a.json: all 2 images have the same caption, 'a dog'."]
    assert not notes("a dog")
    assert not notes("a dog", "a dog", "a cat")
    beams = [(1, "a dog"), (1, "a dog")]  # of one image
    assert not caption_notes("a.json", beams, "ptb", "--tokenizer")
