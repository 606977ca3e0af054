"""The files of an atlas, and how common tools read each of them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class AtlasFile:
    """A path relative to the atlas, what it holds, and lines of Python that read it."""

    path: str
    what: str
    snippet: str


def atlas_files(descriptor_model: str, features: str) -> list[AtlasFile]:
    """The open files of an atlas whose descriptors and local features have these names."""
    index = f"index/{descriptor_model}"
    return [
        AtlasFile(
            "images/",
            "GeoParquet: position, time, camera and sequence of each image",
            'import geopandas\n\nimages = geopandas.read_parquet("images")',
        ),
        AtlasFile(
            "poses.parquet",
            "GeoParquet: where each registered image was taken, and how it was turned",
            'import geopandas\n\nposes = geopandas.read_parquet("poses.parquet")\n'
            'poses.to_file("poses.gpkg")  # for QGIS',
        ),
        AtlasFile(
            "unregistered.parquet",
            "GeoParquet: every photograph that is not in the map, and why",
            "import geopandas\n\n"
            'missing = geopandas.read_parquet("unregistered.parquet")\n'
            'missing.groupby(["stage", "reason"]).size()',
        ),
        AtlasFile(
            f"{index}/",
            "FAISS: the retrieval index, and the image behind each of its ids",
            "import faiss\nimport pyarrow.parquet\n\n"
            f"index = faiss.read_index({index + '/global.faiss'!r})\n"
            f"ids = pyarrow.parquet.read_table({index + '/ids.parquet'!r})\n"
            "similarity, rows = index.search(queries, 5)  # queries: (N, D) float32, unit norm",
        ),
        AtlasFile(
            "model/",
            "COLMAP: the georeferenced models",
            "# For photographs that fit them: vladmap export --atlas . --to colmap --output out\n"
            "import pycolmap\nfrom pathlib import Path\n\n"
            "folders = sorted(p.parent for p in Path('model').rglob('images.bin'))\n"
            "models = [pycolmap.Reconstruction(folder) for folder in folders]",
        ),
        AtlasFile(
            f"descriptors/{descriptor_model}/",
            "Parquet: a global descriptor an image",
            "import pyarrow.dataset\n\n"
            f"table = pyarrow.dataset.dataset({f'descriptors/{descriptor_model}'!r}).to_table()\n"
            "matrix = table['descriptor'].combine_chunks().flatten().to_numpy()\n"
            "matrix = matrix.reshape(len(table), -1)",
        ),
        AtlasFile(
            f"features/{features}/",
            "Parquet: keypoints and local descriptors of each image",
            "import pyarrow.dataset\n\n"
            f"features = pyarrow.dataset.dataset({f'features/{features}'!r})\n"
            "row = features.head(1, columns=['image_id', 'keypoints'])",
        ),
        AtlasFile(
            "pairs/, two_views/",
            "Parquet: candidate pairs, and the matches and geometry of each",
            "import pyarrow.dataset\n\n"
            "pairs = pyarrow.dataset.dataset('pairs').to_table().to_pandas()\n"
            "two_views = pyarrow.dataset.dataset('two_views')",
        ),
        AtlasFile(
            "rejects/",
            "Parquet: what was left out, and why",
            "import pyarrow.dataset\n\n"
            "rejects = pyarrow.dataset.dataset('rejects').to_table().to_pandas()\n"
            "rejects.groupby(['stage', 'reason']).size()",
        ),
    ]
