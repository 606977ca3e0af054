"""The base class of all exporters, their settings and their result."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vladmap.atlas import layout, storage
from vladmap.atlas.store import AtlasStore
from vladmap.photos.decoding.opening import MAX_PIXELS
from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    from vladmap.localisation.preparing import Asked


@dataclass(frozen=True)
class Settings:
    """What to export and how.

    `model` is the number of the model. `images` is the collection's present folder, if it has
    moved; `copy` copies photographs that are otherwise linked; `text` writes text files instead of
    binary ones. `queries` are photographs from outside that are to be localised. `descriptors`
    names the descriptor model, where the atlas has several. A kind of export uses the settings that
    its `ExportKind` names.
    """

    output: Path
    model: int = 0
    images: str = ""
    copy: bool = False
    text: bool = False
    threads: int = 1
    max_pixels: int = MAX_PIXELS
    queries: tuple[Asked, ...] = ()
    descriptors: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What an export wrote.

    `lines` report it to the user. Of the `total` photographs of the model, `missing` has (name,
    reason) of those that could not be exported.
    """

    lines: tuple[str, ...]
    total: int
    missing: tuple[tuple[str, str], ...] = ()


class Exporter(ABC):
    """One kind of export."""

    def count(self, atlas: AtlasStore, settings: Settings) -> int:
        """The number of photographs that `export` handles, for a progress bar.

        Raises UserError where the atlas has no such model.
        """
        images = model_facts(atlas, settings.model).get("images")
        return images if isinstance(images, int) else 0

    @abstractmethod
    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """Write the export into the new folder `settings.output`.

        `progress` is called after each photograph. Raises UserError where the atlas has no such
        model or is damaged, and where the folder cannot be written.
        """


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """The folder of an export, created if it does not exist.

    Raises UserError where it holds files, and for any OSError in the block.
    """
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"--output {output} holds files: choose a new folder")
        output.mkdir(parents=True, exist_ok=True)
        yield output
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}") from error


def model_facts(atlas: AtlasStore, model: int) -> dict[str, Any]:
    """The entry of a model in `model/merge.json`. Raises UserError where there is no such model."""
    try:
        entries = json.loads(storage.read_bytes(atlas.path(layout.MERGE_REPORT)))["models"]
        models = [facts for facts in entries if isinstance(facts, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        models = []
    if not models:
        raise UserError(
            f"{atlas.root} has no model: run `vladmap build` to its end, and see in its report why"
        )
    if not 0 <= model < len(models):
        raise UserError(f"--model {model}: {atlas.root} has models 0 to {len(models) - 1}")
    return models[model]
