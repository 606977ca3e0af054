"""How often descriptors find the right place, by the true places of the images themselves.

Each image is looked for among all the others. What was taken next to it in its own sequence is the
same picture over again: finding it is no merit and not finding it no fault, so it is left out.
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

    They lie within RIGHT_M of it and look within RIGHT_DEG of its heading (a heading that is not
    known agrees with any), and are not among the rows that it is `beside`.
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

    `descriptors` (N, D) are unit vectors, zero where an image has none: it finds nothing and is not
    found, and counts. `beside` holds for each image the rows that were taken next to it
    (photos.sequences.beside_in_sequence): they are not ranked. Search is exact: time grows with
    the square of N.
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
