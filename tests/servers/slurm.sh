#!/usr/bin/env bash
# Slurm on one machine, for tests: a controller and two nodes, as root, without systemd, nothing in /etc.
#
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#   tests/servers/slurm.sh start FOLDER     then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/servers/slurm.sh stop FOLDER
set -euo pipefail
action=$1 folder=$(realpath -m "$2") here=$(dirname "$(realpath "$0")")
export SLURM_CONF=$folder/slurm.conf

start() {
  mkdir -p "$folder"/{state,log,spool-c1,spool-c2}
  dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 2> /dev/null
  chmod 400 "$folder/munge.key"
  sed -e "s|FOLDER|$folder|g" -e "s|HOST|$(hostname -s)|g" "$here/slurm.conf" > "$SLURM_CONF"
  munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munged.seed" --force --num-threads=2
  slurmctld -c
  slurmd -N c1
  slurmd -N c2
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --Node --format=%t 2> /dev/null | sort -u)" = idle ] && return
    sleep 0.5
  done
  sinfo >&2
  echo "the nodes do not come up: see $folder/log" >&2
  return 1
}

stop() {
  for name in slurmd-c1 slurmd-c2 slurmctld munged; do
    [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" 2> /dev/null || true
  done
}

case $action in
  start) start ;;
  stop) stop ;;
  *) echo "usage: $0 start|stop FOLDER" >&2; exit 2 ;;
esac
