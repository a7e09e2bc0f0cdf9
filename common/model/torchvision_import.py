"""Import torchvision, also beside a torch for which its compiled extension was not built.

The torchvision on the package index is linked to CUDA. Beside a CPU-only torch its extension cannot load and the import
stops with `operator torchvision::nms does not exist`, although models, transforms and data sets need no operator of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """Return the torchvision package, imported at most once; raises `ModuleNotFoundError` if it is not installed.

    Where the compiled extension cannot load, the schemas of the two operators that torchvision's Python code registers
    against are defined first. Calling those operators then fails as it would without them.
    """
    global _library
    if "torchvision" not in sys.modules and _library is None and not _extension_loads():
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
    return importlib.import_module("torchvision")


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for path in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(path)
        except OSError:
            return False
        return True
    return False
