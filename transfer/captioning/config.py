"""The configuration of a captioning run. No torch at import: `--help` is instant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pretrain.config import LoaderConfig, OptimizerConfig, TrainerConfig
from pretrain.errors import UsageError, check_ranges


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which images and captions, and how they become numbers."""

    layout: Literal["auto", "coco", "karpathy", "flickr", "folder"] = "auto"
    """MS-COCO's annotations, Karpathy's JSON, Flickr's token file, or one file of captions beside
    its images; auto takes the one that is there."""
    train: str | None = None
    """MS-COCO: split for training, such as train2014; null takes the one that begins with train."""
    val: str | None = None
    """MS-COCO: split scored after each epoch; null takes the one that begins with val."""
    test: str | None = None
    """MS-COCO: split scored once, at the end; null takes the one that begins with test, if any."""
    splits: str | None = None
    """Karpathy's JSON (dataset_coco.json); null looks for one in the folder."""
    images: str | None = None
    """Folder of the images, where they do not lie within the data; null looks there."""
    val_fraction: float = 0.1
    """Share of the images that is not trained on, where the data has no splits of its own."""
    image_size: int | None = None
    """Side of the encoder's input in pixels; null takes the size the backbone was trained at."""
    tokenizer: Literal["ptb", "characters", "none"] = "ptb"
    """What cuts captions into words, to train and to score: ptb is MS-COCO's, for English;
    characters is for languages without spaces; none takes what stands between spaces."""
    min_count: int = 5
    """A word seen fewer times in the training captions is unknown."""
    max_words: int = 30
    """A training caption is cut behind so many words."""
    max_corrupt: int = 0
    """Images that may be missing or corrupt, and are then named and left out."""

    def __post_init__(self) -> None:
        """Refuse sizes out of range."""
        check_ranges("dataset", self, image_size="[8, 8192]", val_fraction="(0, 1)")
        check_ranges("dataset", self, min_count=">= 1", max_words=">= 1", max_corrupt=">= 0")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder."""

    kind: Literal["nic", "attention", "transformer"] = "nic"
    """nic: Show and Tell (Vinyals et al., CVPR 2015), one feature an image; attention: Show, Attend
    and Tell (Xu et al., ICML 2015), soft attention over the encoder's last map; transformer:
    Vaswani et al., NeurIPS 2017, on the same map."""
    embed_size: int = 512
    """Width of the word and image embedding (nic, attention)."""
    hidden_size: int = 512
    """Width of the LSTM; of the whole transformer."""
    attention_size: int = 512
    """Width in which positions and state are compared (attention)."""
    dropout: float = 0.0
    """Of the input words, and of what the next word is predicted from (nic, attention); of the
    input of each stack, and of what each block adds (transformer)."""
    coverage: float = 1.0
    """Weight of the penalty for positions attended to too much or too little over a caption
    (attention; equation 14 there)."""
    num_layers: int = 6
    """Of the decoder (transformer)."""
    encoder_layers: int = 3
    """Layers of self-attention over the image's positions before the decoder (transformer)."""
    num_heads: int = 8
    """Of each attention (transformer); hidden_size is a multiple of it."""
    ffn_size: int = 2048
    """Width between the two linear layers of a block (transformer)."""

    def __post_init__(self) -> None:
        """Refuse widths below one."""
        names = ("embed_size", "hidden_size", "attention_size", "ffn_size")
        check_ranges("model", self, **dict.fromkeys(names, "[1, 65536]"), num_heads="[1, 1024]")
        check_ranges("model", self, coverage=">= 0", dropout="[0, 1)")
        check_ranges("model", self, num_layers="[1, 128]", encoder_layers="[0, 128]")
        if self.kind == "transformer" and self.hidden_size % self.num_heads:
            raise UsageError(
                f"model.hidden_size is {self.hidden_size}; it must be a multiple of the "
                f"{self.num_heads} of model.num_heads"
            )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The backbone: frozen, or trained too once the decoder has settled."""

    from_epoch: int | None = None
    """Train the encoder from this epoch on (0 is the first); null keeps it frozen. Its
    normalisation layers keep their statistics."""
    lr: float = 1e-5
    """Its own peak learning rate, on the same schedule."""

    def __post_init__(self) -> None:
        """Refuse rates that cannot learn."""
        check_ranges("encoder", self, from_epoch=">= 0", lr="> 0")


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """The search for the final captions; after each epoch its width is 1."""

    beam: int = 3
    """Width of the beam search; 1 takes the likeliest word each time."""
    max_length: int = 20
    """Most words of a caption, its end counted."""
    length_normalisation: float = 0.0
    """Power of the length by which a caption's log-probability is divided; 0 compares sums."""
    block_ngrams: int = 0
    """No n-gram of this size is repeated within a caption; 0 allows all."""
    groups: int = 1
    """The beam is cut into so many groups that keep apart (diverse beam search, Vijayakumar et al.,
    AAAI 2018); 1 is the plain search."""
    diversity: float = 0.5
    """Taken from a word's log-probability for each hypothesis of an earlier group that has the word
    at this place (groups above 1)."""

    def __post_init__(self) -> None:
        """Refuse widths below one."""
        check_ranges("decoding", self, beam="[1, 1000]", max_length="[1, 1000]")
        check_ranges("decoding", self, block_ngrams=">= 0", length_normalisation="[0, 10]")
        check_ranges("decoding", self, groups=">= 1", diversity=">= 0")
        if self.beam % self.groups:
            raise UsageError(
                f"decoding.beam is {self.beam}; it must be a multiple of the {self.groups} of "
                "decoding.groups"
            )


