from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.addresses import loopback_address
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile


def written(folder: Path, text: str = "") -> Path:
    path = folder / "coordinator.toml"
    path.write_text(f'coordinator-dir = "coordinator"\n{text}')
    return path


def test_paths_are_meant_from_the_files_folder(tmp_path: Path) -> None:
    read = CoordinatorFile.read(written(tmp_path, 'deletion-service = "0.0.0.0:9000"'))

    assert read.coordinator_dir == tmp_path / "coordinator"
    assert read.ledger == str(tmp_path / "coordinator" / "ledger.sqlite")
    assert read.identity == tmp_path / "coordinator" / "identity"


def test_runs_take_the_files_settings_and_what_is_given_for_one_run(tmp_path: Path) -> None:
    read = CoordinatorFile.read(
        written(tmp_path, 'deletion-service = "0.0.0.0:9000"\n[run]\nnum-rounds = 7\nguarantee = "empirical"')
    )

    settings = read.run_settings({"num-rounds": 2})

    assert (settings.num_rounds, settings.guarantee) == (2, Guarantee.EMPIRICAL)
    assert settings.deletion_service == "127.0.0.1:9000"
    assert settings.deletion_identity == str(tmp_path / "coordinator" / "identity")
    assert settings.output_dir == str(tmp_path / "coordinator" / "weights")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('superlink = "everywhere"', "superlink = everywhere: must be host:port"),
        ('superlink = "0.0.0.0:0"', "superlink = 0.0.0.0:0: must be host:port"),
        ('deletion-servce = "0.0.0.0:9440"', "deletion-servce: did you mean deletion-service?"),
        ('enrolment = "0.0.0.0:9441"', "enrolment is called joining; rename it"),
        ("due-days = 0", "due-days = 0"),
        ('log-format = "xml"', "log-format = xml"),
        ('superlink-control = "0.0.0.0:8444"', "superlink-control = 0.0.0.0:8444: whoever reaches it can start runs"),
        ("[run]\nnum-rounds = -1", "run: num-rounds = -1"),
        ("[run]\nrounds = 3", "run: unknown setting rounds"),
        ("due-days = ", "cannot be read as TOML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_value(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(InvalidSetting) as refused:
        CoordinatorFile.read(path)

    assert str(refused.value).startswith(str(path))
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    path.write_text("due-days = 30\n")

    with pytest.raises(InvalidSetting, match="coordinator-dir is missing"):
        CoordinatorFile.read(path)
    with pytest.raises(InvalidSetting, match=r"nowhere\.toml cannot be read"):
        CoordinatorFile.read(tmp_path / "nowhere.toml")


def test_own_services_are_reached_on_loopback() -> None:
    assert loopback_address("0.0.0.0:9440") == "127.0.0.1:9440"
    assert loopback_address("[::]:9440") == "[::1]:9440"
    assert loopback_address("192.0.2.1:9440") == "192.0.2.1:9440"
