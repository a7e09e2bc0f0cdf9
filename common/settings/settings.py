"""The settings of a federation: one typed, validated place for what `[tool.flwr.app.config]` and `--run-config` say.

Flower hands every app a flat dictionary with kebab-case keys. `Settings.parse` turns it into a frozen object or raises
`InvalidSetting` with one line; `Settings.to_config` goes the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings_text import Address, ConfigValue, explain, kebab

AUTO_DEPTH = -1
"""Leaves the number of transformer blocks to the image path."""

MOST_ROUNDS = 100_000

RENEW_DAYS = 7
"""Days within which weights are renewed after a deletion, where nobody says otherwise."""

USUAL_ROUNDS = 20
"""Rounds of descending to shared weights."""

FEWEST_CLASSES = 2
"""A site may hold one class only, a federation has at least two."""

DESCRIPTOR = "descriptor"
ONNX = "onnx"
"""The encoder whose model is a file in ONNX: `encoder-weights` says which."""
"""The encoder without learned weights."""


class ImagePath(StrEnum):
    """Where the model's image tokens come from (`docs/architecture.md`, The way of a record)."""

    AUTO = "auto"
    PATCHES = "patches"
    FROZEN = "frozen"


class PoolingName(StrEnum):
    """How an encoder's feature maps become tokens, where it has any."""

    AUTO = "auto"
    MEAN = "mean"
    MAXIMUM = "maximum"
    GRID = "grid"


class StrategyName(StrEnum):
    """Flower strategies that the coordinator can be told to use."""

    FEDAVG = "fedavg"
    FEDAVGM = "fedavgm"
    FEDPROX = "fedprox"
    FEDADAM = "fedadam"
    FEDADAGRAD = "fedadagrad"
    FEDYOGI = "fedyogi"
    FEDMEDIAN = "fedmedian"
    FEDTRIMMEDAVG = "fedtrimmedavg"


class AggregationName(StrEnum):
    """How the K retrieved exemplar tokens become one prediction."""

    AUTO = "auto"
    ENSEMBLE = "ensemble"
    SOFTMAX = "softmax"
    RANK = "rank"


class ExemplarTokens(StrEnum):
    """Where exemplar tokens come from; `auto` takes `joint` where they are trained along, `own` otherwise."""

    AUTO = "auto"
    JOINT = "joint"
    OWN = "own"


class LearnsFrom(StrEnum):
    """Whose records the shared weights of `exact` are solved from."""

    ALL = "all"
    PERMANENT = "permanent"


class AbsentSites(StrEnum):
    """What becomes of a solved round in which a connected site cannot take part."""

    LEAVE_OUT = "leave-out"
    STOP = "stop"


class DeviceName(StrEnum):
    """Where tensors live; `auto` takes CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ImageShape(tuple[int, int, int]):
    """Channels, height and width of an image, written as `3x224x224`."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `CxHxW` or a sequence of three positive whole numbers; raises `ValueError` if it is neither."""
        parts = value.lower().split("x") if isinstance(value, str) else value
        try:
            # Through text, because int() cuts 8.9 down to 8 without a word.
            numbers = tuple(int(str(part)) for part in parts)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) != 3 or min(numbers) < 1 or numbers[0] not in (1, 3):
            raise ValueError("must be channels x height x width with 1 or 3 channels, such as 3x224x224")
        return cls(numbers)

    def __str__(self) -> str:
        return "x".join(str(number) for number in self)


