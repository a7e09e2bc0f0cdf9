"""Key encoders from ONNX files: any vetted model of a hospital, without its framework and without pickles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmunkey.common.errors import InvalidSetting, InvalidWeights, brought_by
from fedmunkey.common.model.encoder_facts import EncoderFacts, model_fingerprint
from fedmunkey.common.model.encoders.encoder_card import EncoderCard, card_path, read_encoder_card
from fedmunkey.common.model.encoders.image_model import MIRRORED, ImageModelEncoder
from fedmunkey.common.model.encoders.pooling import Pooling
from fedmunkey.common.settings.settings import ONNX


class OnnxEncoder(ImageModelEncoder):
    """The model of an ONNX file, prepared for and pooled as its card says; it runs on the CPU.

    The key is all feature tokens in a row, or the class token, scaled to unit length.

    Raises `InvalidSetting` where the file or its card is missing or onnxruntime is not installed, and `InvalidWeights`
    where file and card do not belong together, or the model reads or answers something else than the card says.
    """

    def __init__(self, path: Path, *, mirror: bool = False) -> None:
        self.path = path
        self.card = read_encoder_card(path)
        super().__init__(self.card.preprocessing, pooling=self.card.pooling, mirror=mirror, device=torch.device("cpu"))
        model = _read(path)
        digest = hashlib.sha256(model).hexdigest()
        if digest != self.card.sha256:
            raise InvalidWeights(
                f"{path}: its digest is {digest}, and its card {card_path(path)} is that of {self.card.sha256}; "
                "take the file that was vetted, or write a card for this one"
            )
        self._model = OnnxModel(path, model, self.card.output)
        self.feature_shape = _checked(path, self.card, self._model)
        self.key_size = self.facts.key_size

    @property
    def facts(self) -> EncoderFacts:
        """Whether images are mirrored as well, and digests of the model and its card."""
        return onnx_facts(self.card, mirror=self.mirror)

    def answer(self, pixels: Tensor) -> Tensor:
        """Return what the model answers for a prepared image of (1, 3, S, S), before it is pooled."""
        return self._model.run(pixels)


class OnnxModel:
    """A model that onnxruntime runs, one thread for each call, so that an image's numbers do not depend on threads.

    `content` are the bytes of the file at `path`, read once: what is run is what was checked. Raises `InvalidWeights`
    where it cannot be run, has more than one input, or no output of the name that is asked for.
    """

    def __init__(self, path: Path, content: bytes, output: str = "") -> None:
        self._path = path
        self._session = _session(path, content)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise InvalidWeights(f"{path}: the model has {len(inputs)} inputs; an encoder has one, the image")
        self._input = inputs[0].name
        outputs = [known.name for known in self._session.get_outputs()]
        if output and output not in outputs:
            raise InvalidWeights(f"{path}: the model has no output {output}; it has {', '.join(outputs)}")
        self._output = output or outputs[0]

    def run(self, pixels: Tensor) -> Tensor:
        """Return the output for (1, 3, S, S) prepared pixels."""
        try:
            (answer,) = self._session.run([self._output], {self._input: pixels.contiguous().numpy()})
        except Exception as error:
            # onnxruntime's errors have no base class of their own, and several lines.
            reason = " ".join(str(error).split())[:200]
            raise InvalidWeights(
                f"{self._path}: the model does not take an image of {tuple(pixels.shape)} float32 ({reason})"
            ) from None
        return torch.from_numpy(answer).float()


def onnx_facts(card: EncoderCard, *, mirror: bool) -> EncoderFacts:
    """Return what a model is made of, as its card says: whoever vouches for the card needs no model."""
    _, size = card.features
    return EncoderFacts(
        name=ONNX,
        weights=card.sha256,
        preprocessing=f"{card.preprocessing.words}; {card.pooling} of {card.output or 'the first output'}"
        f"{MIRRORED * mirror}",
        fingerprint=model_fingerprint(ONNX, card.size, card.digest, mirror=mirror),
        size=0,
        key_size=card.pooling.key_size(size),
        feature_shape=card.features,
    )


def onnx_feature_shape(path: Path) -> tuple[int, int]:
    """Return tokens and numbers in each, as the card beside the file says; the file itself is not read."""
    return read_encoder_card(path).features


def pooled_shape(path: Path, pooling: Pooling, size: int, model: OnnxModel) -> tuple[int, int]:
    """Return tokens and numbers in each, by a pass over a grey image.

    Raises `InvalidWeights` where the model does not answer with what is pooled so, or not with finite numbers.
    """
    output = model.run(torch.zeros(1, 3, size, size))
    if output.ndim != pooling.dimensions or len(output) != 1 or not output.numel():
        raise InvalidWeights(
            f"{path}: its output is {tuple(output.shape)}; pooling = {pooling} takes {pooling.dimensions} dimensions, "
            "the first of them one image"
        )
    if not bool(torch.isfinite(output).all()):
        raise InvalidWeights(f"{path}: its output for a grey image is not finite")
    pooled = pooling.pool(output)
    return int(pooled.shape[1]), int(pooled.shape[2])


def _checked(path: Path, card: EncoderCard, model: OnnxModel) -> tuple[int, int]:
    found = pooled_shape(path, card.pooling, card.size, model)
    if found != card.features:
        raise InvalidWeights(
            f"{card_path(path)}: features = {list(card.features)}, and the model has {list(found)} with "
            f"pooling = {card.pooling}"
        )
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InvalidSetting(f"encoder-weights = {path}: there is no such file") from None
    except OSError as error:
        raise InvalidWeights(f"encoder-weights = {path}: cannot be read ({error})") from None


def _session(path: Path, content: bytes) -> Any:
    with brought_by("onnx", f"encoder = {ONNX}, which onnxruntime reads,"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's errors have no base class of their own, and several lines.
        reason = " ".join(str(error).split())[:200]
        raise InvalidWeights(f"encoder-weights = {path}: not a model in ONNX that can be run ({reason})") from None
