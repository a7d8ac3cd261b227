"""The configuration of a captioning run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Literal

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

    kind: Literal["nic", "attention"] = "nic"
    """nic: Show and Tell (Vinyals et al., CVPR 2015), one feature an image; attention: Show, Attend
    and Tell (Xu et al., ICML 2015), soft attention over the encoder's last map."""
    embed_size: int = 512
    """Width of the word and image embedding."""
    hidden_size: int = 512
    """Width of the LSTM."""
    attention_size: int = 512
    """Width in which positions and state are compared (attention)."""
    dropout: float = 0.0
    """Of the input words, and of what the next word is predicted from."""
    coverage: float = 1.0
    """Weight of the penalty for positions attended to too much or too little over a caption
    (attention; equation 14 there)."""

    def __post_init__(self) -> None:
        """Refuse widths below one."""
        sizes = dict.fromkeys(("embed_size", "hidden_size", "attention_size"), "[1, 65536]")
        check_ranges("model", self, **sizes)
        check_ranges("model", self, coverage=">= 0", dropout="[0, 1)")


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

    def __post_init__(self) -> None:
        """Refuse widths below one."""
        check_ranges("decoding", self, beam="[1, 1000]", max_length="[1, 1000]")
        check_ranges("decoding", self, block_ngrams=">= 0", length_normalisation=">= 0")


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig(TrainerConfig):
    """One captioning run."""

    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
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
        start = self.encoder.from_epoch
        if start is not None and self.epochs is not None and start >= self.epochs:
            raise UsageError(
                f"encoder.from_epoch is {start}, but the run ends after {self.epochs} epochs. Give "
                "a smaller one, or null for a frozen encoder."
            )
