#!/usr/bin/env bash
# Package:   pycocoevalcap 1.2 (the MS-COCO caption evaluation), ROUGE-L
# Behaviour: with several references the score is not that of the best reference. The largest
#            precision and the largest recall are taken over the references one by one, each from
#            whichever reference gives it, and combined into one F measure that no reference has.
# Seen:      references "a dog" and "a brown dog runs on the wet beach",
#            caption "a dog runs on the beach": 0.55 against the first reference alone, 0.84 against
#            the second alone, 1.00 against both, although the caption equals neither.
# Hurts:     adding one short reference pushes the recall of every caption towards 1, so ROUGE-L
#            depends on how uneven the references' lengths are more than on the captioner: two
#            data sets, or one with references removed, cannot be compared, a perfect 1.0 does not
#            mean that a reference was met, and packages that take the best F of the references
#            give lower numbers under the same name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pycocoevalcap==1.2 pycocotools==2.0.11

cat > see.py <<'PYTHON'
from pycocoevalcap.rouge.rouge import Rouge

caption = "a dog runs on the beach"
references = ["a dog", "a brown dog runs on the wet beach"]
rouge = Rouge()
alone = [rouge.calc_score([caption], [reference]) for reference in references]
_, both = rouge.compute_score({0: references}, {0: [caption]})
for reference, score in zip(references, alone):
    print(f"{score:.4f}  {caption!r} against {reference!r}")
print(f"{both[0]:.4f}  against both")
expected = [round(score, 4) for score in (*alone, both[0])] == [0.5495, 0.8356, 1.0]
raise SystemExit(0 if expected and caption not in references else "the behaviour has changed")
PYTHON
env/bin/python see.py
