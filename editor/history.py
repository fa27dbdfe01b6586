"""The store of past edits: a SQLite table beside PNG files, in one folder, for every user of the page.

Every edit knows its parent, so going back and editing again makes a branch and nothing is overwritten. An edit is found
by an id that can't be guessed; lists are by owner.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, Session, SQLModel, col, create_engine, select

from editor import images
from editor.mark import marked
from editor.recipe import Recipe, read_recipe, save_result, write
from editor.types import EditError

__all__ = ["Edit", "History", "Recipe", "read_recipe", "save_result"]

log = logging.getLogger(__name__)
DAY = 86_400.0
LISTED = 60
"""How many edits a list has unless asked otherwise."""
UNKEPT = "The edit can't be kept in the history: check its folder and the free space."
THUMBNAIL = 192
"""Longest side of a thumbnail in pixels."""


class Edit(SQLModel, table=True):
    """One row: an edit with its recipe and report as JSON; its pictures are files."""

    id: str = Field(primary_key=True)
    """128 random bits in URL-safe characters; whoever has it may see the edit."""
    owner: str = Field(index=True)
    parent: str | None = None
    """The edit whose result this one started from."""
    created: float = Field(index=True)
    """Seconds since 1970."""
    source: str = Field(index=True)
    """Fingerprint of the source, and of its file, which this names; of the source alone in rows of earlier versions."""
    result: str = Field(index=True)
    """Fingerprint of the result."""
    recipe_json: str
    report_json: str
    """What the page shows of the run besides: checks, scores, the reward curve, cost."""
    size: int
    """Bytes of its files."""

    @property
    def recipe(self) -> Recipe:
        """Raises EditError where another version wrote it, or it is damaged."""
        try:
            return Recipe.from_json(json.loads(self.recipe_json))
        except ValueError as error:
            raise EditError("The recipe of this edit is damaged: make the edit anew.") from error

    @property
    def readable(self) -> bool:
        """Whether this version can read its recipe."""
        try:
            self.recipe  # noqa: B018
        except EditError:
            return False
        return True

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.report_json)


@dataclass(frozen=True)
class History:
    """Past edits in `folder`, at most `max_bytes` of pictures and `max_age` seconds old. Use `History.open`."""

    folder: Path
    database: Engine
    max_bytes: int
    max_age: float
    clock: Callable[[], float]
    changing: threading.RLock = field(default_factory=threading.RLock)
    """Held while files and rows change together."""

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        max_bytes: int = 2 * 2**30,
        max_age: float = 90 * DAY,
        clock: Callable[[], float] = time.time,
    ) -> History:
        """Open the store, making its folders and table where they are missing. Raises EditError if it can't."""
        folder = Path(folder).expanduser().resolve()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what people edit is no matter of other users
            for part in ("sources", "results", "thumbnails"):
                (folder / part).mkdir(exist_ok=True)
            database = create_engine(f"sqlite:///{folder / 'edits.db'}")
            SQLModel.metadata.create_all(database)
        except (OSError, SQLAlchemyError) as error:
            raise EditError(f"The history folder {str(folder)!r} can't be used: choose another one.") from error
        return cls(folder, database, max_bytes, max_age, clock)

    def close(self) -> None:
        self.database.dispose()

    @property
    def limits(self) -> str:
        """The limits as a sentence."""
        size = f"{self.max_bytes / 2**30:.1f} GB" if self.max_bytes >= 2**30 else f"{self.max_bytes / 2**20:.0f} MB"
        return f"Edits are kept on this server for {self.max_age / DAY:.0f} days and up to {size}; then the oldest go."

    # ----------------------------------------------------------------------------------------------------- writing

    def add(self, owner: str, source: Image.Image, result: Image.Image, recipe: Recipe, report: dict[str, Any]) -> Edit:
        """Keep an edit, then remove what the limits no longer allow. Raises EditError if it can't be written.

        If the source is the result of an earlier edit of this owner, that edit becomes the parent.
        """
        try:
            edit = self._added(owner, source, result, recipe, report)
        except (SQLAlchemyError, OSError) as error:
            raise EditError(UNKEPT) from error
        try:
            self.prune(spare=edit.id)
        except (SQLAlchemyError, OSError):  # the edit is kept, and the next one prunes
            log.exception("The history could not be pruned")
        return edit

    def _added(
        self, owner: str, source: Image.Image, result: Image.Image, recipe: Recipe, report: dict[str, Any]
    ) -> Edit:
        parent = self.made(owner, recipe.source)
        file = images.to_png(marked(source) if parent else source)
        edit = Edit(
            id=secrets.token_urlsafe(16),
            owner=owner,
            created=self.clock(),
            parent=parent,
            # The same pixels may have other colours, or the mark.
            source=f"{recipe.source}-{hashlib.sha256(file).hexdigest()[:16]}",
            result=recipe.result,
            recipe_json=json.dumps(recipe.to_json()),
            report_json=json.dumps(report),
            size=0,
        )
        with self.changing, self._session() as session, self._new_files(edit):
            if not self.source_path(edit).exists():
                write(self.source_path(edit), file)
            save_result(self.result_path(edit), result, recipe)
            write(self.thumbnail_path(edit), images.to_thumbnail(marked(result), THUMBNAIL))
            edit.size = sum(path.stat().st_size for path in self._paths(edit))
            session.add(edit)
            session.commit()
        return edit

    @contextmanager
    def _new_files(self, edit: Edit) -> Iterator[None]:
        """Meanwhile an edit's files come, and all of them stay or none: what no row names would never be deleted."""
        new = [path for path in self._paths(edit) if not path.exists()]
        try:
            yield
        except BaseException:
            for path in new:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise

    def delete(self, owner: str, edit_id: str) -> None:
        """Remove one edit of this owner; what was edited from it moves to its parent."""
        self._remove([self.get(edit_id, owner)])

    def clear(self, owner: str) -> int:
        """Remove every edit of this owner; how many there were."""
        edits = self.list(owner, limit=-1)
        self._remove(edits)
        return len(edits)

    def prune(self, spare: str = "") -> int:
        """Remove the oldest edits beyond the limits, of all owners, except `spare`; how many were removed.

        A source that several edits share counts once.
        """
        oldest, total, old, sources = self.clock() - self.max_age, 0, [], set()
        with self._session() as session:
            newest_first = select(Edit.id, Edit.created, Edit.size, Edit.source).order_by(col(Edit.created).desc())
            for edit_id, created, size, source in session.exec(newest_first):
                file = self._source(source)
                total += size - (file.stat().st_size if source in sources and file.exists() else 0)
                sources.add(source)
                if edit_id != spare and (created < oldest or total > self.max_bytes):
                    old.append(edit_id)
            removed = [*filter(None, (session.get(Edit, edit_id) for edit_id in old))]
        self._remove(removed)
        return len(removed)

    def _remove(self, edits: list[Edit]) -> None:
        with self.changing, self._session() as session:
            for row in filter(None, [session.get(Edit, edit.id) for edit in edits]):
                for child in session.exec(select(Edit).where(Edit.parent == row.id)):
                    child.parent = row.parent
                session.delete(row)
                session.flush()
            session.commit()
            used = set(session.exec(select(Edit.source).where(col(Edit.source).in_({e.source for e in edits}))))
            for edit in edits:
                for path in self._paths(edit):
                    if path != self.source_path(edit) or edit.source not in used:
                        path.unlink(missing_ok=True)

    # ----------------------------------------------------------------------------------------------------- reading

    def get(self, edit_id: str, owner: str | None = None) -> Edit:
        """The edit of this id, of this owner if one is given. Raises EditError if there is none."""
        with self._session() as session:
            edit = session.get(Edit, edit_id)
        if edit is None or (owner is not None and edit.owner != owner):
            raise EditError("This edit is no longer in the history: it was deleted or grew too old.")
        return edit

    def list(self, owner: str, limit: int = LISTED) -> list[Edit]:
        """The owner's latest edits, newest first; -1 for all."""
        newest = select(Edit).where(Edit.owner == owner).order_by(col(Edit.created).desc()).limit(limit)
        with self._session() as session:
            return list(session.exec(newest))

    def latest(self, limit: int = 8) -> list[Edit]:
        """The latest edits of all owners, newest first."""
        with self._session() as session:
            return [*session.exec(select(Edit).order_by(col(Edit.created).desc()).limit(limit))]

    def lineage(self, edit: Edit) -> list[Edit]:
        """The chain of edits that led to this one, the first edit first."""
        chain = [edit]
        with self._session() as session:
            while chain[0].parent and (parent := session.get(Edit, chain[0].parent)) and parent not in chain:
                chain.insert(0, parent)
        return chain

    def has(self, edit_id: str) -> bool:
        """Whether there is an edit of this id."""
        with self._session() as session:
            return session.get(Edit, edit_id) is not None

    def made(self, owner: str, fingerprint: str) -> str | None:
        """The id of the owner's latest edit that resulted in this picture, from another one."""
        made = select(Edit.id).where(Edit.owner == owner, Edit.result == fingerprint)
        made = made.where(~col(Edit.source).startswith(fingerprint)).order_by(col(Edit.created).desc())
        with self._session() as session:
            return session.exec(made).first()

    def thumbnail(self, edit: Edit) -> bytes | None:
        """The small picture of an edit, as WebP; None where one of its files is missing."""
        try:
            return self.thumbnail_path(edit).read_bytes() if all(path.exists() for path in self._paths(edit)) else None
        except OSError:
            return None

    def read(self, path: Path) -> bytes:
        """The bytes of a file of an edit. Raises EditError where it is missing."""
        try:
            return path.read_bytes()
        except OSError as error:
            raise EditError("This edit can't be shown: a picture of it is missing from the history folder.") from error

    @property
    def shown(self) -> Path:
        """The folder of what pages were sent and show, none of which belongs to an edit (`editor.ui_files`)."""
        return self.folder / "shown"

    def source_path(self, edit: Edit) -> Path:
        return self._source(edit.source)

    def _source(self, name: str) -> Path:
        return self.folder / "sources" / f"{name}.png"

    def result_path(self, edit: Edit) -> Path:
        return self.folder / "results" / f"{edit.id}.png"

    def thumbnail_path(self, edit: Edit) -> Path:
        return self.folder / "thumbnails" / f"{edit.id}.webp"

    def _paths(self, edit: Edit) -> tuple[Path, ...]:
        return self.source_path(edit), self.result_path(edit), self.thumbnail_path(edit)

    def _session(self) -> Session:
        return Session(self.database, expire_on_commit=False)
