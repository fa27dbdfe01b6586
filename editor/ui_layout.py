"""Where everything stands on the page. `lay_out` returns the components by the names that the handlers use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from editor import ui_views
from editor.history import LISTED
from editor.types import MAX_INSTRUCTION, SearchSettings
from editor.ui_desk import Desk
from editor.ui_forms import EDIT_ONLY, FIRST_EFFORT, PROTECT, RANGES, Ids, Paint, Picture, Reach, Words, methods
from editor.ui_parts import example_cards
from editor.ui_stage import past, stage
from editor.ui_views import CARDS_JS
from rewards.base import CAPTION

BROWSER_KEY = "tiltedit"
"""Names the browser's storage of its token, which is random and nobody else's; it isn't a secret itself."""


def lay_out(desk: Desk) -> dict[str, Any]:
    """The whole page, inside `gr.Blocks`."""
    profile = desk.editor.profile
    parts: dict[str, Any] = {}
    gr.HTML(ui_views.header(profile.name, profile.description, profile.licence, profile.notices), padding=False)
    with gr.Row(elem_id="desk"):
        with gr.Column(scale=5, min_width=320, elem_id="left"):
            parts |= _request(desk) | _plan() | _settings(desk) | _mask() | _recipe()
        with gr.Column(scale=7, min_width=320, elem_id="right"):
            parts |= stage()
    parts |= past(desk) | _memory(desk)
    return parts


def _request(desk: Desk) -> dict[str, Any]:
    """The picture, the sentence and the buttons."""
    picture = Picture(
        type="filepath",
        image_mode=None,
        format="png",
        sources=["upload", "clipboard"],
        label="Picture",
        height=300,
        buttons=["fullscreen"],
        elem_id="picture",
        alt_text="The picture to edit",
        placeholder="Drop a picture here, paste one, or choose an example",
    )
    examples = gr.HTML(
        example_cards(desk.examples),
        js_on_load=CARDS_JS,
        visible=bool(desk.examples),
        padding=False,
        elem_id="examples",
    )
    instruction = Words(
        label="What should be different?",
        placeholder="Set the time to 4:45",
        lines=1,
        max_lines=1,
        max_length=MAX_INSTRUCTION,
        elem_id="instruction",
    )
    with gr.Row(elem_id="buttons"):
        run = gr.Button("Run", variant="primary", interactive=False, elem_id="run", scale=3, min_width=90)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False, scale=2, min_width=70)
        make_plan = gr.Button("Make a plan", elem_id="make-plan", scale=2, min_width=110)
    return {
        "picture": picture,
        "examples": examples,
        "instruction": instruction,
        "run": run,
        "stop": stop,
        "make_plan": make_plan,
    }


def _plan() -> dict[str, Any]:
    with gr.Accordion("Plan", open=False, elem_id="plan") as box:
        gr.Markdown(
            "What the model will ask of every candidate. It is used exactly as it stands here. Choose a cell to change "
            "it or to add a row; a row without a question doesn't count."
        )
        table = gr.Dataframe(
            [["", "yes", 1.0]],
            headers=["Question", "Expected", "Weight"],
            datatype=["str", "str", "number"],
            type="array",
            column_count=3,
            column_widths=["52%", "26%", "22%"],
            interactive=True,
            wrap=True,
            label="Checks",
            show_label=False,
            buttons=[],
            elem_id="checks-table",
        )
        caption = Words(
            label="Caption",
            info="What the edited picture shows; it guides the image model.",
            lines=2,
            max_length=CAPTION,
            elem_id="caption",
        )
        keep = Words(label="Keep", info="What must stay, one thing a line.", lines=2, elem_id="keep")
    return {"plan_box": box, "table": table, "caption": caption, "keep": keep}


def _settings(desk: Desk) -> dict[str, Any]:
    first = desk.editor.efforts[FIRST_EFFORT]
    efforts = [(name.capitalize(), name) for name in desk.editor.efforts]
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        effort = gr.Radio(
            efforts,
            value=FIRST_EFFORT,
            label="Effort",
            info="More effort tries more candidates for longer; seconds are those of this machine's last runs.",
        )
        strength = _slider(first, "strength", 0.01, "Strength", "How much may change.")
        with gr.Row():
            seed = gr.Number(
                0,
                label="Seed",
                info="The same seed gives the same result.",
                precision=0,
                minimum=0,
                maximum=2**32 - 1,
                elem_id="seed",
            )
            lock = gr.Checkbox(False, label="Keep this seed", info="Otherwise every run draws a new one.")
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            advanced = _advanced(first, methods(desk.editor.profile))
    return {"effort": effort, "strength": strength, "seed": seed, "lock": lock, **advanced}


