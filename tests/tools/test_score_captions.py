"""Caption scores from the command line, on twenty images of our own."""

import base64
import importlib.util
import json
import pickle
import re
import subprocess
import sys

import pytest

from tests.conftest import FIXTURES, ROOT
from tests.forked import call
from tests.tools.test_tools import fails, inside
from tests.transfer.scores.reference import own_captions
from tools.score_captions import main
from transfer.captioning.scores import References, score
from transfer.captioning.scores.frequencies import count_frequencies

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NO_METEOR = ("--meteor", "off")


@pytest.fixture(scope="module")
def captions():
    """References, captions, and captions that are as good as people's."""
    wanted, said = own_captions()
    return wanted, said, {image_id: texts[0] for image_id, texts in wanted.items()}


@pytest.fixture
def files(tmp_path, monkeypatch, captions):
    """A folder with the three as files, which the tool is called in."""
    monkeypatch.chdir(tmp_path)
    for name, content in zip(("refs", "said", "better"), captions, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def run(*words: object) -> None:
    main(["--references", "refs.json", "--results", "said.json", *map(str, words)])


def rows(text: str) -> dict[str, list[str]]:
    """The printed table by score."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}


def test_a_table_and_a_file(files, captions, capsys):
    run(*NO_METEOR, "--out", "out/scores.json")
    found = score(captions[0], captions[1])
    printed = capsys.readouterr()
    assert "said.json beside refs.json, 20 images" in printed.out
    assert "captions without a word: 1; they count" in printed.err
    table = rows(printed.out)
    assert {name: table[name] for name in found.corpus} == {
        name: [f"{value:.4f}"] for name, value in found.corpus.items()
    }
    content = json.loads((files / "out" / "scores.json").read_text())
    assert content.pop("tokenizer") == "ptb"
    assert content == {"corpus": found.corpus, "per_image": found.per_image, "n": 20}


def test_figures_of_the_reference_in_a_process_without_torch(files, own_scores):
    code = (
        "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [str(ROOT / "tools" / "score_captions.py"), "--references", "refs.json"]
    words += ["--results", "said.json", "--out", "scores.json", *NO_METEOR]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, value in json.loads((files / "scores.json").read_text())["corpus"].items():
        assert value == pytest.approx(own_scores[name], abs=1e-9)


@pytest.fixture
def own_scores():
    """Of pycocoevalcap with Java, committed."""
    return json.loads((FIXTURES / "caption_scores.json").read_text(encoding="utf-8"))["corpus"]


def test_the_table_of_the_readme(monkeypatch, capsys):
    """Made by the command above it, METEOR's line aside, for which data is needed."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, printed = text.split("python tools/score_captions.py --references tests/")[1].split(
        "\n```\n\n```\n"
    )
    main(["--references", *f"tests/{command}".split(), *NO_METEOR])
    wanted = printed.split("\n```")[0].splitlines()
    assert wanted.pop().startswith("METEOR")
    assert capsys.readouterr().out.splitlines() == wanted


def test_intervals_and_a_second_system(files, capsys):
    run(*NO_METEOR, "--bootstrap", 200, "--against", "better.json", "--out", "scores.json")
    content = json.loads((files / "scores.json").read_text())
    table = rows(capsys.readouterr().out)
    low, high = content["interval"]["CIDEr"]
    other = content["against"]["corpus"]["CIDEr"]
    entry = content["against"]["difference"]["CIDEr"]
    assert low < content["corpus"]["CIDEr"] < high
    assert entry["value"] == pytest.approx(content["corpus"]["CIDEr"] - other)
    assert entry["low"] < entry["value"] < entry["high"] < 0
    assert entry["p"] == pytest.approx(1 / 201)
    assert table["CIDEr"] == [
        f"{content['corpus']['CIDEr']:.4f}", f"[{low:.4f},", f"{high:.4f}]", f"{other:.4f}",
        f"{entry['value']:+.4f}", f"[{entry['low']:+.4f},", f"{entry['high']:+.4f}]", "0.005",
    ]  # fmt: skip
    run(*NO_METEOR, "--bootstrap", 200, "--seed", 1, "--out", "other.json")
    assert json.loads((files / "other.json").read_text())["interval"]["CIDEr"] != [low, high]