@dataclass(frozen=True, kw_only=True)
class SelfCriticalConfig:
    """Training on rewards (Rennie et al., CVPR 2017): objective self_critical."""

    samples: int = 5
    """Captions drawn of each image; batch_size counts captions and is a multiple of it."""
    baseline: Literal["mean", "greedy"] = "mean"
    """What a reward is compared with: mean, of the other samples of the image (Luo, arXiv
    2003.09971); greedy, the caption that takes the likeliest word each time, as in the paper."""

    def __post_init__(self) -> None:
        """Refuse a mean of nothing."""
        check_ranges("self_critical", self, samples="[1, 1000]")
        if self.baseline == "mean" and self.samples < 2:
            raise UsageError(
                "self_critical.samples is 1; baseline mean wants at least 2. Give more, or "
                "--self_critical.baseline greedy"
            )


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig(TrainerConfig):
    """One captioning run."""

    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    random_init: bool = False
    """Take the backbone's architecture and preprocessing with random weights: what it was worth."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            name="adam",
            lr=1e-3,
            weight_decay=0.0,
            schedule="constant",
            milestones=(),
            clip_norm=5.0,
        )
    )
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    start_from: str | None = None
    """A finished captioning run, or its captioner.pth, whose weights and words this run begins
    with; its model, image size, tokenizer and vocabulary are taken over."""
    objective: Literal["cross_entropy", "self_critical"] = "cross_entropy"
    """What is minimised: the negative log-likelihood of the captions, or minus the CIDEr-D of what
    is generated, which wants a start."""
    self_critical: SelfCriticalConfig = field(default_factory=SelfCriticalConfig)
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(workers=1))
    epochs: int | None = 20
    patience: int | None = None
    """Stop when so many epochs have not raised the CIDEr; null trains all epochs."""
    batch_size: int = 20
    """Captions in an optimizer step, over all processes."""
    meteor: Literal["auto", "off"] = "auto"
    """METEOR at the end, where pycocoevalcap is installed."""
    cache: str = "runs/features"
    """Folder of the features of frozen encoders, shared by runs."""

    def __post_init__(self) -> None:
        """Refuse counts below one and contradictions."""
        super().__post_init__()
        check_ranges("", self, batch_size=">= 2", patience=">= 1")
        if self.random_init and self.start_from is not None:
            raise UsageError(
                f"random_init takes an untrained encoder, but start_from is {self.start_from}, a "
                "captioner with its own. Leave one of them out."
            )
        if self.objective == "self_critical":
            if self.start_from is None:
                raise UsageError(
                    "objective self_critical wants a captioner to begin with: train one with "
                    "cross_entropy, and give its run by --start_from RUN"
                )
            if self.batch_size % self.self_critical.samples:
                raise UsageError(
                    f"batch_size is {self.batch_size}; it must be a multiple of the "
                    f"{self.self_critical.samples} of self_critical.samples"
                )
        start = self.encoder.from_epoch
        if start is not None and self.epochs is not None and start >= self.epochs:
            raise UsageError(
                f"encoder.from_epoch is {start}, but the run ends after {self.epochs} epochs. Give "
                "a smaller one, or null for a frozen encoder."
            )


def captioner_name(config: Mapping[str, Any]) -> str:
    """What people call the captioner of a configuration as a result holds it.

    Empty for NIC trained by cross-entropy, which is the paper's.
    """
    model, rewarded = config.get("model"), config.get("objective") == "self_critical"
    kind = model.get("kind") if isinstance(model, dict) else None
    names = {"attention": "Attention", "transformer": "Transformer"}
    name = names.get(str(kind), "NIC" if rewarded else "")
    return f"{name}, self-critical" if rewarded else name
