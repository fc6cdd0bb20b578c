#!/bin/sh
# tree.sh plain|full DIR makes a small root file system in DIR. The plain one has what
# every policy takes. The full one has also what real root file systems have.
# tree.sh upper DIR changes such a tree, as an upper layer does.
set -eu
kind=$1
cd "$2"

plain() {
	mkdir -p etc/gone/sub usr/bin usr/lib/app usr/share/empty usr/share/doc var/lib home/user opt/app
	echo root:x:0:0:root:/root:/bin/sh >etc/passwd
	echo host >etc/hostname
	echo gone >etc/gone/sub/file
	echo text >usr/share/doc/README
	echo data >var/lib/data
	echo mine >home/user/file
	: >"usr/share/Grüße"
	cp "$(command -v busybox)" usr/bin/busybox
	for name in sh ls cat; do ln usr/bin/busybox usr/bin/$name; done
	ln -s usr/bin bin
	ln -s ../usr/lib/app opt/link
	chown -Rh 1000:1000 home/user
	chmod 600 var/lib/data
	chmod 1777 usr/share/empty
}

full() {
	long=$(printf '%0150d' 0)
	mkdir -p dev tmp var/log/journal "usr/share/long/$long" etc/pki/java
	mknod dev/null c 1 3
	mknod dev/loop0 b 7 0
	mkfifo dev/initctl
	chmod 1777 tmp
	ln -s /proc/self/mounts etc/mtab
	ln -s ../../../../../../../etc/hostname etc/pki/java/cacerts
	cp usr/share/doc/README usr/bin/su
	cp usr/share/doc/README usr/bin/ping
	ln -s "$long/$long" "usr/share/long/link"
	: >"usr/share/long/$long/$long"
	chmod 4755 usr/bin/su
	chmod 2775 var/log/journal
	setcap cap_net_raw=ep usr/bin/ping
	setfattr -n user.note -v note etc/hostname
	setfacl -m g:4:rx var/log/journal
	truncate -s 1M var/log/lastlog
}

upper() {
	rm -r etc/gone opt/app
	ln -s ../usr/lib/app opt/app
	rm opt/link
	mkdir opt/link
	echo new >opt/link/file
	echo changed >etc/hostname
	chmod 640 var/lib/data
	ln etc/hostname etc/name
}

case $kind in
plain) plain ;;
full) plain && full ;;
upper) upper ;;
esac
find . -depth -exec touch -h -d @1700000000.123456789 {} +