def _advanced(first: SearchSettings, offered: list[str]) -> dict[str, Any]:
    """A control for every setting of CONTROLS but the strength, with a line that explains it."""
    gr.Markdown("What has no control here is as the effort or the recipe has it.")
    method = gr.Dropdown(offered, value=first.method, label="Method", info="fmtt is ours; others to compare.")
    lookahead = gr.Dropdown(
        ["map", "denoiser", "none"],
        value=first.lookahead,
        label="Look-ahead",
        info="How the clean picture is foreseen at every step.",
    )
    sliders = {
        "particles": (1, "Candidates", "Carried at the same time."),
        "steps": (1, "Steps", "From the noised picture to the result."),
        "lookahead_steps": (1, "Look-ahead steps", "Calls of the flow map for one look-ahead."),
        "corrections": (1, "Moves", "How often candidates move and are looked at in every step."),
        "draws": (1, "Draws", "Starts tried for each candidate, to begin with the best."),
        "searches": (1, "Searches", "At most so many, while the VLM is not sure at the end of one."),
        "renoise": (0.05, "New noise", "How much of its noise a candidate renews at the start."),
        "noise": (0.05, "Noise", "How far candidates wander."),
        "guidance": (0.1, "Guidance", "Pull of the reward's gradient; 0 goes by chance and selection alone."),
        "guided": (0.05, "Guided part", "Share of the steps that are guided; the rest runs along the flow."),
        "preserve": (0.05, "Hold", "How strongly the result is held to the source."),
        "outlines": (0.5, "Outlines", "How strongly they are held in drafts, and where captions do not suffice."),
        "drift": (0.5, "Layout", "How strongly the picture as a whole is kept from growing, shrinking or moving."),
        "focus": (0.05, "Focus", "How much is let go of where the edit acts, without a mask."),
        "jitters": (1, "Jitters", "Slightly moved copies that are judged too: slower, harder to fool."),
        "undo": (0.01, "Undo", "Gain to give up so that more of the source stays; 0 keeps every change."),
    }
    made = {name: _slider(first, name, *how) for name, how in sliders.items()}
    return {"method": method, "lookahead": lookahead, **made}


def _slider(first: SearchSettings, name: str, step: float, label: str, info: str) -> gr.Slider:
    """The control of a setting."""
    low, high = RANGES[name]
    return gr.Slider(low, high, getattr(first, name), step=step, label=label, info=info)


def _mask() -> dict[str, Any]:
    with gr.Accordion("Mask", open=False, elem_id="mask-box"):
        gr.Markdown("Mark a part of the picture. What may not be edited stays as it is, bit for bit.")
        means = gr.Radio([EDIT_ONLY, PROTECT], value=EDIT_ONLY, label="The marked part", elem_id="mask-means")
        start = gr.Button("Paint on the picture", elem_id="start-painting")
        paint = Paint(
            type="filepath",
            image_mode="RGBA",
            format="png",
            label="Paint",
            visible=False,
            sources=(),
            transforms=(),
            layers=False,
            buttons=[],
            brush=gr.Brush(default_size="auto", colors=["#14b8a6"], color_mode="fixed"),
            height=320,
            elem_id="paint",
        )
        mask = Picture(
            type="filepath",
            image_mode=None,
            format="png",
            sources=["upload", "clipboard"],
            label="Or upload a mask",
            placeholder="White where it is marked",
            height=150,
            buttons=[],
            elem_id="mask",
            alt_text="The mask",
        )
        feather = gr.Slider(
            0,
            10,
            0,
            step=0.5,
            label="Soft edge",
            info="Inwards, in % of the picture's short side; a narrow soft edge is always there.",
        )
    return {
        "start_painting": start,
        "paint": paint,
        "mask": mask,
        "mask_means": means,
        "feather": feather,
    }


def _recipe() -> dict[str, Any]:
    with gr.Accordion("Use a recipe", open=False, elem_id="recipe-box"):
        gr.Markdown("Drop a PNG that Tiltedit saved: its instruction, plan and settings are set here.")
        return {"recipe_file": gr.File(type="filepath", file_types=[".png"], label="Result with a recipe", height=110)}


def _memory(desk: Desk) -> dict[str, Any]:
    """What the page remembers: ids and settings, never pictures.

    It stands in the browser, out of sight: what Gradio keeps on the server for a page is gone an hour after its line
    broke, at a restart, and where there are many pages.
    """
    texts = {name: Words("", visible=False) for name in ("job", "shown", "source_caption", "planned", "plan_shown")}
    return {
        "token": gr.BrowserState("", storage_key=BROWSER_KEY, secret=BROWSER_KEY),
        "noted": gr.BrowserState(None, storage_key=f"{BROWSER_KEY}-left", secret=BROWSER_KEY),
        **texts,
        "listed": Ids([], visible=False),
        "reach": Reach(LISTED, precision=0, visible=False),
        "base": gr.JSON(asdict(desk.editor.efforts[FIRST_EFFORT]), visible=False),
    }
