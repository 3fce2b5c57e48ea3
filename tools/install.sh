#!/bin/sh
# Installs the box from this working tree on Debian 12 or Ubuntu 22.04 / 24.04 with systemd, as root. Run it again to
# upgrade: it keeps the configuration and /var/lib/scanside. It enables and starts nothing; the last lines say how.
#
# DESTDIR=/some/root tools/install.sh lays the files of systemd and the configuration below that root and makes no
# environment: one works only at its final place.
set -eu
cd "$(dirname "$0")/.."
root=${DESTDIR:-}
prefix=/opt/scanside
python=${PYTHON:-python3}

if [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
    echo "tools/install.sh: must run as root (or with DESTDIR=/some/root)" >&2
    exit 1
fi

put() { # mode, file, place
    install -D -m "$1" "$2" "$root$3"
}
put 0644 systemd/scanside.service /etc/systemd/system/scanside.service
put 0644 systemd/scanside-worker.service /etc/systemd/system/scanside-worker.service
put 0644 systemd/scanside-kiosk.service /etc/systemd/user/scanside-kiosk.service
put 0644 systemd/scanside.sysusers /etc/sysusers.d/scanside.conf
put 0644 systemd/scanside.tmpfiles /etc/tmpfiles.d/scanside.conf
[ -e "$root/etc/scanside/appliance.yaml" ] || put 0640 config/appliance.yaml /etc/scanside/appliance.yaml

if [ -n "$root" ]; then
    echo "laid below $root; make the environment on the machine itself: tools/install.sh"
    exit 0
fi

"$python" -m venv "$prefix"
"$prefix/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement requirements/run.txt "$(grep '^setuptools==' requirements/dev.txt)"
"$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
systemd-sysusers /etc/sysusers.d/scanside.conf
systemd-tmpfiles --create /etc/tmpfiles.d/scanside.conf
chgrp scanside /etc/scanside/appliance.yaml
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
cat << TEXT
Installed in $prefix. Next:
  1. edit /etc/scanside/appliance.yaml, then: $prefix/bin/scanside config validate /etc/scanside/appliance.yaml
  2. systemctl enable --now scanside scanside-worker
  3. $prefix/bin/scanside doctor
The service holds no capability: for DICOM port 104 instead of 11112 set net.ipv4.ip_unprivileged_port_start=104.
TEXT
# A screen on this machine itself, and nothing to draw its Chinese with.
if command -v chromium > /dev/null && [ -z "$(fc-list :lang=zh 2> /dev/null)" ]; then
    echo "Chromium is here and no font for Chinese: apt-get install fontconfig fonts-wqy-microhei"
fi
