#!/usr/bin/env bash
# Package:   transformers 4.56.2 (the last that has this search in the package; later ones fetch it
#            from the Hub), generate with num_beam_groups (diverse beam search)
# Behaviour: a group that is done is filled up with the padding, and HammingDiversityLogitsProcessor
#            counts what an earlier group has at a place, padding too. Where the padding is the
#            end-of-sequence token, each place behind a finished group takes the penalty, times the
#            beams of that group, from the END of all later ones: they are kept from stopping.
# Seen:      one model, two groups of one beam, a penalty of 1.0. Padding of its own:
#            "the dog sleeps". Padding = END, and nothing else changed:
#            "the dog sleeps and sleeps and sleeps and".
# Hurts:     GPT-2, most language models and captioners built on them (ViT-GPT2) have no padding
#            token: generate then takes END and says so in one line, as it does for every search.
#            The later groups' sentences run on, the more the sooner the first group has ended. It
#            reads as if diversity made a model babble, and a smaller penalty seems to be the cure.
# Way out:   pad_token_id=ID to generate, of any token that the model never says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    transformers==4.56.2 torch==2.11.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

words = ["<pad>", "<start>", "<end>", "a", "cat", "the", "dog", "sleeps", "and"]
number = {word: place for place, word in enumerate(words)}
# the probabilities of the next word, by the last one
chain = {
    "<start>": {"a": 0.5, "the": 0.4},
    "a": {"cat": 0.9},
    "cat": {"<end>": 0.9},
    "the": {"dog": 0.9},
    "dog": {"sleeps": 0.9},
    "sleeps": {"<end>": 0.6, "and": 0.3},
    "and": {"sleeps": 0.9},
}
table = torch.full((len(words), len(words)), 1e-4)
for word, following in chain.items():
    for other, probability in following.items():
        table[number[word], number[other]] = probability


class Bigrams(PreTrainedModel, GenerationMixin):
    config_class = PretrainedConfig

    def __init__(self):
        super().__init__(PretrainedConfig(vocab_size=len(words), num_hidden_layers=1))
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids, return_dict=True, **_):
        return CausalLMOutput(logits=table.log()[input_ids])


def sentences(padding):
    start = torch.tensor([[number["<start>"]]])
    found = Bigrams().generate(
        start,
        num_beams=2,
        num_beam_groups=2,
        num_return_sequences=2,
        diversity_penalty=1.0,
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=number["<end>"],
        pad_token_id=number[padding],
    )
    texts = [[words[word] for word in row if words[word][0] != "<"] for row in found.tolist()]
    return sorted(" ".join(text) for text in texts)


own, end = sentences("<pad>"), sentences("<end>")
print(f"padding of its own: {own}\npadding = end:      {end}")
seen = own == ["a cat", "the dog sleeps"] and end[1].startswith("the dog sleeps and sleeps and")
raise SystemExit(0 if seen else "the behaviour has changed")
PYTHON
env/bin/python see.py
