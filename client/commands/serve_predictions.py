"""`munkey-client serve-predictions`: a local service that classifies pictures, its model loaded all the time."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmunkey.client.commands.options import EncoderOption, MetricsOption, SettingOption, SiteDirOption, WeightsOption
from fedmunkey.client.commands.predict import BitsOption, CaseMixOption, FrameOption, ModelOption, SliceOption, chosen
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.service.metrics_service import served_registry
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.common.stop_signals import stopped_by_signals

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fedmunkey.client.predicting.warm_predictor import WarmPredictor

PREDICTIONS_READY = "predictions at "
"""What the first line begins with, once it serves."""

_LOOK_SECONDS = 1.0
_BACKLOG = 128


@faults_explained()
def serve_predictions(
    site_dir: SiteDirOption,
    address: Annotated[
        str, typer.Option(help="Where to listen on this machine, host:port; port 0 takes one that is free.")
    ] = "127.0.0.1:8470",
    unix_socket: Annotated[
        Path | None,
        typer.Option("--socket", help="Listen at this Unix socket instead, which only its owner can use."),
    ] = None,
    model: ModelOption = None,
    volume_slice: SliceOption = None,
    case_mix: CaseMixOption = "own",
    frame: FrameOption = None,
    bits: BitsOption = None,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    metrics: MetricsOption = None,
) -> None:
    """Serve predictions to programs of this machine until SIGINT or SIGTERM.

    POST /predictions?name=scan.png with a picture's file as the body answers with what predict --json says of it;
    GET /health says which weights answers are from. What cannot be used is answered with 422 and the reason. After a
    deletion, an arrival or a renewal the next answer is from the new state; once a promised renewal is late, everything
    is answered with 503.

    Example: munkey-client serve-predictions --site-dir hospital-1 --address 127.0.0.1:8470
    """
    # Training's packages, whose import would slow down every other command.
    from fedmunkey.client.predicting.prediction_metrics import PredictionMeter
    from fedmunkey.client.predicting.prediction_service import prediction_application
    from fedmunkey.client.predicting.warm_predictor import WarmPredictor

    host, _ = split_address(address)
    if unix_socket is None and not is_loopback(host):
        raise InvalidSetting(
            f"--address {address}: connections are neither encrypted nor authenticated; listen on 127.0.0.1, or at a "
            "--socket"
        )
    asked = chosen(given_settings(setting, encoder=encoder, encoder_weights=weights), model, case_mix)
    predictor = WarmPredictor(SiteFolder(site_dir), asked(volume_slice, frame, bits))
    # What keeps the site from answering is found before anything is served.
    said = predictor.weights()
    listening, where = _listen(address) if unix_socket is None else _listen_at(unix_socket)
    meter = PredictionMeter(predictor)
    try:
        with nullcontext("") if metrics is None else served_registry(meter.registry, metrics) as measured:
            ready = f"{PREDICTIONS_READY}{where}, weights: {said}{', metrics at ' * bool(measured)}{measured}"
            _serve(prediction_application(predictor, meter), predictor, listening, ready)
    finally:
        listening.close()
        if unix_socket is not None:
            unix_socket.unlink(missing_ok=True)


def _serve(application: FastAPI, predictor: WarmPredictor, listening: socket.socket, ready: str) -> None:
    import uvicorn

    @asynccontextmanager
    async def looking(_application: FastAPI) -> AsyncIterator[None]:
        """Let go of what was deleted also while nobody asks."""

        async def look() -> None:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                await asyncio.to_thread(predictor.look)

        task = asyncio.create_task(look())
        sys.stdout.write(f"{ready}\n")
        sys.stdout.flush()
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    application.router.lifespan_context = looking
    config = uvicorn.Config(
        application, access_log=False, log_config=None, ws="none", proxy_headers=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    # Its own way raises the signal again when all is done, so that a stop that was asked for looks like a failure.
    server.capture_signals = nullcontext  # type: ignore[assignment]
    with stopped_by_signals(lambda: setattr(server, "should_exit", True)):
        server.run([listening])


def _listen(address: str) -> tuple[socket.socket, str]:
    host, port = split_address(address)
    name = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        listening = socket.create_server((name, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InvalidSetting(f"{address} cannot be listened on: {error.strerror}; choose another --address") from None
    return listening, f"http://{host}:{listening.getsockname()[1]}"


def _listen_at(path: Path) -> tuple[socket.socket, str]:
    if path.exists() and not path.is_socket():
        raise InvalidSetting(f"--socket {path}: a file is there already; name another place")
    listening = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        # Nobody can connect before it listens.
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise InvalidSetting(f"--socket {path} cannot be listened on: {error}; name another place") from None
    return listening, str(path)
