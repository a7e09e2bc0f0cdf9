"""Picture files by format: what is in a file becomes grey or colour values from 0 to 255, or is refused with a reason.

Nothing but pixels, and what says how to show them, is read. A reason names neither the file nor anything in it.
"""

from fedmunkey.client.importing.pictures.picture import Choices, Picture, Remark, UnusablePicture
from fedmunkey.client.importing.pictures.registry import open_picture, read_picture

__all__ = ["Choices", "Picture", "Remark", "UnusablePicture", "open_picture", "read_picture"]