class Settings(BaseModel):
    """Everything that a federation agrees on before it trains.

    Field descriptions are the documentation: `docs/settings.md` is generated from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=kebab, populate_by_name=True, arbitrary_types_allowed=True
    )

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of every random choice; the same seed gives the same run.")
    num_rounds: int = Field(
        0,
        ge=0,
        le=MOST_ROUNDS,
        description="Rounds of training and evaluation; 0 chooses: 1 under `exact`, where one round solves for the "
        "weights, 20 otherwise.",
    )

    strategy: StrategyName = Field(StrategyName.FEDAVG, description="Flower strategy that averages the shared weights.")
    min_sites: int = Field(2, ge=1, le=100_000, description="Sites that must be connected before a round begins.")
    absent_sites: AbsentSites = Field(
        AbsentSites.LEAVE_OUT,
        description="`exact`: a site that fails in a round is left out (`leave-out`), its records with it, or the run "
        "stops (`stop`).",
    )
    initial_weights: str = Field(
        "",
        description="Shared weights (.safetensors) from which training starts, not under `exact`; empty starts from "
        "new ones.",
    )
    resume_run: bool = Field(
        False,
        description="Go on with the run in `output-dir`, which was cut off, after its last round: `munkey-server run "
        "--resume`.",
    )
    give_out: str = Field(
        "",
        description="Weights of an earlier run (.safetensors) that sites are to answer from again; nobody trains: "
        "`munkey-server runs use`.",
    )
    fraction_train: float = Field(
        1.0, gt=0, le=1, description="Share of the sites that train in a round; below 1, each run draws others."
    )
    fraction_evaluate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the sites that report accuracies after a round; all take over its weights.",
    )
    proximal_mu: float = Field(0.01, ge=0, le=100, description="Weight of FedProx's proximal term.")
    server_learning_rate: float = Field(
        0.01,
        gt=0,
        le=10,
        description="Server step of fedadam, fedadagrad and fedyogi; fedavgm always takes whole steps.",
    )

    num_classes: int = Field(10, ge=FEWEST_CLASSES, le=10_000, description="Number of classes.")
    image_shape: Annotated[ImageShape, BeforeValidator(ImageShape.parse)] = Field(
        ImageShape((1, 8, 8)), description="Channels x height x width of the images."
    )

    encoder: str = Field(
        DESCRIPTOR,
        description="Frozen key encoder: `descriptor`, `onnx:FILE`, `efficientnet_lite0`, `efficientnet_lite2`, or the "
        "name of a torchvision model.",
    )
    encoder_weights: str = Field(
        "",
        description="File with the encoder's weights; empty takes torchvision's own, or those of "
        "`fedmunkey[encoder]`. An ONNX file has its card beside it; a coordinator needs only the card.",
    )
    encoder_size: int = Field(
        0, ge=0, le=2048, description="Side in pixels to which images are resized for the encoder; 0 chooses."
    )
    encoder_pooling: PoolingName = Field(
        PoolingName.AUTO,
        description="How feature maps become tokens: `mean`, `maximum`, `grid` (four means), or `auto`, which takes "
        "mean and maximum. A vision transformer has none, and an ONNX file's card says its own.",
    )
    encoder_mirror: bool = Field(
        True,
        description="Whether a torchvision encoder reads each image and its mirror image and averages what it sees, in "
        "twice the time.",
    )
    image_path: ImagePath = Field(
        ImagePath.AUTO, description="`patches` (trained), `frozen` (the encoder's features), or `auto`."
    )

    patch_size: int = Field(0, ge=0, le=64, description="Side of a patch in pixels; 0 chooses.")
    width: int = Field(64, ge=8, le=4096, description="Width of the transformer.")
    depth: int = Field(
        AUTO_DEPTH,
        ge=AUTO_DEPTH,
        le=48,
        description="`empirical`: number of transformer blocks; 0 leaves a linear function and the memory; -1 chooses "
        "2. Other guarantees have none.",
    )
    heads: int = Field(4, ge=1, le=64, description="Attention heads; must divide the width.")
    exemplar_size: int = Field(128, ge=1, le=4096, description="Numbers in one exemplar token.")

    neighbours: int = Field(
        0,
        ge=0,
        le=64,
        description="K: how many keys are retrieved for a prediction; 0 chooses 16 under `certified` on the `frozen` "
        "path, 4 otherwise. Under `exact` they are named in support of an answer.",
    )
    aggregation: AggregationName = Field(
        AggregationName.AUTO,
        description="How the retrieved exemplar tokens become one prediction: `ensemble`, `softmax`, `rank`, or "
        "`auto`, which takes `softmax` under `certified` on the `frozen` path, `ensemble` otherwise.",
    )
    temperature: float = Field(
        0.02, ge=1e-6, le=100, description="Temperature of the softmax aggregation, in cosine similarity."
    )
    image_vote: bool = Field(
        True,
        description="Whether the image alone (null memory) votes beside the retrieved members; never where "
        "`auto` takes `softmax`.",
    )

    local_steps: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Training steps of a site in one round; 0 chooses: 3 on the `frozen` path and under `certified`, "
        "`local-epochs` otherwise.",
    )
    local_epochs: int = Field(
        3, ge=1, le=1000, description="Epochs over a site's records in one round, where `local-steps` has no say."
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="Records in one training step.")
    learning_rate: float = Field(2e-3, gt=0, le=10, description="Peak learning rate of the shared weights.")
    weight_decay: float = Field(0.05, ge=0, le=10, description="Weight decay of the shared weights.")
    exemplar_learning_rate: float = Field(1e-2, ge=0, le=10, description="Learning rate of the exemplar tokens.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing of the training loss.")
    training_members: int = Field(2, ge=1, le=64, description="Members of the packed ensemble in a training step.")
    self_retrieval: float = Field(
        0.8, ge=0, le=1, description="Share of training steps in which a record's own entry is retrieved."
    )
    image_dropout: float = Field(0.4, ge=0, lt=1, description="Share of training steps without the image.")
    memory_dropout: float = Field(0.4, ge=0, le=1, description="Share of members without their exemplar token.")

    guarantee: Guarantee = Field(Guarantee.EXACT, description="What a deletion means for the shared weights.")
    exemplar_tokens: ExemplarTokens = Field(
        ExemplarTokens.AUTO,
        description="`joint` (trained with the shared weights), `own` (computed from their own record), or `auto`.",
    )
    learns_from: LearnsFrom = Field(
        LearnsFrom.ALL,
        description="`exact`: records that the shared weights are solved from: `all`, or those of `permanent` consent, "
        "so that no deletion of others changes any weight.",
    )
    fewest_changed: int = Field(
        10,
        ge=0,
        description="`exact`: records that must have changed since the last release for another to be made: with two "
        "that differ by few, those can be told. Fewer wait until their renewal is due.",
    )
    renew_within: float = Field(
        RENEW_DAYS,
        gt=0,
        le=365,
        description="`exact`: days within which the shared weights are renewed after a deletion. Sites do not answer "
        "from older ones.",
    )
    release_now: bool = Field(
        False, description="`exact`: release although fewer than `fewest-changed` records have changed."
    )
    random_features: int = Field(
        -1,
        ge=-1,
        le=10_000,
        description="`exact`: fixed random features of a record's key that are read beside the encoder's own; -1 "
        "chooses 1000 on the `patches` path, which has no others, and none on the `frozen` path.",
    )
    epsilon: float = Field(
        3.0, gt=0, description="`certified`: budget of a record's privacy loss over all training; `inf` adds no noise."
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="`certified`: probability with which epsilon may fail.")
    clipping_norm: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="`certified`: largest Euclidean norm of one record's gradient.",
    )
    sampling_rate: float = Field(
        1.0, gt=0, le=1, description="`certified`: probability with which a record takes part in a noisy step."
    )
    clipped_learning_rate: float = Field(
        16.0,
        gt=0,
        le=1e6,
        description="`certified`: peak learning rate of steps along clipped gradients.",
    )

    device: DeviceName = Field(DeviceName.AUTO, description="`cpu`, `cuda`, or `auto`.")
    threads: int = Field(1, ge=0, le=256, description="Threads of one training step; 0 leaves torch's own choice.")
    sites_dir: str = Field(
        "sites", description="Simulation: the folder that holds one folder per site, hospital-1 and so on."
    )
    output_dir: str = Field("output", description="Where the coordinator writes weights and round metrics.")
    deletion_service: Address = Field("127.0.0.1:9440", description="Address of the deletion service, host:port.")
    deletion_identity: str = Field(
        "",
        description="Folder of the coordinator's identity, shown to the deletion service over mutual TLS; without it "
        "the coordinator connects in plain text. A site takes the one in its own folder.",
    )
    federation_card: str = Field(
        "",
        description="Digest of the federation card that a run is under, which `munkey-server run` sets; sites with "
        "another one take no part.",
    )
    deletion_patience: float = Field(
        60.0, ge=0, le=86_400, description="Seconds to wait for an unreachable deletion service before stopping."
    )

    @model_validator(mode="before")
    @classmethod
    def _encoder_file(cls, given: Any) -> Any:
        """Read `encoder = onnx:FILE` as the encoder and its file."""
        encoder = given.get("encoder") if isinstance(given, dict) else None
        if not isinstance(encoder, str) or not encoder.startswith(f"{ONNX}:"):
            return given
        file = encoder.removeprefix(f"{ONNX}:")
        other = given.get("encoder-weights", given.get("encoder_weights", ""))
        if other not in ("", file):
            raise ValueError(f"encoder = {encoder}: encoder-weights = {other} is another file; leave it out")
        kept = {name: value for name, value in given.items() if kebab(name) != "encoder-weights"}
        return kept | {"encoder": ONNX, "encoder-weights": file}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}; change one of them")
        if self.guarantee is not Guarantee.EMPIRICAL and self.exemplar_tokens is ExemplarTokens.JOINT:
            raise ValueError(
                f"exemplar-tokens = joint: guarantee = {self.guarantee} needs tokens of their own record only; "
                "set own or auto"
            )
        if self.guarantee is Guarantee.EXACT and self.initial_weights:
            raise ValueError(
                f"initial-weights = {self.initial_weights}: weights of guarantee = exact are solved for and start from "
                "none; leave it out"
            )
        if self.give_out and self.resume_run:
            raise ValueError("give-out and resume-run contradict each other; leave one of them out")
        return self

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return self.num_rounds or (1 if self.guarantee is Guarantee.EXACT else USUAL_ROUNDS)

    @property
    def descending_rounds(self) -> int:
        """How many rounds there are where weights are descended to, whatever the guarantee."""
        return self.num_rounds or USUAL_ROUNDS

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Self:
        """Validate a flat configuration with kebab-case keys.

        Raises `InvalidSetting`, which names the first key that is unknown, has a value of the wrong type or out of
        range, or does not fit the others, with its value and what is allowed.
        """
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            raise InvalidSetting(explain(error.errors()[0], cls.keys())) from None

    @classmethod
    def keys(cls) -> list[str]:
        """Return every setting's name as users write it, in the order of this class."""
        return [kebab(name) for name in cls.model_fields]

    def replace(self, **changes: Any) -> Self:
        """Return validated settings with some fields changed, named as Python attributes."""
        return self.parse({**self.to_config(), **{kebab(name): value for name, value in changes.items()}})

    def to_config(self) -> dict[str, ConfigValue]:
        """Return the flat kebab-case dictionary that Flower carries."""
        return {kebab(name): _plain(value) for name, value in self}


def _plain(value: Any) -> ConfigValue:
    if isinstance(value, StrEnum):
        return value.value
    return str(value) if isinstance(value, tuple) else value