def test_some_of_the_images(files, captions, capsys):
    wanted, said, better = captions
    (files / "ids.txt").write_text("3\n1\n")
    run(*NO_METEOR, "--ids", "ids.txt", "--out", "ids.json")
    found = score({k: wanted[k] for k in "31"}, {k: said[k] for k in "31"})
    assert json.loads((files / "ids.json").read_text())["corpus"] == found.corpus
    (files / "better.json").write_text(json.dumps({k: better[k] for k in "123"}))
    run(*NO_METEOR, "--against", "better.json", "--subset", "--out", "both.json")
    content = json.loads((files / "both.json").read_text())
    assert list(content["per_image"]) == ["1", "2", "3"]
    assert content["corpus"] == score(wanted, {k: said[k] for k in "123"}).corpus


def test_document_frequencies_from_elsewhere(files, captions, capsys):
    wanted, said, _ = captions
    (files / "one.json").write_text(json.dumps({"3": said["3"]}))
    words = ["--references", "refs.json", "--results", "one.json", *NO_METEOR, "--subset"]
    main([*words, "--out", "alone.json"])
    assert "CIDEr is 0: with one image" in capsys.readouterr().err
    main([*words, "--out", "corpus.json", "--corpus", "refs.json"])
    assert "CIDEr is 0" not in capsys.readouterr().err
    found = References({"3": wanted["3"]}, frequencies=count_frequencies(wanted))
    value = json.loads((files / "corpus.json").read_text())["corpus"]["CIDEr"]
    assert value == found.score({"3": said["3"]}).corpus["CIDEr"] > 0
    assert json.loads((files / "alone.json").read_text())["corpus"]["CIDEr"] == 0


