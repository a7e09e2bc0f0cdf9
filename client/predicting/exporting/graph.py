"""A graph in ONNX, written node by node.

Only operators whose meaning is the same in all versions from `OLDEST` on are used, so that a graph can be joined to an
encoder of any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import brought_by

OLDEST, NEWEST = 13, 18
"""Versions of ONNX's operators that are written, and that older encoders are brought to."""


class Graph:
    """Nodes and constants, each called by the name of what it gives."""

    def __init__(self, prefix: str = "") -> None:
        with brought_by("onnx", "a model in ONNX"):
            from onnx import helper, numpy_helper
        self._helper = helper
        self._numpy_helper = numpy_helper
        self._prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return its name; one is made up if it is not given."""
        name = output or f"{self._prefix}{operator.lower()}-{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant, and return its name."""
        name = f"{self._prefix}constant-{len(self.constants)}"
        self.constants.append(self._numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float, kind: type[np.floating[Any]] = np.float64) -> str:
        """Add a single number, and return its name."""
        return self.constant(np.array(value, dtype=kind))

    def shape(self, *sizes: int) -> str:
        """Add a shape or some axes, and return the name."""
        return self.constant(np.array(sizes, dtype=np.int64))

    def to_double(self, name: str) -> str:
        """Return numbers of any kind as 64-bit floats."""
        return self.node("Cast", name, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(np.float64)))

    def to_float(self, name: str) -> str:
        """Return numbers of any kind as 32-bit floats."""
        return self.node("Cast", name, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)))

    def to_whole(self, name: str) -> str:
        """Return numbers as 64-bit integers."""
        return self.node("Cast", name, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))

    def value(self, name: str, kind: type[Any], shape: list[str | int]) -> Any:
        """Describe an input or an output: its name, kind of number and shape, sizes that are open by a name."""
        return self._helper.make_tensor_value_info(name, self._helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
