#!/bin/sh
# In namespaces of its own (conftest.py): a root over this machine's, of which nothing is written, and systemd as its PID 1.
# boot.sh DIRECTORY PROJECT: the directory has a file system of its own then; the project stays where it is, as it is.
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
mkdir -p "$root$2"
mount --rbind "$2" "$root$2"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,ro,bind "$root/proc/sys" # the kernel's settings are not this systemd's
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  # shellcheck disable=SC2086  # a name and two numbers
  set -- "$1" "$2" $node
  mknod -m 666 "$root/dev/$3" c "$4" "$5"
done
mkdir -m 1777 "$root/dev/shm" # PostgreSQL is another account there
mkdir "$root/dev/pts"
ip link set lo up
# What the machine itself would start is not there: one target, and systemd's own log.
units=$root/etc/systemd/system
mount -t tmpfs tmpfs "$units"
for target in sysinit basic at-most-one; do
  printf '[Unit]\nDefaultDependencies=no\n' > "$units/$target.target"
done
echo "Wants=systemd-journald.service" >> "$units/at-most-one.target"
cp /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-journald*.socket "$units"
exec chroot "$root" /usr/bin/env -i container=other PATH="$PATH" SYSTEMD_UNIT_PATH=/etc/systemd/system \
  /lib/systemd/systemd --unit=at-most-one.target --log-target=console --show-status=no
