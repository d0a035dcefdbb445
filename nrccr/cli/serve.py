"""`nrccr serve`: an index in the browser and as a JSON API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nrccr.cli.options import Device
from nrccr.cli.search import IndexFolder, Run, TranslatorModel
from nrccr.errors import UserError, first_line


def serve(
    index: IndexFolder,
    media: Annotated[Path | None, typer.Option(help="Folder with the items' files, ID.mp4, ID.jpg.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 7860,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Searches a second for one client.")] = 10.0,
    translator: TranslatorModel = None,
    run: Run = None,
    device: Device = None,
) -> None:
    """Serve a page to search an index and to find moments; Ctrl-C ends it."""
    if media is not None and not media.is_dir():
        raise UserError(f"--media {media}: no such folder; give the one with the films")

    import socket

    from nrccr.terminal import say

    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except (OSError, TypeError) as error:  # the latter of a name that no network has
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{host}:{port}: cannot listen there ({reason}); give another --host or --port") from error
        say(f"loading model and page for {index}; takes seconds, on a busy machine minutes")
        application = _application(index, media, run, device, translator)

        from nrccr.search.listen import server_of

        say(f"serving {index} on http://{host}:{bound.getsockname()[1]} (Ctrl-C ends it)")
        try:
            server_of(application, bound.getsockname()[0], rate).run(sockets=[bound])
        except KeyboardInterrupt:
            say("stopped")


def _application(index: Path, media: Path | None, run: Path | None, device: str | None, translator: str | None) -> Any:
    """API and page of an index; their libraries take most of the time until the page answers."""
    from nrccr.extras import need

    need("gradio", "serve")
    from nrccr.search.page import mounted
    from nrccr.search.query import Searcher
    from nrccr.search.service import Service, application

    service = Service(Searcher.open(index, run, device, translator), media)
    return mounted(service, application(service))
