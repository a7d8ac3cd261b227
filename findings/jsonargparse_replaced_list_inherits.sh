#!/usr/bin/env bash
# Package:   jsonargparse 4.53.0 (with PyYAML), Python >= 3.11
# Behaviour: an option of type list[SomeDataclass] that is given again does not always replace the
#            list. Where the new list has as many elements as the old one, each new element takes
#            over, by its position, every field that it does not name from the old element. Where
#            the lengths differ, the fields fall back to the dataclass's defaults.
# Seen:      recipe [{method: mixup, alpha: 0.2}], then
#              --others '[{method: cutmix}]'                   -> cutmix, alpha 0.2  (mixup's)
#              --others '[{method: cutmix}, {method: fmix}]'   -> cutmix, alpha 1.0  (the default)
#            The same for a second --config file behind the first.
# Hurts:     lists of augmentations, losses or callbacks are the usual use. A run that replaces the
#            recipe's mixup by cutmix trains with mixup's alpha and weight, without a message, and
#            adding a second method silently changes the first one's settings. An ablation then
#            compares something else than its command lines say.
# Way out:   name every field, or empty the list first: --others '[]' --others '[{method: cutmix}]'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check jsonargparse==4.53.0 PyYAML==6.0.3

cat > recipe.yaml <<'YAML'
others:
- {method: mixup, alpha: 0.2}
YAML
cat > second.yaml <<'YAML'
others:
- {method: cutmix}
YAML
cat > see.py <<'PYTHON'
from dataclasses import dataclass

from jsonargparse import ArgumentParser


@dataclass
class Method:
    method: str
    alpha: float = 1.0


def parse(*words):
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--others", type=list[Method], default=[])
    chosen = parser.parse_args(list(words)).others
    values = [(one.method, one.alpha) for one in chosen]
    print(" ".join(words), "->", values)
    return values


recipe = ("--config", "recipe.yaml")
one, two = "[{method: cutmix}]", "[{method: cutmix}, {method: fmix}]"
alone = parse("--others", one)
same_length = parse(*recipe, "--others", one)
other_length = parse(*recipe, "--others", two)
second_file = parse(*recipe, "--config", "second.yaml")
emptied = parse(*recipe, "--others", "[]", "--others", one)
assert alone == emptied == [("cutmix", 1.0)]
assert other_length == [("cutmix", 1.0), ("fmix", 1.0)]
changed = same_length != [("cutmix", 0.2)] or second_file != [("cutmix", 0.2)]
raise SystemExit("the behaviour has changed" if changed else 0)
PYTHON
env/bin/python see.py
