"""One task of a round: Flower's program for a ClientApp, which believes the SuperNode no more than the coordinator.

Flower would run the code of whatever app the SuperNode hands over, and take the node's settings from it. This program
takes an app of settings only, and the node's settings from the site's own file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from flwr.common.args import add_args_flwr_app_common, try_obtain_flwr_app_token
from flwr.supernode.runtime import run_clientapp

from fedmunkey.client.supernode.installed_app import check_app
from fedmunkey.client.supernode.site_file import SiteFile


def distrust(file: SiteFile) -> None:
    """Have Flower install no app but one of settings, and hear the node's settings from a file."""
    install, pull = run_clientapp.install_from_fab, run_clientapp.pull_task_input  # type: ignore[attr-defined]

    def install_checked(content: bytes, *others: Any, **options: Any) -> Any:
        check_app(content)
        return install(content, *others, **options)

    def pull_with_own_settings(client: Any) -> Any:
        message, context, run, fab = pull(client)
        context.node_config = dict(file.node_config)
        return message, context, run, fab

    run_clientapp.install_from_fab = install_checked  # type: ignore[attr-defined, assignment]
    run_clientapp.pull_task_input = pull_with_own_settings


def main() -> None:
    """Run a task, with the path of `site.toml` before Flower's own arguments."""
    distrust(SiteFile.read(Path(sys.argv.pop(1))))
    # Flower's own `flwr_clientapp` reads the same words, and is imported with all of the SuperNode.
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime-api-address", required=True)
    add_args_flwr_app_common(parser)
    asked = parser.parse_args()
    run_clientapp.run_clientapp(
        runtime_api_address=asked.runtime_api_address,
        token=try_obtain_flwr_app_token(asked),
        insecure=asked.insecure,
        certificates=None,
        parent_pid=asked.parent_pid,
        runtime_dependency_install=asked.runtime_dependency_install,
    )
