#!/bin/sh
# framework.sh NAME VERSION: install that framework from its lock, or say which there are.
set -eu
lock=docker/locks/$1-$2.txt
if [ ! -f "$lock" ]; then
  echo "no lock for FRAMEWORK=$1 FRAMEWORK_VERSION=$2; there are:" >&2
  ls docker/locks | sed -n 's/^\(.*\)-\(.*\)\.txt$/  FRAMEWORK=\1 FRAMEWORK_VERSION=\2/p' >&2
  exit 1
fi
exec pip --python /opt/venv/bin/python install --require-hashes --requirement "$lock"
