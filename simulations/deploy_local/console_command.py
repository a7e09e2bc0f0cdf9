"""`munkey-sim console-demo`: a small federation with requests in many states, and the officer's console on it."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.stop_signals import StopAsked, stopped_by_signals
from fedmunkey.simulations.deploy_local.console_demo import ConsoleDemo
from fedmunkey.simulations.deploy_local.console_picture import draw_console
from fedmunkey.simulations.deploy_local.terminal import Terminal
from fedmunkey.simulations.federation.sources import load_dataset


def console_demo(
    data: Annotated[str, typer.Option(help="digits, or a MedMNIST-layout .npz by path: real images.")] = "digits",
    picture: Annotated[
        Path | None, typer.Option(help="Only draw the console into this PNG file, with Chromium, and end.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the console in this machine's browser.")
    ] = True,
) -> None:
    """Bring up a coordinator and three hospitals, ask for deletions, and open the officer's console, until Ctrl-C.

    Everything is real and on loopback: processes, TLS, signed requests, one round of training and one renewal. It
    takes a minute or two, and stops all that it started.

    Example: munkey-sim console-demo --no-browser
    """
    if picture is not None and picture.suffix != ".png":
        raise InvalidSetting(f"{picture} is no name of a PNG file; let it end with .png")
    images = load_dataset(data, data_dir=None, seed=0)
    stop = StopAsked()
    with (
        tempfile.TemporaryDirectory(prefix="munkey-console-") as folder,
        Terminal(Path(folder), typer.echo) as terminal,
    ):
        demo = ConsoleDemo(terminal, images)
        demo.fill()
        _, link = demo.open_console()
        if picture is not None:
            draw_console(link, picture)
            typer.echo(f"{picture}: the console of this federation")
            return
        typer.echo(f"\nthe officer's console, for one browser: {link}\nCtrl-C stops everything")
        if browser:
            webbrowser.open(link)
        with stopped_by_signals(stop.ask):
            stop.wait()