def test_a_page_of_the_best_and_the_worst(files, captions, capsys):
    """Pictures by name, by id, or by id as MS-COCO writes it; never from outside the folder."""
    wanted, said, _ = captions
    images = files / "images"
    images.mkdir()
    for name in ("dog.png", "2.jpg", "000000000003.jpg"):
        (images / name).write_bytes(PNG)
    (files / "secret.png").write_bytes(PNG)
    coco = {
        "images": [{"id": 1, "file_name": "dog.png"}, {"id": 4, "file_name": "../secret.png"}],
        "annotations": [
            {"image_id": int(k), "caption": text} for k, texts in wanted.items() for text in texts
        ],
    }
    (files / "refs.json").write_text(json.dumps(coco))
    (files / "said.json").write_text(json.dumps({**said, "4": "<b>bold</b> & 'new'"}))
    run(*NO_METEOR, "--page", "page.html", "--images", "images")
    page = (files / "page.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 20
    assert page.count('<img src="data:image/png;base64,') == 3
    assert page.index("Best") < page.index("Worst")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp;" in page
    assert "<b>bold" not in page
    assert "<i>no words</i>" in page
    found = score(wanted, {**said, "4": "<b>bold</b> & 'new'"})
    ranked = sorted(said, key=lambda image_id: -found.per_image[image_id]["CIDEr"])
    places = [page.index(f"image {image_id}</small>") for image_id in ranked]
    assert places[:10] == sorted(places[:10])  # best first
    assert places[10:] == sorted(places[10:], reverse=True)  # worst first
    assert "page.html" in capsys.readouterr().out
    (images / "2.jpg").write_bytes(b"no picture")
    code, error = inside("score_captions", *words_for("--page", "page.html", "--images", "images"),
                         capsys=capsys)  # fmt: skip
    assert code == 2
    assert "error: images/2.jpg is no picture that a browser shows" in error
    assert (files / "page.html").read_text(encoding="utf-8") == page


CHINESE = {
    "1": ["一个男人骑着一匹马。", "男人在草地上骑马"],
    "2": ["两只猫坐在沙发上看电视", "沙发上有两只猫在看电视"],
    "3": ["街道上停着许多汽车", "一辆红色的BMW停在路边"],
}
SAID = {"1": "一个女人骑着马。", "2": "两只猫在沙发上", "3": "一辆红色的bmw汽车"}


@pytest.fixture
def chinese(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refs.json").write_text(json.dumps(CHINESE))
    (tmp_path / "said.json").write_text(json.dumps(SAID))
    return tmp_path


def test_captions_without_spaces(chinese, capsys):
    """Said where sentences are words; with characters the scores of the package's own `score`."""
    run(*NO_METEOR, "--out", "ptb.json")
    printed = capsys.readouterr()
    assert "refs.json: 6 of 6 captions have almost no spaces, the first is" in printed.err
    assert "said.json: 3 of 3 captions have almost no spaces" in printed.err
    assert printed.err.count("--tokenizer characters takes each character as one") == 2
    run("--tokenizer", "characters", "--out", "characters.json", "--corpus", "refs.json")
    printed = capsys.readouterr()
    assert "no spaces" not in printed.err
    assert "knows" not in printed.err
    said = "METEOR is left out: it is for English, and the tokenizer is characters"
    assert said in printed.err
    assert "METEOR" not in printed.out
    assert "said.json beside refs.json, 3 images, tokenizer characters\n" in printed.out
    content = json.loads((chinese / "characters.json").read_text())
    assert content["corpus"] == score(CHINESE, SAID, tokenizer="characters").corpus
    assert content["tokenizer"] == "characters"
    assert content["corpus"]["CIDEr"] > 1 > json.loads((chinese / "ptb.json").read_text())[
        "corpus"]["CIDEr"]  # fmt: skip
    for meteor in ("python", "jar"):
        words = ("--tokenizer", "none", "--meteor", meteor)
        said = f"--meteor {meteor}: METEOR is for English words of --tokenizer ptb"
        fails("score_captions", *words_for()[:4], *words, capsys=capsys, said=said)


def test_frequencies_of_another_tokenizer(chinese, capsys):
    with open(chinese / "words.p", "wb") as handle:
        pickle.dump({"document_frequency": {("a", "dog"): 3.0, ("一",): 9.0}, "ref_len": 9}, handle)
    run("--tokenizer", "characters", "--corpus", "words.p")
    said = "words.p knows 3% of the words of refs.json; to CIDEr the others are the rarest."
    assert said in capsys.readouterr().err


def test_marks_and_one_caption_for_all(files, captions, capsys):
    """Counted with the first, in references and both results; of the images that are scored."""
    wanted, said, _ = captions
    wanted = {**wanted, "2": ["<start> a dog <end>", "a [SEP]"]}
    (files / "refs.json").write_text(json.dumps(wanted))
    (files / "said.json").write_text(json.dumps(dict.fromkeys(said, "a dog <|endoftext|>")))
    (files / "better.json").write_text(json.dumps(dict.fromkeys(said, "a man")))
    run(*NO_METEOR, "--against", "better.json", "--bootstrap", 10)
    err = capsys.readouterr().err
    marks = r"refs\.json: 2 of \d+ captions hold marks of a program \(.*\), the first is '<start>"
    assert re.search(marks, err)
    assert "said.json: 20 of 20 captions hold marks of a program (<|endoftext|> in 20)" in err
    assert "said.json: all 20 images have the same caption, 'a dog <|endoftext|>'." in err
    assert "better.json: all 20 images have the same caption, 'a man'." in err
    (files / "ids.txt").write_text("3")
    run(*NO_METEOR, "--ids", "ids.txt")
    err = capsys.readouterr().err
    assert "refs.json" not in err
    assert "same caption" not in err


def test_beams(files, captions, capsys):
    """Of several captions an image the first is scored, where that is asked for."""
    wanted, said, better = captions
    rows = [{"image_id": k, "caption": said[k]} for k in said]
    rows += [{"image_id": k, "caption": better[k]} for k in said]
    (files / "beams.json").write_text(json.dumps(rows))
    words = ["--references", "refs.json", "--results", "beams.json", *NO_METEOR]
    fails("score_captions", *words, capsys=capsys, said="--take first takes the first of each")
    main([*words, "--take", "first", "--out", "scores.json"])
    found = score(wanted, said)
    assert json.loads((files / "scores.json").read_text())["per_image"] == found.per_image
    against = ["--against", "beams.json", "--take", "first", "--bootstrap", 10]
    run(*NO_METEOR, *against, "--out", "scores.json")
    difference = json.loads((files / "scores.json").read_text())["against"]["difference"]
    assert difference["CIDEr"]["value"] == 0


def words_for(*more: object) -> list[object]:
    return ["--references", "refs.json", "--results", "said.json", *NO_METEOR, *more]


def test_halves_of_surrogate_pairs(files):
    """JSON may hold them; no file can."""
    (files / "refs.json").write_text('{"\\ud800": ["a dog \\ud83d"], "b": ["a cat"]}')
    (files / "said.json").write_text('{"\\ud800": "a dog \\ud83d", "b": "a cat"}')
    run(*NO_METEOR, "--out", "scores.json", "--page", "page.html")
    assert list(json.loads((files / "scores.json").read_text())["per_image"]) == ["\ud800", "b"]
    page = (files / "page.html").read_text(encoding="utf-8")
    assert "a dog ?" in page
    assert "no picture" not in page  # no folder was given


def test_meteor_is_left_out_with_a_note(files, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if "coco" in name else real(name, *a)
    )
    run()
    printed = capsys.readouterr()
    assert "METEOR is left out: there is no pycocoevalcap" in printed.err
    assert "pip install pycocoevalcap" in printed.err
    assert "METEOR" not in printed.out
    fails("score_captions", *words_for()[:4], "--meteor", "python", capsys=capsys,
          said="no pycocoevalcap in this environment")  # fmt: skip
    monkeypatch.setenv("PATH", "")
    fails("score_captions", *words_for()[:4], "--meteor", "jar", capsys=capsys,
          said="there is no Java")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resuts", "x"], "there is no option --resuts"),
        (["--boot"], "there is no option --boot"),
        (["--meteor", "maybe"], "invalid choice: 'maybe'"),
        (["--tokenizer", "jieba"], "invalid choice: 'jieba'"),
        (["--take", "best"], "invalid choice: 'best'"),
        (["--bootstrap", "-1"], "--bootstrap is -1; it must be at least 0"),
        (["--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--out", "."], ". is a folder; expected the name of a file"),
        (["--out", "refs.json"], "refs.json would be written over"),
        (["--page", "said.json"], "said.json would be written over"),
        (["--out", "x", "--page", "x"], "--out and --page both name x"),
        (["--images", "."], "give --page FILE too"),
        (["--page", "x", "--images", "nowhere"], "there is no folder nowhere"),
        (["--against", "nowhere.json"], "there is no file nowhere.json"),
        (["--against", "part.json"], "19 of 20 images have no caption in part.json"),
        (["--ids", "nowhere.txt"], "there is no file nowhere.txt"),
        (["--corpus", "nowhere.p"], "there is no file nowhere.p"),
        (["--corpus", "nowhere.json"], "there is no file nowhere.json"),
        (["--results", "part.json"], "19 of 20 images have no caption in part.json"),
    ],
)
def test_mistakes(words, said, files, capsys):
    (files / "part.json").write_text('{"3": "a dog"}')
    before = sorted(path.name for path in files.iterdir())
    fails("score_captions", *words_for(*words), capsys=capsys, said=said)
    assert sorted(path.name for path in files.iterdir()) == before


