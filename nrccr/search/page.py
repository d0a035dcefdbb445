"""The page: a query's items, and a video's moments over time."""

from __future__ import annotations

import json
import os
from html import escape
from typing import Any
from urllib.parse import quote

from nrccr.extras import need
from nrccr.search.moments import Moments
from nrccr.search.query import Found
from nrccr.search.service import TYPES, MomentsRequest, RequestError, Service

SHOWN = 12
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32' fill='none' stroke='#6366f1' stroke-width='4' "
    "stroke-linecap='round'><circle cx='13' cy='13' r='9'/><path d='M20 20l9 9'/></svg>"
)
LISTED = 1000  # items in the list of videos
STYLE = """
.found {display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 14px}
.found figure {margin: 0; padding: 8px; border: 1px solid #d4d4d8; border-radius: 8px}
.found video, .found img {width: 100%; aspect-ratio: 4/3; object-fit: contain; background: #18181b; border-radius: 4px}
.found figcaption, .curve-times {display: flex; justify-content: space-between; font-size: 14px; padding-top: 6px}
.player {width: 100%; max-height: 360px; background: #18181b; border-radius: 6px}
.curve {width: 100%; height: 120px; margin-top: 8px; background: #f4f4f5; border-radius: 6px}
.moments {display: flex; flex-wrap: wrap; gap: 8px; padding-top: 8px}
.moments button {padding: 6px 12px; border: 1px solid #6366f1; border-radius: 6px; cursor: pointer; color: #18181b;
  background: #eef2ff; font-size: 14px; line-height: 20px; margin: 0 !important}
footer {display: none !important}
"""


def mounted(service: Service, app: Any) -> Any:
    """The application with the page at its root."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gradio = need("gradio", "serve")
    with gradio.Blocks(title="nrccr", analytics_enabled=False) as page:
        gradio.Markdown("## Find a video in your language")
        with gradio.Tab("Search"):
            with gradio.Row():
                query = gradio.Textbox(label="Query", max_length=1000, scale=4, elem_id="query")
                language = gradio.Dropdown(["of the model", "English"], label="Language", scale=1)
                button = gradio.Button("Search", variant="primary", scale=1, elem_id="search")
            found = gradio.HTML(elem_id="found")
        with gradio.Tab("Moments"):
            with gradio.Row():
                names = service.generation().ids(LISTED)
                video = gradio.Dropdown(names, label="Video", allow_custom_value=True, scale=2, elem_id="video")
                clip = gradio.Textbox(label="Query", max_length=1000, scale=4, elem_id="clip-query")
                clip_language = gradio.Dropdown(["of the model", "English"], label="Language", scale=1)
                window = gradio.Number(4, label="Seconds of a clip", minimum=0.1, maximum=3600, scale=1)
                look = gradio.Button("Find moments", variant="primary", scale=1, elem_id="look")
            moments = gradio.HTML(elem_id="moments")

        def searched(text: str, spoken: str) -> str:
            try:
                return results_html(service, service.search(text or "", SHOWN, spoken == "English"))
            except RequestError as error:
                return f"<p>{escape(str(error))}</p>"

        def looked(name: str, text: str, spoken: str, seconds: float | None) -> str:
            return looked_for(service, name or "", text or "", seconds, english=spoken == "English")

        for event in (button.click, query.submit):
            event(searched, [query, language], found, api_visibility="private")
        for event in (look.click, clip.submit):
            event(looked, [video, clip, clip_language, window], moments, api_visibility="private")
    _answer_beside(app)
    page.queue(max_size=64, default_concurrency_limit=2)
    # Named fonts would be fetched from elsewhere.
    theme = gradio.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    return gradio.mount_gradio_app(
        app, page, path="/", allowed_paths=[], show_error=False, theme=theme, css=STYLE, footer_links=[]
    )


def _answer_beside(app: Any) -> None:
    """What a browser asks for beside the page: an icon, and the manifest that the page of Gradio names."""
    responses = need("fastapi.responses", "serve")
    icon = {"src": "/favicon.ico", "sizes": "any", "type": "image/svg+xml"}
    manifest = json.dumps({"name": "nrccr", "start_url": "/", "display": "browser", "icons": [icon]})
    for path, content, kind in (
        ("/favicon.ico", ICON, "image/svg+xml"),
        ("/manifest.json", manifest, "application/manifest+json"),
    ):
        answer = responses.Response(content, media_type=kind)
        app.add_route(path, lambda _, answer=answer: answer, methods=["GET", "HEAD"])


def looked_for(service: Service, video: str, query: str, seconds: float | None, *, english: bool) -> str:
    """A video's moments, or why there are none; no seconds are those of an empty field."""
    if seconds is None:
        return "<p>say how many seconds a clip has</p>"
    try:
        asked = MomentsRequest(video=video, query=query, window=float(seconds), top=5, english=english)
        return moments_html(service, asked.video, service.moments(asked))
    except RequestError as error:
        return f"<p>{escape(str(error))}</p>"
    except ValueError:  # pydantic's
        return "<p>a value is out of range</p>"


