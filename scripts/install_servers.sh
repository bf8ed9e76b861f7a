#!/usr/bin/env bash
# Debian packages of the real servers and tools that tests run against: an archive (Orthanc), DICOM tools, a database (PostgreSQL),
# SLURM, ImageMagick.
# Tests that lack one of them skip and say so, so a machine without apt or root goes on.
set -uo pipefail
PACKAGES="orthanc orthanc-dicomweb dcmtk dicom3tools postgresql slurm-wlm munge imagemagick chromium nodejs npm"

missing=""
for package in $PACKAGES; do
  dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, and this is not root on Debian:$missing; their tests will skip"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null 2>&1
# shellcheck disable=SC2086
if apt-get install -y -q --no-install-recommends $missing >/tmp/install_servers.log 2>&1; then
  echo "installed:$missing"
else
  echo "could not install:$missing (see /tmp/install_servers.log); their tests will skip"
fi
