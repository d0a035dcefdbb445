"""`nrccr generate`: the generated collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nrccr.cli.options import integers
from nrccr.errors import UserError


def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of collections; `generated` is made in it.")],
    seed: Annotated[int, typer.Option(help="Of scenes, captions and translation errors.")] = 0,
    noise: Annotated[
        str, typer.Option(help="Shares of wrongly translated words, percent, one translator each.")
    ] = "0,20,40",
    videos: Annotated[str, typer.Option(help="Videos in training, validation and test.")] = "600,100,300",
    captions: Annotated[int, typer.Option(help="Captions of a video.")] = 5,
    media: Annotated[bool, typer.Option("--media", help="Write every video as a film too, media/<id>.mp4.")] = False,
) -> None:
    """Write the generated collection: moving handwriting with captions in English, German and Chinese."""
    from nrccr.data.generated.collection import Recipe, generate, translator_name
    from nrccr.terminal import say

    rates = tuple(percent / 100 for percent in integers("--noise", noise))
    sizes = integers("--videos", videos)
    if len(sizes) != 3:
        raise UserError(f"--videos {videos}: give three numbers, such as 600,100,300")
    recipe = Recipe(seed, rates, (sizes[0], sizes[1], sizes[2]), captions)
    folder = generate(out, recipe, media=media)
    say(f"{folder}: {sum(sizes):,} videos with {captions} captions each")
    say(f"data.target: de or zh; data.translator: {', '.join(map(translator_name, rates))}")