def results_html(service: Service, found: Found) -> str:
    """Items with their clips or pictures, best first."""
    shown = [
        f"<figure data-item='{escape(result.item)}'>{_medium(service, result.item)}"
        f"<figcaption><b>{place}. {escape(result.item)}</b><span>{result.score:.3f}</span></figcaption></figure>"
        for place, result in enumerate(found.results, 1)
    ]
    items = f"<div class='found'>{''.join(shown)}</div>" if shown else "<p>nothing found</p>"
    return _translated(found.translation) + items


def moments_html(service: Service, video: str, moments: Moments) -> str:
    """A player, the curve of scores over time, and a button for each of the best moments."""
    scores = [window.score for window in moments.curve]
    low, height = min(scores), max(max(scores) - min(scores), 1e-6)
    places = [
        (1000 * (window.start + window.end) / 2 / moments.seconds, 95 - 85 * (window.score - low) / height)
        for window in moments.curve
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    bars = "".join(
        f"<rect x='{1000 * window.start / moments.seconds:.1f}' y='0' height='100' fill='#6366f1' "
        f"width='{1000 * (window.end - window.start) / moments.seconds:.1f}' style='cursor:pointer' "
        f"fill-opacity='{0.3 - 0.05 * min(place, 4):.2f}' onclick=\"{_jump(window.start)}\"></rect>"
        for place, window in enumerate(moments.best)
    )
    buttons = "".join(
        f'<button data-start="{window.start:.2f}" onclick="{_jump(window.start)}">{place}. '
        f"{window.start:.1f} to {window.end:.1f} s <b>{window.score:.3f}</b></button>"
        for place, window in enumerate(moments.best, 1)
    )
    return (
        f"{_translated(moments.translation)}{_medium(service, video, player=True)}"
        f"<svg class='curve' viewBox='0 0 1000 100' preserveAspectRatio='none'>{bars}"
        f"<polyline points='{line}' fill='none' stroke='#312e81' stroke-width='2' vector-effect='non-scaling-stroke'/>"
        f"</svg><div class='curve-times'><span>0 s</span><span>{moments.seconds:.1f} s</span></div>"
        f"<div class='moments'>{buttons}</div>"
    )


def _translated(translation: str | None) -> str:
    """What the query was mixed with."""
    return "" if translation is None else f"<p class='translation'>with its translation: {escape(translation)}</p>"


def _jump(seconds: float) -> str:
    return f"const p = document.getElementById('player'); if (p) {{ p.currentTime = {seconds:.2f}; p.play() }}"


def _medium(service: Service, item: str, *, player: bool = False) -> str:
    path = service.file_of(item)
    if path is None:
        return "<p>no file in the media folder</p>" if player else ""
    address = f"/media/{quote(item)}"
    if TYPES.get(path.suffix, "").startswith("image/"):
        return f"<img src='{address}' alt='{escape(item)}'>"
    own = (
        "id='player' class='player' controls"
        if player
        else "loop onmouseover='this.play()' onmouseout='this.pause()' style='cursor:pointer'"
    )
    return f"<video src='{address}' {own} muted preload='metadata'></video>"
