#!/bin/bash
# widemin on a cluster: an array job whose first task asks for rows and whose others compute.
#
#     sbatch book/cluster/slurm.sh all --preset paper
#
# takes what `widemin run` takes. Rows go to the folder that RESULTS names, which every
# node must see. Two minutes before the time is over SLURM says so by SIGTERM: finished
# rows and trainings under way are kept, and the same call goes on.
#SBATCH --job-name=widemin
#SBATCH --array=0-20
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=widemin-%A-%a.log
export OMP_NUM_THREADS=1
results=${RESULTS:-$PWD/rows}
meeting=$PWD/widemin-$SLURM_ARRAY_JOB_ID.json # where tasks learn the scheduler's address

if [ "$SLURM_ARRAY_TASK_ID" != 0 ]; then
  exec dask worker --scheduler-file "$meeting" --nthreads 1 --death-timeout 600
fi
dask scheduler --scheduler-file "$meeting" --port 0 --dashboard-address :0 &
scheduler=$!
until [ -s "$meeting" ]; do
  kill -0 $scheduler || exit 1
  sleep 1
done
address=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$meeting")
widemin run "$@" --rows-only --results "$results" --cluster "$address" &
run=$!
trap 'kill -TERM $run' TERM
wait $run
status=$?
trap - TERM
# A signal ends the first wait; what it asked to stop is waited for.
wait $run 2>/dev/null
kill $scheduler # its workers leave with it
wait $scheduler
rm -f "$meeting"
exit $status
