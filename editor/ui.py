"""The Gradio page: `build_page` lays it out and wires it to the desk; `launch_options` says how it is served."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from editor.faults import unexpected
from editor.loading import MAX_BYTES
from editor.types import EditError
from editor.ui_api import add_api
from editor.ui_desk import Desk
from editor.ui_forms import GROUPS, Form
from editor.ui_layout import lay_out
from editor.ui_parts import status

HERE = Path(__file__).resolve().parent
MAX_UPLOAD = f"{MAX_BYTES // 2**20}mb"
"""What the safe loader takes, so that the PNG of every result can be dropped on the page."""
NOTED = (
    ("picture", "change"), ("instruction", "blur"), ("instruction", "submit"),
    ("table", "change"), ("caption", "blur"), ("keep", "blur"),
)  # fmt: skip
"""The events after which the browser notes what stands on the left."""
SURE = "(...given) => confirm('Delete {}?') ? given : Promise.reject()"
"""Asks before a handler runs, which then gets what it would have got."""
FOLLOWERS = 64
"""How many pages and clients may watch runs at the same time; the runs themselves go one by one."""


def build_page(desk: Desk) -> gr.Blocks:
    """The page over a desk. Launch it with `launch_options`."""
    with gr.Blocks(title="Tiltedit", analytics_enabled=False, fill_width=True) as page:
        parts = lay_out(desk)
        _wire(page, parts, desk)
        add_api(desk)
    page.queue(max_size=2 * FOLLOWERS, default_concurrency_limit=FOLLOWERS)
    return page


def launch_options(**chosen: Any) -> dict[str, Any]:
    """Arguments of `launch`: nothing leaves the machine, unforeseen errors stay inside; then what was chosen."""
    defaults = {
        "share": False,
        "max_file_size": MAX_UPLOAD,
        "max_threads": FOLLOWERS + 16,
        "run_history": False,
        "enable_monitoring": False,
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "mcp_server": False,
        "show_error": False,
        "state_session_capacity": 1000,
        "theme": _theme(),
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "js": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    return defaults | chosen


def _theme() -> gr.themes.Base:
    """Fonts of the system, calm colours, and text on buttons that can be read."""
    font = [gr.themes.Font(name) for name in ("ui-sans-serif", "system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=font, font_mono=mono)
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        checkbox_border_color_dark="*neutral_400",
    )


def _wire(page: gr.Blocks, parts: dict[str, Any], desk: Desk) -> None:
    def on(trigger: Callable[..., Any], handler: Callable[..., Any], **options: Any) -> None:
        names = [name for name in inspect.signature(handler).parameters if name not in ("request", "event")]
        inputs = {parts[field] for name in names for field in GROUPS.get(name, (name,))}
        options |= {"show_progress": "hidden", "api_visibility": "private"}
        trigger(translated(handler, parts), inputs, list(parts.values()), **options)

    on(page.load, desk.arrive)
    on(parts["picture"].upload, desk.take)
    for part, kind in NOTED:
        on(getattr(parts[part], kind), desk.note)
    on(parts["examples"].click, desk.take_example)
    on(parts["start_painting"].click, desk.paint_on)
    on(parts["effort"].input, desk.adopt)
    on(parts["make_plan"].click, desk.plan)
    on(parts["run"].click, desk.run)
    on(parts["instruction"].submit, desk.run)
    on(parts["stop"].click, desk.stop)
    on(parts["candidates"].click, desk.pick)
    on(parts["past"].click, desk.recall)
    on(parts["older"].click, desk.older)
    on(parts["restore"].click, desk.restore)
    on(parts["further"].click, desk.further)
    parts["further"].click(None, js="() => document.querySelector('#instruction input').focus()")
    on(parts["recipe_file"].upload, desk.use_recipe)
    on(parts["strip"].input, desk.download)
    on(parts["forget"].click, desk.forget, js=SURE.format("this edit"))
    on(parts["forget_all"].click, desk.forget_all, js=SURE.format("all of your edits"))


def _update(value: Any) -> dict[str, Any]:
    """A change of a component, also where a handler gave the bare value.

    Gradio's client brings a message up to date in place when the generator's next one arrives. A bare value that
    the page already shows would be emptied by it; wrapped, it is only taken out of the wrapping.
    """
    return value if isinstance(value, dict) and value.get("__type__") == "update" else gr.update(value=value)


def translated(handler: Callable[..., Any], parts: dict[str, Any]) -> Callable[..., Iterator[Any]]:
    """A generator for Gradio: values by component in, changes by component out, errors as sentences in the status."""
    wanted = inspect.signature(handler).parameters

    def changed(changes: Form) -> Any:
        return {parts[name]: _update(value) for name, value in changes.items()} or gr.skip()

    def call(values: dict[Any, Any], request: gr.Request, event: Any = None) -> Iterator[Any]:
        named = {name: values[part] for name, part in parts.items() if part in values}
        given = {**dict.fromkeys(GROUPS, named), "request": request, "event": event, **named}
        try:
            changes = handler(**{name: given[name] for name in wanted})
            for change in changes if inspect.isgenerator(changes) else [changes]:
                yield changed(change)
        except EditError as error:
            yield changed(status(str(error), "bad"))
        except Exception:
            yield changed(status(unexpected(f"{handler.__name__} failed"), "bad"))

    if "event" not in wanted:
        return call

    def call_with_event(values: dict[Any, Any], request: gr.Request, event: gr.EventData) -> Iterator[Any]:
        yield from call(values, request, event)

    return call_with_event
