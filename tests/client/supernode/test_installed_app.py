from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk, build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException

from fedmunkey.client.supernode.guarded_state import GuardedStateFactory
from fedmunkey.client.supernode.installed_app import check_app
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs.flower import MANIFEST, app_manifest
from fedmunkey.common.settings.settings import Settings

RUN = 7

# Flower packs apps with a pattern that its library calls old.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def settings_only() -> bytes:
    return build_fab_from_files({MANIFEST: app_manifest(Settings.parse({})).encode()})[0]


def with_code() -> bytes:
    content = io.BytesIO(settings_only())
    with zipfile.ZipFile(content, "a") as packed:
        packed.writestr("client/app.py", "print('every image')")
    return content.getvalue()


def test_app_that_a_run_sends_is_taken(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(app_manifest(Settings.parse({})))

    check_app(build_fab_from_disk(tmp_path))


@pytest.mark.parametrize("name", ["client/app.py", "client.py", "torch/__init__.py", "sitecustomize.py", "weights.pkl"])
def test_app_with_anything_but_settings_is_refused(name: str) -> None:
    content = io.BytesIO(settings_only())
    with zipfile.ZipFile(content, "a") as packed:
        packed.writestr(name, "")

    with pytest.raises(InvalidSetting, match="runs its installed code only") as refused:
        check_app(content.getvalue())
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("name", [MANIFEST, "README.md", ".info/CONTENT"])
def test_app_that_is_small_until_it_is_unpacked_is_refused(name: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        if name != MANIFEST:
            packed.writestr(MANIFEST, app_manifest(Settings.parse({})))
        packed.writestr(name, b"#" * (64 * 2**20))
    assert len(content.getvalue()) < 2**20
    tracemalloc.start()

    with pytest.raises(InvalidSetting, match=rf"app holds 67108864 bytes of {name}"):
        check_app(content.getvalue())

    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_app_of_many_bytes_is_not_opened() -> None:
    with pytest.raises(InvalidSetting, match="has 2097152 bytes"):
        check_app(bytes(2 * 2**20))


def test_app_that_lies_about_a_size_is_not_unpacked_further() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(MANIFEST, b"#" * (64 * 2**20))
    lying = content.getvalue().replace((64 * 2**20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != content.getvalue()
    tracemalloc.start()

    with pytest.raises(InvalidSetting, match="cannot be read"):
        check_app(lying)

    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_app_that_names_another_client_app_is_refused() -> None:
    manifest = app_manifest(Settings.parse({})).replace("fedmunkey.client.app:app", "os:abort")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr(MANIFEST, manifest)

    with pytest.raises(InvalidSetting, match="names 'os:abort'"):
        check_app(content.getvalue())


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_app_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read"):
        check_app(content)


def test_supernode_keeps_neither_a_refused_app_nor_its_run() -> None:
    state = GuardedStateFactory(ObjectStoreFactory()).state()

    for _ in range(2):
        state.store_run(Run.create_empty(RUN))
        with pytest.raises(RunNotRunningException):
            state.store_fab(Fab("", with_code(), {}))
        assert state.get_run(RUN) is None


def test_supernode_keeps_a_run_of_the_installed_app() -> None:
    factory = GuardedStateFactory(ObjectStoreFactory())
    state = factory.state()
    state.store_run(Run.create_empty(RUN))

    state.store_fab(Fab("", settings_only(), {}))

    run = factory.state().get_run(RUN)
    assert run is not None
    assert run.run_id == RUN
