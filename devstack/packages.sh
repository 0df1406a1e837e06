#!/bin/sh
# What the tests need of Debian: RabbitMQ's server, a library that gives a process a wrong clock, systemd's checker of units.
# Root on Debian gets them installed; anybody else is told how. The tests run servers of their own, on free ports.
set -eu
exec >&2

missing=
command -v rabbitmq-server >/dev/null 2>&1 || missing="$missing rabbitmq-server"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
[ -n "$missing" ] || exit 0

command="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing for some of the tests:$missing. On Debian and Ubuntu: $command"
    exit 0
fi
echo "Installing$missing"
apt-get update -qq
# In runlevel 1 no service that comes with a package is started.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $command -qq
