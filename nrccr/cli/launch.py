"""Commands that several processes compute together, and which of these says what."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import nrccr
from nrccr.errors import Interrupted, PeerLostError, UserError

OWN = "nrccr"  # the name of a group that --device started
LOST = 3  # exit code of a process that lost another, which knows why
STOPPED = 130  # exit code after Ctrl-C, as of a shell
PATIENCE = "120"  # seconds for processes that should end, to save their state
ONE_REASON = 1.0  # seconds that a process waits for the one that knows why it was lost


def in_processes(device: str | None, work: Callable[[], None]) -> None:
    """Do a command's work: alone, as one of the processes of a launcher, or by starting one for each device.

    Args:
        device: the command's `--device`.
        work: the command, in every process the same.

    Raises:
        UserError: no such devices, or a process that was killed.
    """
    if _launched():
        with _first_speaks():
            from nrccr.processes import joined

            with joined():
                work()
    elif device is not None and "," in device:
        _start(device)
    else:
        work()


def says_why(error: BaseException) -> bool:
    """Whether this process prints why a command ended: of several the one that knows, and once."""
    group = sys.modules.get("nrccr.processes")
    if group is None or group.world() == 1:
        return True
    if isinstance(error, PeerLostError):
        time.sleep(ONE_REASON)
        if os.environ.get("TORCHELASTIC_RUN_ID") == OWN:
            return False
    return bool(group.may_speak())


def leave(error: BaseException) -> None:
    """Part from the others where all were stopped after the same step, once all have settled who speaks."""
    group = sys.modules.get("nrccr.processes")
    if isinstance(error, Interrupted) and group is not None and group.world() > 1:
        with suppress(PeerLostError):
            group.leave()


def end_of_several(code: int) -> None:
    """End this process now, if it is one of several that a launcher started; alone, go on.

    What is registered for the end is done and output is written, but Python itself is not taken down: a thread of torch
    that waits for it then aborts the process in rare cases, and a finished command looks like a crash.
    """
    if _launched():
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # whoever read it may have gone
                stream.flush()
        os._exit(code)


def exit_code(error: BaseException, code: int) -> int:
    """The code of a command that ended by an error; LOST where --device started it and it only lost a process."""
    lost = isinstance(error, PeerLostError) and os.environ.get("TORCHELASTIC_RUN_ID") == OWN
    return LOST if lost else code


def _launched() -> bool:
    """Whether torchrun or the like started this process, beside others."""
    count = os.environ.get("WORLD_SIZE", "")
    return count.isdecimal() and int(count) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


@contextmanager
def _first_speaks() -> Iterator[None]:
    """Only the first process shows notes, bars and tables; how a command ends comes after this."""
    if os.environ["RANK"] == "0":
        yield
        return
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def _start(device: str) -> None:
    """This command once more, in a process for each device, until all have ended."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from nrccr.distributed import choose_devices

    count = len(choose_devices(device))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    settings = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": PATIENCE, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    within = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")][:1]  # talk within this machine alone
    settings |= {key: name for name in within for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    for key, value in settings.items():
        os.environ.setdefault(key, value)
    package = str(Path(nrccr.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=OWN,
        rdzv_backend="static",  # the other one exchanges pickles
        rdzv_endpoint=f"127.0.0.1:{_free_port()}",
        rdzv_configs={"rank": 0},
        max_restarts=0,
    )
    try:
        # -P: a folder that is called nrccr, where the user is, is not this package.
        elastic_launch(config, sys.executable)("-P", "-m", "nrccr", *sys.argv[1:])
    except SignalException:
        raise SystemExit(STOPPED) from None
    except ChildFailedError as error:
        raise _explained({process: failure.exitcode for process, failure in error.failures.items()}, count) from error


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _explained(codes: dict[int, int], count: int) -> BaseException:
    """The end of a command whose processes failed with these exit codes: whoever knows why has said it."""
    said = [code for code in codes.values() if code > 0 and code != LOST]
    if said:
        return SystemExit(said[0])
    killed = {process: -code for process, code in codes.items() if code < 0}
    if not killed:
        return UserError(f"the {count} processes lost each other; go on with --resume")
    # The others were then told to end, which is SIGTERM.
    process, number = next((one for one in killed.items() if one[1] != signal.SIGTERM), next(iter(killed.items())))
    return UserError(
        f"process {process + 1} of {count} was ended by signal {number}, and the others with it; if memory is short "
        "lower train.batch_size or data.workers, then go on with --resume"
    )
