"""Starts the programs of a federation quickly: it imports them once and then forks for each start.

An interpreter takes seconds to import PyTorch and Flower, and a driver that kills a process every second would measure
little else. What is forked is the program itself: `munkey-client agent`, with the words and the environment that are
given, in a process of its own that can be killed at any point.

It is run as a program and told what to do by lines of JSON on stdin; it answers by lines of JSON on stdout. When stdin
ends, because whoever started it has ended in whatever way, it kills what it has started, and ends.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

from fedmunkey.common.failpoints import arm_from_environment

_LOOK = 0.01
"""Seconds between two looks at whether a process has ended."""


def main() -> None:
    """Import the modules that its words name, then do what stdin says until it ends."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    running: dict[int, int] = {}
    _say({"ready": os.getpid()})
    unread = b""
    try:
        while True:
            if select.select([0], [], [], _LOOK)[0]:
                read = os.read(0, 65_536)
                if not read:
                    return
                *lines, unread = (unread + read).split(b"\n")
                for line in lines:
                    _obey(json.loads(line), running)
            _reap(running)
    finally:
        for process in running:
            os.kill(process, signal.SIGKILL)
        for process in running:
            os.waitpid(process, 0)


def _obey(command: dict[str, Any], running: dict[int, int]) -> None:
    if command["do"] == "start":
        process = os.fork()
        if process == 0:
            _become(command)
        running[process] = command["id"]
        _say({"id": command["id"], "started": process})
    else:
        # A process that has ended is reaped here and nowhere else, so its number cannot be another's by now.
        for process, given in running.items():
            if given == command["id"]:
                os.kill(process, command["signal"])


def _reap(running: dict[int, int]) -> None:
    for process in list(running):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            _say({"id": running.pop(process), "ended": os.waitstatus_to_exitcode(status)})


def _become(command: dict[str, Any]) -> None:
    """Turn a forked process into the program that was asked for; does not return."""
    code = 1
    try:
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(command["environment"])
        # A program that imports everything by itself reads this when it does.
        arm_from_environment()
        os.nice(command["nice"])
        program, _, function = command["entry"].partition(":")
        sys.argv = [program, *command["words"]]
        run: Callable[[], object] = getattr(importlib.import_module(program), function)
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")
