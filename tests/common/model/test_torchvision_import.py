from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedmunkey.common.model.torchvision_import import import_torchvision

ROOT = Path(__file__).parents[3]


def run_fresh(code: str, *, folder: Path = ROOT) -> str:
    """Run code in a new interpreter, so that nothing is imported yet; warnings are errors there as they are here."""
    lines = f"import sys\nsys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n{code}"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", lines],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_is_imported_once() -> None:
    assert import_torchvision() is import_torchvision() is sys.modules["torchvision"]


@pytest.mark.processes
def test_models_transforms_and_datasets_import_and_a_model_runs() -> None:
    output = run_fresh(
        "from fedmunkey.common.model.torchvision_import import import_torchvision\n"
        "torchvision = import_torchvision()\n"
        "import torch\n"
        "import torchvision.datasets\n"
        "from torchvision.transforms import v2\n"
        "image = v2.Resize((64, 64))(torch.zeros(1, 3, 28, 28))\n"
        "print(tuple(torchvision.models.squeezenet1_0(weights=None).eval()(image).shape))\n"
    )

    assert output.strip() == "(1, 1000)"


@pytest.mark.processes
@pytest.mark.parametrize("extension", [None, b"no library at all"])
def test_operator_schemas_are_there_when_the_extension_is_not(tmp_path: Path, extension: bytes | None) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    # What the real package does on import, and what stops it where nobody has defined the operator.
    (package / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\ndef fake(*args): ...\n"
    )
    if extension is not None:
        (package / "_C.so").write_bytes(extension)

    output = run_fresh(
        "from fedmunkey.common.model.torchvision_import import import_torchvision\n"
        "import torch\n"
        "import_torchvision()\n"
        "try:\n"
        "    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except NotImplementedError:\n"
        "    print('defined, not implemented')\n",
        folder=tmp_path,
    )

    assert output.strip() == "defined, not implemented"


@pytest.mark.processes
def test_absent_torchvision_is_said_to_be_absent() -> None:
    output = run_fresh(
        "from importlib.machinery import PathFinder\n"
        "class Hiding:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        return None if name == 'torchvision' else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding\n"
        "from fedmunkey.common.model.torchvision_import import import_torchvision\n"
        "try:\n"
        "    import_torchvision()\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )

    assert output.strip() == "No module named 'torchvision'"
