#!/bin/sh
# install.sh LOCK...: install from locks, a later one over an earlier one; or say which there are.
set -eu
for lock in "$@"; do
  if [ ! -f "$lock" ]; then
    echo "there is no lock $lock; what there is:" >&2
    ls docker/locks | sed -n 's/^\(.*\)-\(.*\)\.txt$/  FRAMEWORK=\1 FRAMEWORK_VERSION=\2/p' >&2
    ls requirements/servers | sed -n 's/^\(.*\)\.txt$/  SERVER=\1/p' >&2
    exit 1
  fi
  pip --python /opt/venv/bin/python install --require-hashes --requirement "$lock"
done
exec pip --python /opt/venv/bin/python check
