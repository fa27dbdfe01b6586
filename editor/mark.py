"""The machine-readable mark that a picture was edited by AI: in EXIF and XMP (IPTC), and in PNG text.

A picture in memory bears it in its `info`, so that whatever encodes it writes the mark, and a file that bears it gives
a picture that does. Pixels and fingerprints know nothing of it.
"""

from __future__ import annotations

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

AI_NOTE = "This picture was edited by AI (Tiltedit)."
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
SOFTWARE = "Tiltedit (AI-edited picture)"
BEARS = "edited_by_ai"
"""The entry of a picture's `info` that says it bears the mark."""
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def marked(image: Image.Image) -> Image.Image:
    """A copy of the picture that bears the mark."""
    copy = image.copy()
    copy.info[BEARS] = True
    return copy


def bears_mark(image: Image.Image) -> bool:
    """Whether a picture in memory bears the mark."""
    return BEARS in image.info


def file_bears_mark(opened: Image.Image) -> bool:
    """Whether a picture that was just opened comes from a file with the mark; False where its EXIF is damaged."""
    try:
        return opened.getexif().get(ExifTags.Base.Software) == SOFTWARE
    except Exception:  # EXIF comes from anywhere and its parser may fail in any way
        return False


def exif() -> bytes:
    """The mark as EXIF data."""
    data = Image.Exif()
    data[ExifTags.Base.Software] = SOFTWARE
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + AI_NOTE.encode("ascii")
    return data.tobytes()


def png_text() -> PngInfo:
    """The mark as PNG text, to which more may be added."""
    text = PngInfo()
    text.add_text("Software", "Tiltedit")
    text.add_text("Comment", AI_NOTE)
    text.add_itxt("XML:com.adobe.xmp", XMP)
    return text
