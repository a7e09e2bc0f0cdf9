from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ..dicom_files import write_dicom as write_file

WriteDicom = Callable[..., Path]

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
"""(4, 5) values from 0 to 228."""


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Return a function that writes pixels, `GREY` by default, with other elements as wanted."""

    def write(pixels: NDArray[Any] = GREY, **elements: Any) -> Path:
        return write_file(tmp_path / "image.dcm", pixels, **elements)

    return write
