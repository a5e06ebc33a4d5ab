"""Read what `score` has written."""

import pyarrow.parquet as pq


def scores(folder):
    return pq.read_table(sorted(folder.glob("part-*.parquet"))).select(["row", "score", "score_std"]).to_pydict()
