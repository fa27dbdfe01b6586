"""Files between the browser and the page: what is uploaded, and what is shown.

They lie in the history's folder, where a page that stayed open finds them after the server was started anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from editor import images
from editor.types import EditError

AGE = 86_400.0
"""Seconds after which a file goes that nobody has used meanwhile."""
FOLDER = "GRADIO_TEMP_DIR"
"""The variable by which Gradio is told where to keep files."""


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Gradio keeps files in this folder meanwhile, which no other user of the machine may read.

    Raises EditError where it can't be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EditError(f"The folder {str(folder)!r} can't be made: choose another place with --history.") from error
    sweep(folder)
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(FOLDER)
        if before is not None:
            os.environ[FOLDER] = before


def sweep(folder: Path) -> None:
    """Remove the files of a folder, where there is one, that nobody has used for AGE seconds."""
    oldest = time.time() - AGE
    for path in folder.glob("*/*"):
        with suppress(OSError):  # another page may sweep as well
            if path.stat().st_mtime < oldest:
                path.unlink()
                path.parent.rmdir()


def used(path: str) -> str:
    """The path of a file that the page uses, which stays from now on. Raises EditError where it is gone."""
    try:
        os.utime(path)
    except OSError as error:
        raise EditError("This picture is no longer on the server, since it lay unused: upload it once more.") from error
    return path


def is_ours(path: str) -> bool:
    """Whether a path is one of a file that the page may use and that is there."""
    try:
        found = Path(path).resolve()
        return found.is_relative_to(Path(get_upload_folder()).resolve()) and found.is_file()
    except (OSError, ValueError):  # no path at all
        return False


def serve_bytes(data: bytes, name: str) -> str:
    """Put a file where the page may fetch it, by a path that can't be guessed.

    Raises EditError where it can't be written.
    """
    try:
        return save_bytes_to_cache(data, name, cache_dir=get_upload_folder())
    except OSError as error:
        raise EditError("What the page shows can't be written: free space on the disk of the history.") from error


def serve(image: Image.Image) -> str:
    """As `serve_bytes`, a picture as a PNG; with the mark that it is AI-edited if it bears that."""
    return serve_bytes(images.to_png(image), "picture.png")
