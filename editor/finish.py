"""The landings of a search in the source's own pixels: small, at full size, and where they lie.

A composite of a photograph takes seconds, so a run makes that of its result alone, and others when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from editor import images
from editor.registration import Offset, offset

PREVIEW = 384
"""Longest side of a preview in pixels."""
COMPARED = 1024
"""Longest side in pixels at which a result is compared with its source."""


@dataclass(frozen=True)
class Canvas:
    """What the landings of one run are laid into."""

    source: Image.Image
    before: Float[Tensor, "3 size size"]
    """The model's own reconstruction of the source."""
    placement: images.Placement
    mask: Image.Image | None

    @cached_property
    def preview_size(self) -> Canvas:
        return self._at_most(PREVIEW)

    @cached_property
    def compared_size(self) -> Canvas:
        return self._at_most(COMPARED)

    def _at_most(self, side: int) -> Canvas:
        mask = images.at_most(self.mask, side) if self.mask else None
        return Canvas(images.at_most(self.source, side), self.before, self.placement, mask)


@dataclass(frozen=True)
class Landed:
    """A landing over its canvas; see `editor.types.Laid`."""

    canvas: Canvas
    after: Float[Tensor, "3 size size"]
    maps: Float[Tensor, "12 h w"] | None = None
    """Of colours, where the edit is nothing else (`editor.recolour`): then they are laid over the source's own pixels,
    and `after` is what the judge saw."""

    def preview(self) -> Image.Image:
        return self._composite(self.canvas.preview_size, masked=True)

    def image(self) -> Image.Image:
        return self._composite(self.canvas, masked=True)

    def offset(self) -> Offset | None:
        """Of what the model made before it was masked, seen outside the mask: there it should lie as it lay.

        Where it doesn't, what is laid inside the mask is off against its surroundings too.
        """
        canvas = self.canvas.compared_size
        unmasked = images.to_unit(self._composite(canvas, masked=False))
        outside = None if canvas.mask is None else images.to_unit(images.inverted(canvas.mask))[:, :1] == 1
        found = offset(images.to_unit(canvas.source), unmasked, outside)
        scale = self.canvas.source.width / canvas.source.width
        return None if found is None else Offset(scale * found.x, scale * found.y)

    def _composite(self, canvas: Canvas, masked: bool) -> Image.Image:
        mask = canvas.mask if masked else None
        if self.maps is not None:
            return images.recolour(canvas.source, self.maps, canvas.placement, mask)
        return images.composite(canvas.source, canvas.before, self.after, canvas.placement, mask)
