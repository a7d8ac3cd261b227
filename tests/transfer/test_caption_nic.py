"""NIC beside another one, written in plain PyTorch."""

import torch
from torch import nn

from transfer.captioning.config import ModelConfig
from transfer.captioning.decoder import caption_loss
from transfer.captioning.nic import Nic
from transfer.captioning.sampling import sample


class PlainNic(nn.Module):
    """NIC as a tutorial writes it: cells stepped by hand, one caption after another."""

    def __init__(self, features: int, words: int, embed: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, embed)
        self.bn = nn.BatchNorm1d(embed, momentum=0.01)
        self.table = nn.Parameter(torch.zeros(words, embed))
        self.cell = nn.LSTMCell(embed, hidden)
        self.out = nn.Linear(hidden, words)

    def loss(self, features, captions):
        inputs, total, count = self.bn(self.linear(features)), 0.0, 0
        for feature, caption in zip(inputs, captions, strict=True):
            state = self.cell(feature[None])
            for last, word in zip([1, *caption], [*caption, 2], strict=False):
                state = self.cell(self.table[last][None], state)
                total = total - torch.log_softmax(self.out(state[0])[0], 0)[word]
                count += 1
        return total / count

    def greedy(self, features, longest):
        captions = []
        for feature in self.bn(self.linear(features)):
            state, word, caption = self.cell(feature[None]), 1, []
            while len(caption) < longest and word != 2:
                state = self.cell(self.table[word][None], state)
                logits = self.out(state[0])[0]
                logits[[0, 1, 3]] = -torch.inf
                word = int(logits.argmax())
                caption.append(word)
            captions.append(caption)
        return captions


def test_the_norm_settles_on_what_one_large_batch_would_show_it():
    made = Nic(7, 13, ModelConfig(embed_size=5, hidden_size=6))
    features = torch.randn(23, 7)
    made.recalibrate_batch_norm(iter(features.split(10)))
    norm = nn.BatchNorm1d(5, momentum=None)  # None: the running statistics are the batch's
    norm(made.project(features))
    torch.testing.assert_close(made.norm.running_mean, norm.running_mean)
    torch.testing.assert_close(made.norm.running_var, norm.running_var)


def test_loss_gradients_and_greedy_equal_a_plain_nic():
    torch.manual_seed(0)
    ours = Nic(7, 13, ModelConfig(embed_size=5, hidden_size=6))
    theirs = PlainNic(7, 13, 5, 6)
    names = {
        "linear.weight": "project.weight", "linear.bias": "project.bias",
        "bn.weight": "norm.weight", "bn.bias": "norm.bias", "table": "embed.weight",
        "cell.weight_ih": "lstm.weight_ih_l0", "cell.weight_hh": "lstm.weight_hh_l0",
        "cell.bias_ih": "lstm.bias_ih_l0", "cell.bias_hh": "lstm.bias_hh_l0",
        "out.weight": "classify.weight", "out.bias": "classify.bias",
    }  # fmt: skip
    own = dict(ours.named_parameters())
    assert sorted(names.values()) == sorted(own)
    for name, parameter in theirs.named_parameters():
        parameter.data.copy_(own[names[name]].data)
    captions = [torch.randint(3, 13, (n,)).tolist() for n in (4, 1, 6, 3)]
    words = torch.zeros(4, 7, dtype=torch.long)
    for row, caption in enumerate(captions):
        words[row, : len(caption) + 1] = torch.tensor([*caption, 2])
    features = torch.randn(4, 7)
    loss, likelihood = caption_loss(ours(features, words), words, 1.0)
    loss.backward()
    expected = theirs.loss(features, captions)
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-5
    assert loss.item() == likelihood.item()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(own[names[name]].grad, parameter.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.norm.running_mean, theirs.bn.running_mean)
    torch.testing.assert_close(ours.norm.running_var, theirs.bn.running_var)
    ours.eval(), theirs.eval()
    for _ in range(5):
        features = torch.randn(9, 7)
        words = sample(ours, features, 8)[0][:, 0]
        generated = [[w for w in row if w] for row in words.tolist()]
        assert generated == theirs.greedy(features, 8)
