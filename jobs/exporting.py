"""The work of `vladmap export`, and what is said of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vladmap.atlas.store import AtlasStore
from vladmap.photos.formats import MAX_PIXELS
from vladmap.pipeline.export import Exported, Settings, count_images, export_colmap
from vladmap.schemas.rejects import RejectReason, UserError

_NAMED = 3


def export(
    root: str,
    output: Path,
    *,
    model: int,
    images: str,
    copy: bool,
    text: bool,
    max_pixels: int | None,
    quiet: bool,
) -> None:
    """Export a model of the atlas at `root` and say what there is; see pipeline.export.Settings.

    Raises UserError where nothing can be exported, and where a photograph could not be.
    """
    atlas = AtlasStore.open(root, create=False)
    threads = os.cpu_count() or 1
    settings = Settings(output, model, images, copy, text, threads, max_pixels or MAX_PIXELS)
    total, disable = count_images(atlas, model), True if quiet else None
    with tqdm(total=total, desc="export", unit=" photographs", disable=disable) as bar:
        exported = export_colmap(atlas, settings, bar.update)
    print(_said(exported, output), flush=True)
    missing = [item for item in exported if item.missing]
    if missing:
        named = "; ".join(f"{item.name} ({item.missing})" for item in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        gone = any(item.missing.startswith(RejectReason.MISSING.value) for item in missing)
        hint = "; if the collection has moved, say where with --images DIR" if gone else ""
        raise UserError(
            f"export: {len(missing)} of {len(exported)} photographs are not in "
            f"{output / 'images'}: {named}{more}{hint}"
        )


def _said(exported: Sequence[Exported], output: Path) -> str:
    counts = Counter(item.how for item in exported if item.how)
    kinds = [how for how in ("linked", "copied", "upright") if counts[how]]
    hows = ", ".join(f"{counts[how]} {how}" for how in kinds)
    lines = [f"{sum(counts.values())} photographs in {output / 'images'}: {hows or 'none'}"]
    renamed = sum(item.name != item.file for item in exported)
    if renamed:
        lines.append(f"{renamed} have another name than in the atlas: export.json has both")
    lines.append(f"the model that fits them in {output / 'sparse' / '0'}")
    return "\n".join(lines)
