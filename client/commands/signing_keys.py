"""`munkey-client signing-keys`: make and show the keys that sign requests and receipts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import JsonOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs.signing.signing_key import PublicKey, SigningKey

signing_keys = typer.Typer(
    no_args_is_help=True,
    help="""Make and show the keys that sign requests and receipts.

    Example: munkey-client signing-keys new officer.pem
    """,
)

_FileArgument = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The private key.", show_default=False)]
_SiteDirOption = Annotated[Path | None, typer.Option(help="The key of a site, whose folder this is.")]


@signing_keys.command()
@faults_explained()
def new(file: _FileArgument = None, site_dir: _SiteDirOption = None, as_json: JsonOption = False) -> None:
    """Make a key: FILE, which its owner alone can read, and FILE's public part beside it, to hand out.

    With --site-dir, the site signs requests and receipts with it from then on.
    An existing file is left alone.

    Example: munkey-client signing-keys new officer.pem
    """
    path = _path(file, site_dir)
    key = SigningKey.generate()
    try:
        public = key.write_pair(path)
    except FileExistsError:
        raise InvalidProof(f"{path} is there already; a key is never overwritten, name another file") from None
    _show(key.public, as_json, path, public)


@signing_keys.command()
@faults_explained()
def show(file: _FileArgument = None, site_dir: _SiteDirOption = None, as_json: JsonOption = False) -> None:
    """Show the public part of a private key, or of a file that holds that part alone, as others trust it.

    Example: munkey-client signing-keys show officer.pem
    """
    path = _path(file, site_dir)
    beside = path.with_suffix(".pub")
    public = PublicKey.read(path) if path == beside else SigningKey.read(path).public
    _show(public, as_json, path, beside)


def _path(file: Path | None, site_dir: Path | None) -> Path:
    if (file is None) == (site_dir is None):
        raise InvalidProof("name either a file or a site's folder (--site-dir)")
    return file if file is not None else SiteFolder(site_dir or Path()).signing_key


def _show(public: PublicKey, as_json: bool, path: Path, beside: Path) -> None:
    command_line.show(
        {"key": public.raw.hex(), "key_id": public.key_id, "file": str(path)},
        as_json,
        *([] if path == beside else [f"private key {path}: keep it here"]),
        f"public key {beside}: hand it out",
        f"public key {public.raw.hex()}\nkey id {public.key_id}",
    )
