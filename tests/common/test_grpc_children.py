"""Children that are started while other threads call with gRPC: each begins, none is aborted by handlers for forks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

CHILDREN = 200
STARTS_CHILDREN = """
import collections, subprocess, sys, threading
from concurrent import futures

import fedmunkey.common
import grpc

answer = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", {"m": answer})])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
over = threading.Event()


def call():
    while not over.is_set():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(20):
                channel.unary_unary("/s/m")(b"")


callers = [threading.Thread(target=call) for _ in range(3)]
for caller in callers:
    caller.start()
# Ray starts its processes in this way: code of ours runs between fork and exec.
codes = [subprocess.run(["/bin/true"], preexec_fn=int).returncode for _ in range(int(sys.argv[1]))]
over.set()
for caller in callers:
    caller.join()
server.stop(None)
print(dict(collections.Counter(codes)))
"""


def test_children_begin_while_other_threads_call() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}

    ended = subprocess.run(  # noqa: S603 (this interpreter)
        [sys.executable, "-c", STARTS_CHILDREN, str(CHILDREN)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )

    assert ended.stdout.strip() == f"{{0: {CHILDREN}}}", ended.stderr
