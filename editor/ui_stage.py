"""The right side and the foot of the page: what goes on, what came out, and what was done before."""

from __future__ import annotations

from typing import Any

import gradio as gr

from editor import ui_views
from editor.ui_desk import REFUSED, Desk
from editor.ui_views import CARDS_JS


def stage() -> dict[str, Any]:
    """What goes on, and what came out."""
    line = gr.HTML(ui_views.status("Ready.", "ready"), padding=False, elem_id="status")
    welcome = gr.HTML(ui_views.WELCOME, padding=False)
    refused = gr.ImageSlider(
        format="png",
        type="filepath",
        label=REFUSED,
        max_height=420,
        interactive=False,
        visible=False,
        elem_id="refused",
    )
    with gr.Column(visible=False, elem_id="result") as result:
        with gr.Tabs():
            with gr.Tab("Before | after"):
                slider = gr.ImageSlider(
                    format="png",
                    type="filepath",
                    show_label=False,
                    label="Before and after",
                    max_height=520,
                    buttons=["fullscreen"],
                    interactive=False,
                    elem_id="slider",
                )
            with gr.Tab("Side by side"), gr.Row(elem_id="side-by-side"):
                before, after = (
                    gr.Image(
                        type="filepath",
                        format="png",
                        label=label,
                        buttons=["fullscreen"],
                        alt_text=label,
                        min_width=140,
                        interactive=False,
                    )
                    for label in ("Before", "After")
                )
            with gr.Tab("Difference"):
                difference = gr.Image(
                    type="filepath",
                    format="png",
                    label="Change, four times as strong; grey is none",
                    buttons=["fullscreen"],
                    interactive=False,
                    alt_text="The change of every pixel; grey is none",
                    elem_id="difference",
                )
        with gr.Row(elem_id="actions"):
            download = gr.DownloadButton("Download PNG", variant="primary", elem_id="download", min_width=120)
            further = gr.Button("Edit the result further", elem_id="further", min_width=120)
            restore = gr.Button("Back to these settings", elem_id="restore", min_width=120)
        checks = gr.HTML(padding=False)
    with gr.Column(visible=False, elem_id="live") as live:
        candidates = gr.HTML(js_on_load=CARDS_JS, padding=False, elem_id="candidates")
        curve = gr.HTML(padding=False)
    with gr.Column(visible=False, elem_id="more") as more:
        with gr.Accordion("How it was found", open=False, elem_id="how"):
            details = gr.HTML(padding=False)
            roundtrip, spotlight = (
                gr.Image(
                    type="filepath",
                    label=label,
                    height=220,
                    format="png",
                    interactive=False,
                    buttons=[],
                    alt_text=alt,
                )
                for label, alt in (
                    ("Round trip: the source without an edit", "The source carried to the noise and back"),
                    ("Where the edit acts; what is dim is held", "The source, lit where the edit acts"),
                )
            )
        with gr.Accordion("Share, file and deletion", open=False, elem_id="share"):
            link = gr.Textbox(
                label="Link to this result",
                info="Whoever reaches this server and has the link can see it and edit from here.",
                interactive=False,
                buttons=["copy"],
                elem_id="link",
            )
            strip = gr.Checkbox(
                False,
                label="Leave the recipe out of the download",
                info="The mark that it is AI-edited stays.",
                elem_id="strip",
            )
            forget = gr.Button("Delete this edit", variant="stop", size="sm", elem_id="forget")
    return {
        "status": line,
        "welcome": welcome,
        "refused": refused,
        "result": result,
        "slider": slider,
        "before": before,
        "after": after,
        "difference": difference,
        "download": download,
        "further": further,
        "restore": restore,
        "checks": checks,
        "live": live,
        "more": more,
        "candidates": candidates,
        "curve": curve,
        "details": details,
        "roundtrip": roundtrip,
        "spotlight": spotlight,
        "link": link,
        "strip": strip,
        "forget": forget,
    }


def past(desk: Desk) -> dict[str, Any]:
    with gr.Column(visible=False, elem_id="past") as box:
        gr.Markdown(
            f"## Your edits\n{desk.history.limits} They belong to this browser, or to your login. "
            "↳ marks the edit of a result. What you upload goes a day after you last used it."
        )
        cards = gr.HTML(js_on_load=CARDS_JS, padding=False, elem_id="past-cards")
        older = gr.Button("Show older ones", size="sm", visible=False, elem_id="older")
        forget_all = gr.Button("Delete all of my edits", variant="stop", size="sm", elem_id="forget-all")
    return {"past_box": box, "past": cards, "older": older, "forget_all": forget_all}
