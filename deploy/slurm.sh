#!/bin/bash
# A Slurm array job: each task scores its share of a manifest, and all write to one folder.
#
#   MANIFEST=/data/images.parquet BUNDLE=/data/model.pscr OUT=/data/scores sbatch --array=0-15 deploy/slurm.sh
#
# After failures, hand in the missing tasks alone, and say how many there were at first:
#
#   MANIFEST=... BUNDLE=... OUT=... SHARDS=16 sbatch --array=3,7 deploy/slurm.sh
#
#SBATCH --job-name=pscr-score
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=pscr-score-%A-%a.log
# With GPUs, besides: sbatch --gres=gpu:1

set -euo pipefail

: "${MANIFEST:?the list of images}" "${BUNDLE:?what pscr-engine export made}" "${OUT:?a folder or prefix for the scores}"
: "${SLURM_ARRAY_TASK_ID:?start it with sbatch --array=0-15}"
if ((SLURM_ARRAY_TASK_MIN != 0)) && [[ -z "${SHARDS:-}" ]]; then
  echo "error: shards are counted from 0: use --array=0-15, or name how many there are with SHARDS=16" >&2
  exit 2
fi

exec srun pscr-engine score \
  --manifest "$MANIFEST" \
  --bundle "$BUNDLE" \
  --out "$OUT" \
  --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}" \
  --log-format json
