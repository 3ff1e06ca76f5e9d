"""Functions run by several connected workers, as torchrun would start them; by gloo, on this machine."""

import io
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import accelerate  # noqa: F401 (so that workers are forked with it)
import torch

from subfour.profit import method  # noqa: F401
from subfour.train.parallel import connected

PORTS = count(20_000 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
"""Each test process has its own, below those that systems give away: nobody takes one between the look and its use."""


def free_port() -> int:
    """Return a port that nobody listens at."""
    for port in PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("localhost", port))
            return port
    raise AssertionError


def in_workers(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a function of a module returns in each worker, in the order of their ranks.

    An exception in one of them is returned in the place of its result.
    """
    # Forked from a server that has imported torch and done nothing with it: no thread pool is lost in the fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    port = free_port()
    pipes, processes = [], []
    for rank in range(count):
        here, there = context.Pipe()
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        process = context.Process(target=_worker, args=(places, there, function, arguments))
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    results = [_received(pipe) for pipe in pipes]
    for process in processes:
        process.join()
    return results


def _received(pipe: Connection) -> Any:
    try:
        return torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
    except EOFError:
        return EOFError("the worker died")


def _worker(places: dict[str, int], pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # a warning that all parameters are in use
    os.environ |= {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "localhost", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    try:
        with connected("cpu"):
            _send(pipe, function(*arguments))
    except Exception as error:
        traceback.print_exc()
        _send(pipe, error)


def _send(pipe: Connection, result: Any) -> None:
    """Send a result as bytes: tensors in shared memory would go with their worker."""
    buffer = io.BytesIO()
    torch.save(result, buffer)
    pipe.send_bytes(buffer.getvalue())
