"""Start the page: parse flags, choose the profile, build the editor, launch, load the models; nothing else."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from editor.engine import Editor
    from editor.ui_desk import Desk

NO_TUNNEL = (
    "No public link could be had: the tunnel needs an internet connection to gradio.app; the page works here at {} "
    "all the same, and with --host 0.0.0.0 --auth USER:PASSWORD also in your own network."
)
OPEN_HOUSE = "Everybody who reaches this machine can use the page: add --auth USER:PASSWORD unless you mean that."


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Edit pictures from one sentence, in the browser.")
    parser.add_argument("--profile", default="studio", help="models and settings: studio runs on any CPU (default)")
    parser.add_argument("--vlm", metavar="NAME_OR_FOLDER", help="another VLM for a GPU profile; doctor lists them")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for your network")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--share", action="store_true", help="also make a public link through gradio.app")
    parser.add_argument("--auth", action="append", type=_login, metavar="USER:PASSWORD",
                        help="ask for this login; once for each person, who then has edits of their own")  # fmt: skip
    parser.add_argument("--history", default="~/.tiltedit", metavar="DIR", help="where edits are kept (%(default)s)")
    return parser.parse_args(argv)


def _login(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("write it as USER:PASSWORD")
    return user, password


def main(argv: list[str] | None = None) -> int:
    """Start the page and stay until it is ended; the exit status. Flags are read before anything slow is imported."""
    chosen = parse(argv)
    try:
        with terminable():
            return start(chosen)
    except KeyboardInterrupt:
        from editor.faults import INTERRUPTED

        return INTERRUPTED


def start(chosen: argparse.Namespace) -> int:
    """Open the desk, serve the page over it, and close it again; the exit status."""
    with uncollected():
        from editor.engine import Editor
        from editor.runtime import prepare
        from editor.types import EditError
        from editor.ui_desk import Desk
        from editor.ui_files import kept_in
    prepare()
    try:
        desk = Desk.open(Editor.load(chosen.profile, chosen.vlm), chosen.history)
        try:
            with kept_in(desk.history.shown):
                return serve(desk, chosen)
        finally:
            desk.close()
    except EditError as error:
        print(error, file=sys.stderr)
        return 2


def serve(desk: Desk, chosen: argparse.Namespace) -> int:
    """Launch the page over the desk and wait until it is ended; the exit status."""
    from editor.ui import build_page, launch_options

    where = {"server_name": chosen.host, "server_port": chosen.port, "share": chosen.share, "auth": chosen.auth}
    page = build_page(desk)
    try:
        _, address, public = page.launch(**launch_options(**where, prevent_thread_lock=True))
    except OSError:
        print(f"Port {chosen.port} of {chosen.host} can't be had: choose another with --port.", file=sys.stderr)
        return 2
    Thread(target=load_models, args=(desk.editor,), daemon=True).start()
    if chosen.share and not public:
        print(NO_TUNNEL.format(address), file=sys.stderr)
    if (public or chosen.host not in ("127.0.0.1", "localhost")) and not chosen.auth:
        print(OPEN_HOUSE, file=sys.stderr)
    page.block_thread()
    return 0


def load_models(editor: Editor) -> None:
    """Read the models while a person looks at the page; what is wrong with them is said here and to who asks."""
    from editor.types import EditError

    try:
        editor.load_models()
    except EditError as error:
        print(error, file=sys.stderr)


@contextmanager
def terminable() -> Iterator[None]:
    """To terminate the process is to press Ctrl-C meanwhile: a run that goes on is kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is looked for meanwhile: imports leave hardly any, and looking slows them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
