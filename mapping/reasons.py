"""The sentences in tile.json and merge.json that say why an image is in no model.

Each reason in these files begins with one of the sentences below, which stands for one reason of
`unregistered.parquet`; figures may follow.
"""

from __future__ import annotations

from vladmap.schemas.rejects import UnregisteredReason

NO_PAIR = "no trusted pair with another photograph of its tile"
NOT_PLACED = "the mapper found no place for it among the others"
NO_PARALLAX = "no parallax"
ONLY_TURNS = f"{NO_PARALLAX}: a turn on the spot explains every verified pair"
FEW_POINTS = "too little evidence"
BY_PAIRS = "its pairs contradict its pose"
BY_GPS = "GPS and its drive contradict its pose"
TORN = "two tiles have it in different places"
SMALL_MODEL = "its model was left with"
MODEL_BY_ALL = "its model is contradicted"
MODEL_BY_GPS = "GPS contradicts its model"

_REASONS = {
    NO_PAIR: UnregisteredReason.PAIRS_NOT_TRUSTED,
    NOT_PLACED: UnregisteredReason.LEFT_OUT_BY_MAPPER,
    NO_PARALLAX: UnregisteredReason.TOO_FEW_POINTS,
    FEW_POINTS: UnregisteredReason.TOO_FEW_POINTS,
    BY_PAIRS: UnregisteredReason.CONTRADICTED,
    BY_GPS: UnregisteredReason.CONTRADICTED,
    TORN: UnregisteredReason.CONTRADICTED,
    SMALL_MODEL: UnregisteredReason.MODEL_TOO_SMALL,
    MODEL_BY_ALL: UnregisteredReason.MODEL_LEFT_OUT,
    MODEL_BY_GPS: UnregisteredReason.MODEL_LEFT_OUT,
}


def reason_of(words: str) -> UnregisteredReason | None:
    """The reason that a sentence stands for; None for one that begins otherwise."""
    return next((reason for start, reason in _REASONS.items() if words.startswith(start)), None)
