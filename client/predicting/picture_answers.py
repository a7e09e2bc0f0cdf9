"""What is said about a picture file: its class, what supports it, or why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedmunkey.client.importing.fitting import fit
from fedmunkey.client.importing.pictures import Choices, Remark, UnusablePicture, open_picture
from fedmunkey.client.importing.pictures.picture import Pixels
from fedmunkey.client.predicting.prediction import Prediction
from fedmunkey.common.settings.settings import ImageShape


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """A file as it is called, and its (C, H, W) pixels; or why it cannot be used."""

    name: str
    pixels: Pixels | None = None
    refused: str = ""
    remarks: tuple[Remark, ...] = ()

    @classmethod
    def of(cls, path: Path, name: str, choices: Choices, shape: ImageShape) -> ReadPicture:
        """Read a file and bring it to a shape."""
        try:
            picture = open_picture(path, choices)
        except UnusablePicture as reason:
            return cls(name, refused=str(reason))
        pixels: NDArray[Any] = fit(picture.pixels, shape)
        return cls(name, pixels, remarks=picture.remarks)


@dataclass(frozen=True)
class PictureAnswer:
    """What is answered about one file; a prediction, or why there is none."""

    name: str
    classes: tuple[str, ...]
    prediction: Prediction | None = None
    refused: str = ""
    remarks: tuple[Remark, ...] = ()

    def class_name(self, label: int) -> str:
        """Return what a class is called; one without a name is called by its number."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def document(self) -> dict[str, Any]:
        """Return the answer, JSON-ready."""
        found = self.prediction
        if found is None:
            return {"file": self.name, "reason": self.refused}
        return {
            "file": self.name,
            "remarks": [remark.value for remark in self.remarks],
            "class": self.class_name(found.label),
            "label": found.label,
            "probability": found.probabilities[found.label],
            "probabilities": {self.class_name(label): value for label, value in enumerate(found.probabilities)},
            "retrieved": len(found.neighbours),
            "supporting": len(found.supporting),
            "neighbours": [
                {"class": self.class_name(neighbour.label), "similarity": neighbour.similarity}
                for neighbour in found.neighbours
            ],
        }
