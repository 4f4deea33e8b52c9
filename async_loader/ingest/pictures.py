"""Pictures made small."""

from __future__ import annotations

import warnings
from io import BytesIO
from threading import Lock

from PIL import (
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from .reading import UnreadableError

SIDE = 500  # pixels
# Pillow knows more, and more ways to be led astray; these are what pictures of music are in.
FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)
_QUALITY = 85
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = 1
# The filters of warnings are the process's: threads that set them take turns.
_opening = Lock()


def fit(data: bytes, side: int = SIDE) -> bytes:
    """
    Return a picture as a JPEG that fits a square, upright, its proportions kept.

    A JPEG that is so already is returned as it is. Raises `UnreadableError` for what is no
    picture, is damaged, or unpacks to more pixels than Pillow deems safe (89 million).
    """
    try:
        with _open(data) as image:
            if _is_as_wanted(image, side):
                image.load()  # what is cut off shows here
                return data
            image.thumbnail((side, side))
            return _encoded(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableError(f"not a picture ({', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise nearly anything at damaged files
        raise UnreadableError(f"damaged: {error}") from error


def _open(data: bytes) -> Image.Image:
    """Read a picture's header; Pillow warns of a bomb, which is an error here."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(BytesIO(data), formats=FORMATS)


def _is_as_wanted(image: Image.Image, side: int) -> bool:
    upright = image.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT
    return image.format == "JPEG" and upright and max(image.size) <= side


def _encoded(image: Image.Image) -> bytes:
    """Return a JPEG; what was transparent is white."""
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "L") else None
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(opaque, mask=opaque)
    elif image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    out = BytesIO()
    image.save(out, "JPEG", quality=_QUALITY, icc_profile=profile)
    return out.getvalue()