def test_a_benchmark_beside_the_reference_is_there():
    done = call("bench", "captions", "--help")
    assert done.returncode == 0, done.stderr
    assert "--parts" in done.stdout


def test_files_of_different_programs_fit(files, captions, capsys):
    """Karpathy's JSON beside LAVIS's list, by the names of images, and images in their folders."""
    wanted, said, _ = captions
    names = {key: f"COCO_val2014_{place:012}.jpg" for place, key in enumerate(wanted)}
    entries = [
        {"filepath": "val2014", "filename": names[key], "split": "test", "cocoid": place,
         "sentences": [{"raw": text} for text in texts]}
        for place, (key, texts) in enumerate(wanted.items())
    ]  # fmt: skip
    (files / "refs.json").write_text(json.dumps({"images": entries}))
    results = [
        {
            "image": f"coco/images/val2014/{names[key]}",
            "image_id": f"made_up_{place}",
            "caption": text,
        }
        for place, (key, text) in enumerate(reversed(said.items()))
    ]
    (files / "said.json").write_text(json.dumps(results))
    (files / "images" / "val2014").mkdir(parents=True)
    for name in names.values():
        (files / "images" / "val2014" / name).write_bytes(PNG)
    run(*NO_METEOR, "--out", "scores.json", "--page", "page.html", "--images", "images")
    content = json.loads((files / "scores.json").read_text())
    assert content["corpus"] == pytest.approx(score(wanted, said).corpus)
    logged = capsys.readouterr().err
    assert "said.json: 20 of 20 ids are written otherwise than in refs.json" in logged
    assert (files / "page.html").read_text().count("<img") == 20
