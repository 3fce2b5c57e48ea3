"""One X-ray picture becomes one small tensor: values in 0..1, then as the graph was trained with them."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from engines.errors import ContentError
from engines.preprocess.base import Assembled, Preprocessor
from engines.types import Image, Prepared, Stack

#: Share of the brightest value; below it, what differs is rounding.
_LEAST_CONTRAST = 1e-4


class Xray(Preprocessor):
    """Shrinks by area, stretches between two percentiles to 0..1, subtracts ``mean`` and divides by ``sd``.

    Attributes:
        tensor: Name of the graph's input, [1, 1, size, size] float32; [1, 3, size, size] where ``mean`` has 3 values.
        size: Rows and columns of the tensor.
        low_percentile: Becomes 0.
        high_percentile: Becomes 1.
        mean: One value; or three, for graphs that were trained on colour pictures: each channel shows the same picture.
        sd: As many.
    """

    tensor: str = "image"
    size: int = Field(default=256, ge=16, le=1024)
    low_percentile: float = Field(default=1.0, ge=0, lt=50)
    high_percentile: float = Field(default=99.0, gt=50, le=100)
    mean: tuple[float, ...] = (0.0,)
    sd: tuple[float, ...] = (1.0,)

    @model_validator(mode="after")
    def _as_many(self) -> Xray:
        if len(self.mean) not in {1, 3} or len(self.sd) != len(self.mean):
            raise ValueError("mean and sd hold one value each, or three each")
        if not all(np.isfinite((*self.mean, *self.sd))) or min(self.sd) <= 0:
            raise ValueError("mean and sd are finite, and sd is above 0")
        return self

    def prepare(self, image: Image) -> Prepared:
        """Shrink to ``size`` x ``size`` (the aspect ratio is not kept) and scale to 0..1.

        Raises:
            ContentError: ``quality`` for a picture without contrast.
        """
        import cv2

        if image.array.ndim != 2 or min(image.array.shape) < 16:
            raise ContentError(
                "out_of_envelope", "a picture of shape {shape} is no X-ray", shape=str(image.array.shape)
            )
        small = cv2.resize(
            image.array.astype(np.float32, copy=False), (self.size, self.size), interpolation=cv2.INTER_AREA
        )
        low, high = np.percentile(small, (self.low_percentile, self.high_percentile))
        if not high - low > _LEAST_CONTRAST * max(1.0, abs(float(high))):
            raise ContentError("quality", "the picture is blank")
        scaled = np.clip((small - low) / (high - low), 0, 1).astype(np.float32)
        return Prepared(
            id=image.id,
            array=scaled,
            shape=(image.array.shape[0], image.array.shape[1]),
            spacing_mm=image.spacing_mm,
            numbers=dict(image.numbers),
        )

    def assemble(self, stack: Stack) -> Assembled:
        """Add batch and channel axes; subtract ``mean``, divide by ``sd``.

        Raises:
            ContentError: ``out_of_envelope`` for more than one picture.
        """
        if len(stack.slices) != 1:
            raise ContentError("out_of_envelope", "{count} pictures, one is taken", count=len(stack.slices))
        picture = stack.slices[0]
        spacing = picture.spacing_mm or (1.0, 1.0)
        pixel = (spacing[0] * picture.shape[0] / self.size, spacing[1] * picture.shape[1] / self.size)
        mean, sd = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.sd))
        tensors = {self.tensor: ((picture.array - mean) / sd)[None]}
        return Assembled(tensors=tensors, stack=stack, pixel_mm=pixel, numbers=dict(picture.numbers))
