"""Recall of the images of one collection as queries among each other, by their true places.

Images taken next to the query in its own sequence show nearly the same and would always be ranked
first: they are left out of its ranking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vladmap.photos.places import Places, within
from vladmap.retrieval.names import RIGHT_DEG, RIGHT_M
from vladmap.retrieval.recall import Figures, figures, rank

Rows = NDArray[np.int64]

RECALL_AT = (1, 5, 10, 20)


def right_matches(places: Places, beside: Sequence[Rows]) -> list[Rows]:
    """For each of N images the rows of its right matches, ascending.

    A right match lies within RIGHT_M of the image, its heading differs by at most RIGHT_DEG (an
    unknown heading agrees with any), and it is not in `beside`, the rows taken next to the image.
    """
    near = within(places, places, RIGHT_M)
    matches_of_each = []
    for row, (others, same) in enumerate(zip(near, beside, strict=True)):
        apart = (places.headings[others] - places.headings[row] + 180.0) % 360.0 - 180.0
        alike = ~(np.abs(apart) > RIGHT_DEG)
        matches_of_each.append(np.setdiff1d(others[alike], np.append(same, row)))
    return matches_of_each


def recall_of_places(
    descriptors: NDArray[np.float32], places: Places, beside: Sequence[Rows]
) -> Figures:
    """Recall of N images as queries, each among the N - 1 others, by their true `places`.

    `descriptors` (N, D) are unit vectors; a zero row is an image without a descriptor, which counts
    as a miss and is no match. `beside` lists for each image the rows taken next to it
    (photos.sequences.beside_in_sequence), which are not ranked. The search is exact: its time grows
    with the square of N.
    """
    return figures(
        rank(
            descriptors,
            descriptors,
            right_matches(places, beside),
            keep=max(RECALL_AT),
            leave_one_out=True,
            left_out=beside,
        )
    )
